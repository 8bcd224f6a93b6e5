//! Prints what look-ups cost, in nanoseconds: hosts, routes, listeners and filter chains with 1 to 10,000 entries.
//!
//! `cargo run --release -p tidegate-snapshot --example lookups`

#![expect(clippy::expect_used, reason = "a measuring tool")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use tidegate_model::matcher::{HeaderMatchSpecifier, HeaderMatcher, StringMatcher, StringPattern};
use tidegate_model::route::{
    DirectResponse, PathSpecifier, PerFilterConfig, RequireTls, Route, RouteAction,
    RouteConfiguration, RouteMatch, VirtualHost,
};
use tidegate_model::{HeaderMutations, Name};
use tidegate_snapshot::{CompiledRoutes, PlainRequest, Runtime};

fn route(path: PathSpecifier, headers: Vec<HeaderMatcher>) -> Arc<Route> {
    Arc::new(Route {
        name: Name::from(""),
        matches: RouteMatch {
            path,
            case_sensitive: true,
            headers,
            query_parameters: Vec::new(),
            runtime_fraction: None,
            grpc: false,
        },
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

fn host(name: &str, domain: String, routes: Vec<Arc<Route>>) -> Arc<VirtualHost> {
    Arc::new(VirtualHost {
        name: Name::from(name),
        domains: vec![Name::from(domain)],
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

fn compiled(virtual_hosts: Vec<Arc<VirtualHost>>) -> (CompiledRoutes, f64) {
    let config = Arc::new(RouteConfiguration {
        name: Name::from("bench"),
        virtual_hosts,
        headers: HeaderMutations::default(),
        validate_clusters: false,
        most_specific_header_mutations_wins: false,
        ignore_port_in_host_matching: false,
        ignore_path_parameters_in_path_matching: false,
        max_direct_response_body_size_bytes: 4096,
        internal_only_headers: Vec::new(),
        per_filter: PerFilterConfig::default(),
    });
    let start = Instant::now();
    let routes = CompiledRoutes::standalone(&config).expect("valid");
    (routes, start.elapsed().as_secs_f64() * 1e3)
}

fn exact(name: &str, value: String) -> HeaderMatcher {
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

/// Requests in an order that visits all entries without a pattern.
fn measure(
    what: &str,
    count: usize,
    compile_ms: f64,
    routes: &CompiledRoutes,
    request: impl Fn(usize) -> PlainRequest,
) {
    let requests: Vec<PlainRequest> = (0..512)
        .map(|i| request((i * 7_919 + 13) % count))
        .collect();
    let runtime = Runtime::default();
    for request in &requests {
        assert!(routes.find(request, 0, &runtime).is_some(), "{request:?}");
    }
    let rounds = 400;
    let start = Instant::now();
    for _ in 0..rounds {
        for request in &requests {
            black_box(routes.find(black_box(request), 0, &runtime));
        }
    }
    let nanos = start.elapsed().as_nanos() as f64 / (rounds * requests.len()) as f64;
    println!("{what:<28} {count:>6}   {nanos:>7.1} ns   compiled in {compile_ms:>7.2} ms");
}

fn main() {
    for count in [1, 1_000, 10_000] {
        let all = vec![route(PathSpecifier::Prefix("/".into()), vec![])];
        let name = |i: usize| format!("svc-{i}.ns-{}.svc.cluster.local", i % 37);
        let (routes, ms) = compiled(
            (0..count)
                .map(|i| host("h", name(i), all.clone()))
                .collect(),
        );
        measure("hosts, exact", count, ms, &routes, |i| {
            PlainRequest::get(&name(i), "/")
        });

        let (routes, ms) = compiled(
            (0..count)
                .map(|i| host("h", format!("*.{}", name(i)), all.clone()))
                .collect(),
        );
        measure("hosts, wildcard", count, ms, &routes, |i| {
            PlainRequest::get(&format!("www.{}", name(i)), "/")
        });

        let prefix = |i: usize| format!("/api/v{}/resource-{i}/", i % 7);
        let by = |path: &dyn Fn(usize) -> PathSpecifier| {
            compiled(vec![host(
                "h",
                "*".to_owned(),
                (0..count).map(|i| route(path(i), vec![])).collect(),
            )])
        };
        let (routes, ms) = by(&|i| PathSpecifier::Prefix(prefix(i).into()));
        measure("routes, prefix", count, ms, &routes, |i| {
            PlainRequest::get("h", &format!("{}items?x=1", prefix(i)))
        });

        let (routes, ms) = by(&|i| PathSpecifier::Path(prefix(i).into()));
        measure("routes, path", count, ms, &routes, |i| {
            PlainRequest::get("h", &prefix(i))
        });

        let (routes, ms) =
            by(&|i| PathSpecifier::SafeRegex(format!("{}[a-z]+(/.*)?", prefix(i)).into()));
        measure("routes, safe_regex", count, ms, &routes, |i| {
            PlainRequest::get("h", &format!("{}items/1", prefix(i)))
        });

        let (routes, ms) = compiled(vec![host(
            "h",
            "*".to_owned(),
            (0..count)
                .map(|i| {
                    route(
                        PathSpecifier::Prefix("/".into()),
                        vec![exact("x-user", format!("user-{i}"))],
                    )
                })
                .collect(),
        )]);
        measure("routes, header", count, ms, &routes, |i| {
            PlainRequest::get("h", "/items").with_header("x-user", &format!("user-{i}"))
        });
    }
}
