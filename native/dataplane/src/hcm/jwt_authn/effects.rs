//! What good tokens change of a request, once its requirement holds.

use serde_json::{Map, Value, json};
use tidegate_jwt::{Status, Token};
use tidegate_model::Name;
use tidegate_model::jwt::JwtProvider;

use super::super::stream::Stream;
use super::tokens::{self, Found, Place};

/// The namespace of the metadata.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// See the module. In order.
#[derive(Default)]
pub(super) struct Effects {
    steps: Vec<Step>,
    metadata: Map<String, Value>,
    clears_route: bool,
}

enum Step {
    Remove(Name),
    Add(Name, String),
    RemoveParam(String),
}

impl Effects {
    /// Headers that clients may not set.
    pub(super) fn sanitize(&mut self, headers: &[Name]) {
        self.steps
            .extend(headers.iter().map(|name| Step::Remove(Name::clone(name))));
    }

    /// A token is good.
    pub(super) fn accept(&mut self, provider: &JwtProvider, token: Token, found: &Found<'_>) {
        if let Some(header) = &provider.forward_payload_header {
            let mut payload = token.payload_base64.clone();
            if provider.pad_forward_payload_header {
                while !payload.len().is_multiple_of(4) {
                    payload.push('=');
                }
            }
            self.steps.push(Step::Add(Name::clone(header), payload));
            self.clears_route |= provider.clear_route_cache;
        }
        for (header, claim) in &provider.claim_to_headers {
            let mut value = None;
            let mut fields = Some(&token.payload);
            for key in claim.split('.') {
                value = fields.and_then(|fields| fields.get(key));
                fields = value.and_then(Value::as_object);
            }
            if let Some(text) = value.and_then(super::claim_text) {
                self.steps.push(Step::Add(Name::clone(header), text));
                self.clears_route |= provider.clear_route_cache;
            }
        }
        if !provider.forward {
            match found.place {
                Place::Header(name) => self.steps.push(Step::Remove(Name::from(name))),
                Place::Param(name) => self.steps.push(Step::RemoveParam(name.to_owned())),
                Place::Cookie => {}
            }
        }
        if let Some(key) = &provider.header_in_metadata {
            self.metadata
                .insert(key.to_string(), Value::Object(token.header));
            self.clears_route |= provider.clear_route_cache;
        }
        if let Some(key) = &provider.payload_in_metadata {
            let mut payload = token.payload;
            for claim in &provider.space_delimited_claims {
                if let Some(Value::String(text)) = payload.get(&**claim) {
                    let parts: Vec<Value> = text.split(' ').map(Value::from).collect();
                    payload.insert(claim.to_string(), Value::Array(parts));
                }
            }
            self.metadata
                .insert(key.to_string(), Value::Object(payload));
            self.clears_route |= provider.clear_route_cache;
        }
    }

    pub(super) fn failed(&mut self, key: &Name, status: Status) {
        let status = json!({"code": status.code().to_string(), "message": status.text()});
        self.metadata.insert(key.to_string(), status);
    }

    /// Changes the request. `true`: routes are to be looked for once more.
    pub(super) fn apply(self, stream: &mut Stream) -> bool {
        for step in self.steps {
            let request = &mut stream.request;
            match step {
                Step::Remove(name) => {
                    request.headers.remove(name.as_bytes());
                }
                Step::Add(name, value) => request.headers.add(name.as_bytes(), value.as_bytes()),
                Step::RemoveParam(param) => {
                    let path = String::from_utf8_lossy(request.path_bytes()).into_owned();
                    let path = tokens::without_param(&path, &param);
                    request.path = request.headers.keep(path.as_bytes());
                }
            }
        }
        if !self.metadata.is_empty() {
            stream.metadata.merge(NAMESPACE, self.metadata);
        }
        self.clears_route
    }
}
