//! What Envoy 1.40 answered to these requests under these route configurations, recorded; our tables must agree.
//!
//! Direct responses carry the name of the route that was to match as their body, so that a wrong choice shows.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: what is unexpected fails it"
)]

use std::sync::Arc;

use tidegate_snapshot::routes::CompiledAction;
use tidegate_snapshot::{CompiledRoutes, PlainRequest, Runtime};

#[derive(Debug, PartialEq)]
struct Answer {
    status: u64,
    body: String,
    location: Option<String>,
}

fn answer(routes: &CompiledRoutes, request: &PlainRequest) -> Answer {
    let mut answer = Answer {
        status: 404,
        body: String::new(),
        location: None,
    };
    let Some(found) = routes.find(request, 0, &Runtime::default()) else {
        return answer;
    };
    match &found.route.action {
        CompiledAction::DirectResponse(response) => {
            answer.status = response.status.into();
            if let Some(body) = &response.body {
                answer.body = String::from_utf8_lossy(&body.bytes).into_owned();
            }
        }
        CompiledAction::Redirect(redirect) => {
            answer.status = redirect.status().into();
            let mut location = Vec::new();
            redirect.location(request, &mut location);
            answer.location = Some(String::from_utf8(location).unwrap());
        }
        other => panic!("unexpected action {other:?}"),
    }
    answer
}

#[test]
fn recorded_answers() {
    let tables: serde_json::Value =
        serde_json::from_str(include_str!("envoy_routes.json")).unwrap();
    let decoder = tidegate_xds::Decoder::new();
    let mut failures = Vec::new();
    let mut count = 0;
    for table in tables.as_array().unwrap() {
        let bytes = decoder
            .from_json("envoy.config.route.v3.RouteConfiguration", &table["config"])
            .unwrap();
        let config = Arc::new(decoder.route_configuration(&bytes).unwrap());
        let routes = CompiledRoutes::standalone(&config).unwrap();
        for case in table["cases"].as_array().unwrap() {
            let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
            let mut request = PlainRequest::get(&text("host"), &text("path"));
            for header in case["headers"].as_array().unwrap() {
                let value = header[1].as_str().unwrap().trim_matches(' ');
                let name = header[0].as_str().unwrap();
                if name == "x-forwarded-proto" {
                    value.clone_into(&mut request.scheme);
                }
                request = request.with_header(name, value);
            }
            // What the connection manager adds before routes are matched.
            let scheme = request.scheme.clone();
            request = request
                .with_header("x-forwarded-proto", &scheme)
                .with_header("x-request-id", "any");
            let expected = Answer {
                status: case["status"].as_u64().unwrap(),
                body: text("body"),
                location: case["location"].as_str().map(str::to_owned),
            };
            let ours = answer(&routes, &request);
            if ours != expected {
                failures.push(format!("{case}\n   ours: {ours:?}"));
            }
            count += 1;
        }
    }
    assert!(count > 600, "only {count} cases");
    assert!(
        failures.is_empty(),
        "{} of {count}:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
