use tidegate_model::Fraction;
use tidegate_model::matcher::{StringMatcher, StringPattern};

use super::*;
use crate::request::PlainRequest;

fn policy(change: impl FnOnce(&mut CorsPolicy)) -> CompiledCors {
    let mut config = CorsPolicy::default();
    change(&mut config);
    CompiledCors::compile(&Arc::new(config)).unwrap()
}

fn origins(texts: &[&str]) -> Vec<StringMatcher> {
    texts
        .iter()
        .map(|text| StringMatcher {
            pattern: StringPattern::Exact(Name::from(*text)),
            ignore_case: false,
        })
        .collect()
}

fn preflight(origin: &str) -> PlainRequest {
    let mut request = PlainRequest::get("h", "/")
        .with_header("origin", origin)
        .with_header("access-control-request-method", "GET")
        .with_header("access-control-request-private-network", "true");
    request.method = "OPTIONS".to_owned();
    request
}

fn answer(levels: CorsLevels<'_>, request: &PlainRequest) -> String {
    let mut lines = String::new();
    let mut add = |name: &'static str, value: &[u8]| {
        lines.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value)));
    };
    levels.preflight_headers(request, &mut add);
    let origin = levels.origin(request).unwrap();
    // The response side sets again what is there already; only what it adds is of interest.
    levels.response_headers(origin, |name, value| {
        if name == "access-control-expose-headers" {
            add(name, value);
        }
    });
    lines
}

/// All answers here were recorded from Envoy 1.40 under the same policies.
#[test]
fn fields_come_from_the_most_specific_level_that_sets_them() {
    let weighted = policy(|p| {
        p.allow_headers = Some("wc".into());
        p.expose_headers = Some("wce".into());
    });
    let route = policy(|p| {
        p.allow_methods = Some("RT".into());
        p.allow_credentials = Some(false);
    });
    let host = policy(|p| p.max_age = Some("5".into()));
    let config = policy(|p| {
        p.allow_origin = origins(&["http://rc.com"]);
        p.expose_headers = Some("rce".into());
        p.allow_headers = Some("rch".into());
        p.allow_credentials = Some(true);
    });
    let request = preflight("http://rc.com");
    let all = CorsLevels::new([Some(&weighted), Some(&route), Some(&host), Some(&config)]).unwrap();
    assert_eq!(
        answer(all, &request),
        "access-control-allow-origin: http://rc.com\naccess-control-allow-methods: RT\n\
         access-control-allow-headers: wc\naccess-control-max-age: 5\naccess-control-expose-headers: wce\n"
    );
    let some = CorsLevels::new([None, None, Some(&host), Some(&config)]).unwrap();
    assert_eq!(
        answer(some, &request),
        "access-control-allow-origin: http://rc.com\naccess-control-allow-credentials: true\n\
         access-control-allow-headers: rch\naccess-control-max-age: 5\naccess-control-expose-headers: rce\n"
    );
    assert!(CorsLevels::new([None; 4]).is_none());
}

#[test]
fn decisions() {
    let runtime = Runtime::default();
    let normal = policy(|p| {
        p.allow_origin = origins(&["http://a.com"]);
        p.allow_private_network_access = Some(true);
    });
    let levels = |policy| CorsLevels::new([None, Some(policy), None, None]).unwrap();
    let decide = |policy, request: &PlainRequest| levels(policy).decide(request, 0, &runtime);
    let get = PlainRequest::get("h", "/").with_header("origin", "http://a.com");
    assert_eq!(decide(&normal, &get), CorsDecision::Annotate);
    assert_eq!(
        decide(&normal, &preflight("http://a.com")),
        CorsDecision::Preflight
    );
    assert_eq!(
        decide(&normal, &preflight("http://no.com")),
        CorsDecision::Ignore
    );
    assert_eq!(
        decide(&normal, &PlainRequest::get("h", "/")),
        CorsDecision::Ignore
    );
    assert!(
        answer(levels(&normal), &preflight("http://a.com"))
            .ends_with("access-control-allow-private-network: true\n")
    );

    let any = policy(|p| p.allow_origin = origins(&["*"]));
    assert_eq!(
        decide(&any, &preflight("http://no.com")),
        CorsDecision::Preflight
    );

    let strict = policy(|p| {
        p.allow_origin = origins(&["http://a.com"]);
        p.forward_not_matching_preflights = Some(false);
        p.allow_credentials = Some(true);
        p.expose_headers = Some("x".into());
    });
    let refused = preflight("http://no.com");
    assert_eq!(decide(&strict, &refused), CorsDecision::Preflight);
    assert_eq!(
        answer(levels(&strict), &refused),
        "access-control-allow-credentials: true\n"
    );

    let off = policy(|p| {
        p.allow_origin = origins(&["http://a.com"]);
        p.filter_enabled = Some(RuntimeFraction {
            default: Fraction::NEVER,
            runtime_key: None,
        });
    });
    assert_eq!(decide(&off, &get), CorsDecision::Ignore);
    assert_eq!(levels(&off).verdict_to_count(&get, 0, &runtime), None);
    assert_eq!(
        levels(&normal).verdict_to_count(&get, 0, &runtime),
        Some(true)
    );
}
