use std::sync::Arc;

use proptest::prelude::*;
use tidegate_model::matcher::{
    HeaderMatchSpecifier, HeaderMatcher, QueryParameterMatchSpecifier, QueryParameterMatcher,
    StringMatcher, StringPattern,
};
use tidegate_model::route::{
    DirectResponse, PathSpecifier, PerFilterConfig, RequireTls, Route, RouteAction,
    RouteConfiguration, RouteMatch, VirtualHost,
};
use tidegate_model::{Fraction, HeaderMutations, Name, RuntimeFraction};

use super::*;
use crate::request::PlainRequest;

pub(crate) fn route(matches: RouteMatch) -> Arc<Route> {
    Arc::new(Route {
        name: Name::from(""),
        matches,
        action: RouteAction::DirectResponse(Box::new(DirectResponse {
            status: 200,
            body: None,
        })),
        headers: HeaderMutations::default(),
        per_filter: PerFilterConfig::default(),
        body_buffer_limit: None,
        decorator: None,
        tracing: None,
    })
}

pub(crate) fn matching(path: PathSpecifier) -> RouteMatch {
    RouteMatch {
        path,
        case_sensitive: true,
        headers: Vec::new(),
        query_parameters: Vec::new(),
        runtime_fraction: None,
        grpc: false,
    }
}

pub(crate) fn virtual_host(
    name: &str,
    domains: &[&str],
    routes: Vec<Arc<Route>>,
) -> Arc<VirtualHost> {
    Arc::new(VirtualHost {
        name: Name::from(name),
        domains: domains.iter().map(|d| Name::from(*d)).collect(),
        routes,
        require_tls: RequireTls::None,
        headers: HeaderMutations::default(),
        include_request_attempt_count: false,
        include_attempt_count_in_response: false,
        include_is_timeout_retry_header: false,
        retry_policy: None,
        body_buffer_limit: None,
        per_filter: PerFilterConfig::default(),
    })
}

pub(crate) fn configuration(virtual_hosts: Vec<Arc<VirtualHost>>) -> Arc<RouteConfiguration> {
    Arc::new(RouteConfiguration {
        name: Name::from("test"),
        virtual_hosts,
        headers: HeaderMutations::default(),
        validate_clusters: false,
        most_specific_header_mutations_wins: false,
        ignore_port_in_host_matching: false,
        ignore_path_parameters_in_path_matching: false,
        max_direct_response_body_size_bytes: 4096,
        internal_only_headers: Vec::new(),
        per_filter: PerFilterConfig::default(),
    })
}

fn exact_header(name: &str, value: &str) -> HeaderMatcher {
    HeaderMatcher {
        name: Name::from(name),
        specifier: HeaderMatchSpecifier::String(StringMatcher {
            pattern: StringPattern::Exact(Name::from(value)),
            ignore_case: false,
        }),
        invert_match: false,
        treat_missing_header_as_empty: false,
    }
}

fn host_of(config: &RouteConfiguration, authority: &str) -> Option<String> {
    let routes = CompiledRoutes::standalone(&Arc::new(config.clone())).unwrap();
    routes
        .find_virtual_host(authority.as_bytes())
        .map(|host| host.name().to_string())
}

#[test]
fn hosts_exact_then_longest_suffix_then_longest_prefix_then_any() {
    let mut config = (*configuration(vec![
        virtual_host("any", &["*"], vec![]),
        virtual_host("exact", &["www.foo.com", "www.foo.com:80"], vec![]),
        virtual_host("suffix", &["*.foo.com", "*-bar.baz.com"], vec![]),
        virtual_host("longer", &["*.a.foo.com"], vec![]),
        virtual_host("prefix", &["www.*"], vec![]),
        virtual_host("longer prefix", &["www.foo.*"], vec![]),
    ]))
    .clone();
    let cases = [
        ("WWW.foo.COM", "exact"),
        ("www.foo.com:80", "exact"),
        ("www.foo.com:81", "longer prefix"),
        ("x.foo.com", "suffix"),
        ("x.a.foo.com", "longer"),
        (".foo.com", "any"),
        ("foo-bar.baz.com", "suffix"),
        ("-bar.baz.com", "any"),
        ("www.bar.com", "prefix"),
        ("www.", "any"),
        ("", "any"),
    ];
    for (authority, expected) in cases {
        assert_eq!(
            host_of(&config, authority).as_deref(),
            Some(expected),
            "{authority}"
        );
    }
    config.ignore_port_in_host_matching = true;
    assert_eq!(
        host_of(&config, "www.foo.com:8080").as_deref(),
        Some("exact")
    );
}

#[test]
fn duplicate_domains_are_refused() {
    let config = configuration(vec![
        virtual_host("a", &["x.com"], vec![]),
        virtual_host("b", &["X.com"], vec![]),
    ]);
    let error = CompiledRoutes::standalone(&config).unwrap_err();
    assert_eq!(error.path, "virtual_hosts[1].domains");
}

/// Small alphabets, so that conditions and requests meet often.
fn path_text() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "A", "/"], 0..5)
        .prop_map(|parts| format!("/{}", parts.concat()))
}

fn path_specifier() -> impl Strategy<Value = PathSpecifier> {
    prop_oneof![
        3 => path_text().prop_map(|p| PathSpecifier::Prefix(Name::from(p))),
        2 => path_text().prop_map(|p| PathSpecifier::Path(Name::from(p))),
        1 => path_text().prop_map(|p| {
            PathSpecifier::PathSeparatedPrefix(Name::from(p.trim_end_matches('/')))
        }),
        2 => path_text().prop_map(|p| PathSpecifier::SafeRegex(Name::from(format!("{p}[ab]*|{p}")))),
        1 => Just(PathSpecifier::ConnectMatcher),
    ]
}

fn header_matcher() -> impl Strategy<Value = HeaderMatcher> {
    (
        prop_oneof![Just("x-a"), Just("x-b"), Just(":method")],
        prop_oneof![
            4 => prop_oneof![Just("1"), Just("2"), Just("1,2"), Just("GET")]
                .prop_map(|v| HeaderMatchSpecifier::String(StringMatcher {
                    pattern: StringPattern::Exact(Name::from(v)),
                    ignore_case: false,
                })),
            1 => any::<bool>().prop_map(HeaderMatchSpecifier::Present),
            1 => Just(HeaderMatchSpecifier::Range { start: 1, end: 2 }),
        ],
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.1),
    )
        .prop_map(|(name, specifier, invert_match, missing)| HeaderMatcher {
            name: Name::from(name),
            specifier,
            invert_match,
            treat_missing_header_as_empty: missing,
        })
}

fn route_match() -> impl Strategy<Value = RouteMatch> {
    (
        path_specifier(),
        proptest::bool::weighted(0.8),
        proptest::collection::vec(header_matcher(), 0..2),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.1),
    )
        .prop_map(
            |(path, case_sensitive, headers, query, fraction)| RouteMatch {
                path,
                case_sensitive,
                headers,
                query_parameters: if query {
                    vec![QueryParameterMatcher {
                        name: Name::from("q"),
                        specifier: QueryParameterMatchSpecifier::Present(true),
                    }]
                } else {
                    Vec::new()
                },
                runtime_fraction: fraction.then_some(RuntimeFraction {
                    default: Fraction {
                        per_million: 500_000,
                    },
                    runtime_key: None,
                }),
                grpc: false,
            },
        )
}

fn request() -> impl Strategy<Value = PlainRequest> {
    (
        path_text(),
        proptest::bool::ANY,
        proptest::collection::vec(
            (
                prop_oneof![Just("x-a"), Just("x-b")],
                prop_oneof![Just("1"), Just("2"), Just("x")],
            ),
            0..3,
        ),
        prop_oneof![3 => Just("GET"), 1 => Just("CONNECT")],
    )
        .prop_map(|(path, query, headers, method)| {
            let suffix = if query { "?q=/a" } else { "" };
            let mut request = PlainRequest::get("host", &format!("{path}{suffix}"));
            request.method = method.to_owned();
            for (name, value) in headers {
                request = request.with_header(name, value);
            }
            request
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_the_scan_finds(
        matches in proptest::collection::vec(route_match(), 24..70),
        requests in proptest::collection::vec((request(), any::<u64>()), 40),
    ) {
        let routes = matches.into_iter().map(route).collect();
        let config = configuration(vec![virtual_host("all", &["*"], routes)]);
        let compiled = CompiledRoutes::standalone(&config).unwrap();
        let host = &compiled.virtual_hosts()[0];
        prop_assert!(host.index.is_some());
        let runtime = Runtime::default();
        for (request, random) in &requests {
            let indexed = host.route(request, *random, &runtime).map(|r| r.position);
            let scanned = host.scan(request, *random, &runtime).map(|r| r.position);
            prop_assert_eq!(indexed, scanned, "{:?}", request);
        }
    }

    #[test]
    fn hosts_are_found_as_envoy_describes(
        domains in proptest::collection::hash_set("(\\*|[ab.]{1,4}|\\*[ab.]{1,3}|[ab.]{1,3}\\*)", 1..12),
        hosts in proptest::collection::vec("[abAB.]{0,5}", 20),
    ) {
        let domains: Vec<String> = domains.into_iter().collect();
        let config = configuration(
            domains.iter().map(|d| virtual_host(d, &[d], vec![])).collect(),
        );
        let compiled = CompiledRoutes::standalone(&config).unwrap();
        for host in &hosts {
            let found = compiled.find_virtual_host(host.as_bytes()).map(|h| h.name().to_string());
            prop_assert_eq!(found, naive_host(&domains, &host.to_ascii_lowercase()), "{}", host);
        }
    }
}

fn naive_host(domains: &[String], host: &str) -> Option<String> {
    let longest = |fits: &dyn Fn(&str) -> bool| {
        domains
            .iter()
            .filter(|d| d.as_str() != "*" && d.len() <= host.len() && fits(d))
            .max_by_key(|d| d.len())
            .cloned()
    };
    domains
        .iter()
        .find(|d| !d.contains('*') && *d == host)
        .cloned()
        .or_else(|| longest(&|d| d.strip_prefix('*').is_some_and(|s| host.ends_with(s))))
        .or_else(|| {
            longest(&|d| {
                !d.starts_with('*') && d.strip_suffix('*').is_some_and(|p| host.starts_with(p))
            })
        })
        .or_else(|| domains.iter().find(|d| *d == "*").cloned())
}

#[test]
fn routes_crowded_under_one_path_are_found_by_header() {
    let mut routes: Vec<_> = (0..1_000)
        .map(|i| {
            let mut matches = matching(PathSpecifier::Prefix(Name::from("/")));
            matches.headers = vec![
                exact_header("env", "prod"),
                exact_header("user", &format!("u{i}")),
            ];
            route(matches)
        })
        .collect();
    routes.push(route(matching(PathSpecifier::Prefix(Name::from("/")))));
    let config = configuration(vec![virtual_host("all", &["*"], routes)]);
    let compiled = CompiledRoutes::standalone(&config).unwrap();
    let request = PlainRequest::get("h", "/x")
        .with_header("env", "prod")
        .with_header("user", "u777");
    let runtime = Runtime::default();
    assert_eq!(
        compiled.find(&request, 0, &runtime).unwrap().route.position,
        777
    );
    let request = PlainRequest::get("h", "/x").with_header("user", "u777");
    assert_eq!(
        compiled.find(&request, 0, &runtime).unwrap().route.position,
        1_000
    );
}

#[test]
fn unchanged_virtual_hosts_stay_compiled() {
    use crate::SnapshotBuilder;

    let one = virtual_host(
        "one",
        &["one"],
        vec![route(matching(PathSpecifier::Prefix("/".into())))],
    );
    let two = virtual_host("two", &["two"], vec![]);
    let mut builder = SnapshotBuilder::default();
    builder
        .set_route_configuration(configuration(vec![one.clone(), two]))
        .unwrap();
    let before = builder.build();
    let mut builder = SnapshotBuilder::from(&before);
    let added = virtual_host("new", &["new"], vec![]);
    assert!(
        builder
            .set_route_configuration(configuration(vec![added, Arc::new((*one).clone())]))
            .unwrap()
    );
    let after = builder.build();
    let old = before.routes_by_name("test").unwrap();
    let new = after.routes_by_name("test").unwrap();
    assert!(Arc::ptr_eq(
        &old.virtual_hosts()[0],
        &new.virtual_hosts()[1]
    ));
    assert_eq!(old.rds_id(), new.rds_id());
}
