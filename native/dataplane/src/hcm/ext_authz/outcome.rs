//! The answer: what it says, and what that changes of the request and of its response.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tidegate_model::Name;
use tidegate_services::auth::{self, Append, HeaderValueOption};
use tidegate_snapshot::ext_authz::CompiledHttpAuthz;
use tidegate_snapshot::{HeaderEdit, HeaderName};

use super::super::async_client::Answer;
use super::super::headers::HeaderList;
use super::super::stream::Request;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ok,
    Denied,
    Error,
}

/// A change of one header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResponseEdit {
    how: Append,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// See the module.
pub(super) struct Outcome {
    pub(super) verdict: Kind,
    /// 0: the filter's own.
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    request: Vec<ResponseEdit>,
    remove: Vec<Vec<u8>>,
    pub(super) response: Vec<ResponseEdit>,
    /// Headers of the answer that the client gets.
    pub(super) local: Vec<(Vec<u8>, Vec<u8>)>,
    query_set: Vec<(String, String)>,
    query_remove: Vec<String>,
    pub(super) metadata: Map<String, Value>,
    pub(super) has_unknown_append: bool,
}

impl Outcome {
    fn new(verdict: Kind, status: u16) -> Self {
        Self {
            verdict,
            status,
            body: Vec::new(),
            request: Vec::new(),
            remove: Vec::new(),
            response: Vec::new(),
            local: Vec::new(),
            query_set: Vec::new(),
            query_remove: Vec::new(),
            metadata: Map::new(),
            has_unknown_append: false,
        }
    }

    /// 200 lets pass, 5xx and no answer are errors, all else denies.
    pub(super) fn of_http(answer: Answer, http: &CompiledHttpAuthz) -> Self {
        if answer.failure.is_some() || !(100..500).contains(&answer.status) {
            return Self::new(Kind::Error, 0);
        }
        let denied = answer.status != 200;
        let mut outcome = Self::new(if denied { Kind::Denied } else { Kind::Ok }, answer.status);
        let edit = |how, name: &[u8], value: &[u8]| ResponseEdit {
            how,
            name: name.to_vec(),
            value: value.to_vec(),
        };
        let mut appended = Vec::new();
        for (name, value) in answer.headers.pairs() {
            let name = &*name.to_ascii_lowercase();
            if name == b"x-envoy-auth-headers-to-remove" {
                let names = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                outcome.remove.extend(
                    names
                        .filter(|name| !name.is_empty())
                        .map(<[u8]>::to_ascii_lowercase),
                );
                continue;
            }
            if http.is_metadata(name) {
                let key = String::from_utf8_lossy(name).into_owned();
                let text = String::from_utf8_lossy(value).into_owned();
                outcome.metadata.insert(key, Value::String(text));
            }
            if denied {
                if http.tells_client(name) {
                    outcome.local.push((name.to_vec(), value.to_vec()));
                }
                continue;
            }
            if http.sets_upstream(name) {
                outcome.request.push(edit(Append::Overwrite, name, value));
            }
            if http.appends_upstream(name) {
                appended.push(edit(Append::Add, name, value));
            }
            if http.tells_client_on_success(name) {
                outcome.response.push(edit(Append::Add, name, value));
            }
        }
        outcome.request.append(&mut appended);
        if denied {
            outcome.body = answer.body;
        }
        outcome
    }

    pub(super) fn of_grpc(answer: &Answer) -> Self {
        let Some(decision) = answer.grpc().ok().and_then(auth::decode) else {
            return Self::new(Kind::Error, 0);
        };
        let mut outcome = match decision.verdict {
            auth::Verdict::Ok(ok) => {
                let mut outcome = Self::new(Kind::Ok, 200);
                // Of a request's headers Envoy looks at the older field only.
                outcome.request = ok.headers.iter().map(request_edit).collect();
                outcome.response = outcome.edits(&ok.response_headers_to_add);
                outcome.remove = ok
                    .headers_to_remove
                    .iter()
                    .map(|name| name.as_bytes().to_ascii_lowercase())
                    .collect();
                outcome.query_set = ok
                    .query_parameters_to_set
                    .into_iter()
                    .map(|parameter| (parameter.key, parameter.value))
                    .collect();
                outcome.query_remove = ok.query_parameters_to_remove;
                outcome
            }
            auth::Verdict::Denied(answer) => {
                Self::new(Kind::Denied, answer.status().unwrap_or(403)).with_answer(answer)
            }
            auth::Verdict::Error(answer) => {
                Self::new(Kind::Error, answer.status().unwrap_or(0)).with_answer(answer)
            }
        };
        outcome.metadata = decision.dynamic_metadata;
        outcome
    }

    fn with_answer(mut self, answer: auth::HttpAnswer) -> Self {
        for header in &answer.headers {
            let (name, value) = header.pair();
            let name = name.as_bytes().to_ascii_lowercase();
            if header.append() == Append::Unknown {
                self.has_unknown_append = true;
            }
            self.local.push((name, value.to_vec()));
        }
        self.body = answer.body;
        self
    }

    fn edits(&mut self, headers: &[HeaderValueOption]) -> Vec<ResponseEdit> {
        let mut edits = Vec::with_capacity(headers.len());
        for header in headers {
            let how = header.append();
            if how == Append::Unknown {
                self.has_unknown_append = true;
                continue;
            }
            let (name, value) = header.pair();
            edits.push(ResponseEdit {
                how,
                name: name.as_bytes().to_ascii_lowercase(),
                value: value.to_vec(),
            });
        }
        edits
    }

    /// Whether routes may look at something that it changes.
    pub(super) fn changes_request(&self) -> bool {
        !(self.request.is_empty()
            && self.remove.is_empty()
            && self.query_set.is_empty()
            && self.query_remove.is_empty())
    }

    /// Whether all that it says may stand in a head.
    pub(super) fn is_valid(&self) -> bool {
        let edits = self.request.iter().chain(&self.response);
        let local = self.local.iter().map(|(name, value)| (name, value));
        edits
            .map(|edit| (&edit.name, &edit.value))
            .chain(local)
            .all(|(name, value)| is_name(name) && is_value(value))
            && self
                .query_set
                .iter()
                .all(|(key, value)| is_encoded(key) && is_encoded(value))
    }

    /// Changes the request.
    pub(super) fn apply(&self, request: &mut Request) {
        for edit in &self.request {
            let Ok(text) = std::str::from_utf8(&edit.name) else {
                continue;
            };
            let name = HeaderName::new(text);
            let present = request.contains(&name);
            match edit.how {
                Append::Add => request.append(&name, &edit.value),
                Append::AddIfAbsent if !present => request.append(&name, &edit.value),
                Append::Overwrite => request.set(&name, &edit.value),
                Append::OverwriteIfExists if present => request.set(&name, &edit.value),
                Append::Join if present && !name.is_pseudo() => {
                    request.headers.append(&edit.name, b",", &edit.value);
                }
                _ => {}
            }
        }
        for name in &self.remove {
            if let Ok(name) = std::str::from_utf8(name) {
                request.remove(&HeaderName::from(&Name::from(name)));
            }
        }
        if !self.query_set.is_empty() || !self.query_remove.is_empty() {
            let path = self.path(request.path_bytes());
            request.path = request.headers.keep(&path);
        }
    }

    /// The path with the query parameters changed; they are in the order of their names then, as in Envoy.
    fn path(&self, path: &[u8]) -> Vec<u8> {
        let mut parts = path.splitn(2, |byte| *byte == b'?');
        let bare = parts.next().unwrap_or_default();
        let mut parameters: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        let query = parts.next().unwrap_or_default();
        for pair in query
            .split(|byte| *byte == b'&')
            .filter(|pair| !pair.is_empty())
        {
            let mut sides = pair.splitn(2, |byte| *byte == b'=');
            let key = sides.next().unwrap_or_default().to_vec();
            let value = sides.next().unwrap_or_default().to_vec();
            parameters.entry(key).or_default().push(value);
        }
        for (key, value) in &self.query_set {
            let value = vec![value.as_bytes().to_vec()];
            parameters.insert(key.as_bytes().to_vec(), value);
        }
        for key in &self.query_remove {
            parameters.remove(key.as_bytes());
        }
        let mut out = bare.to_vec();
        let mut separator = b'?';
        for (key, values) in &parameters {
            for value in values {
                out.push(separator);
                separator = b'&';
                out.extend_from_slice(key);
                out.push(b'=');
                out.extend_from_slice(value);
            }
        }
        out
    }
}

impl ResponseEdit {
    pub(super) fn apply(&self, headers: &mut HeaderList) {
        let present = headers.get(&self.name).is_some();
        match self.how {
            Append::Add | Append::Join => headers.add(&self.name, &self.value),
            Append::AddIfAbsent if !present => headers.add(&self.name, &self.value),
            Append::Overwrite => headers.set(&self.name, &self.value),
            Append::OverwriteIfExists if present => headers.set(&self.name, &self.value),
            _ => {}
        }
    }
}

fn request_edit(header: &HeaderValueOption) -> ResponseEdit {
    let (name, value) = header.pair();
    ResponseEdit {
        how: match header.append() {
            Append::Join => Append::Join,
            _ => Append::Overwrite,
        },
        name: name.as_bytes().to_ascii_lowercase(),
        value: value.to_vec(),
    }
}

fn is_name(name: &[u8]) -> bool {
    let name = name.strip_prefix(b":").unwrap_or(name);
    !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn is_value(value: &[u8]) -> bool {
    value
        .iter()
        .all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
}

fn is_encoded(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.~%+".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parameters_are_sorted() {
        let mut outcome = Outcome::new(Kind::Ok, 200);
        outcome.query_set.push(("b".to_owned(), "2".to_owned()));
        outcome.query_remove.push("c".to_owned());
        assert_eq!(outcome.path(b"/x?d=4&c=3&a=1&a=0"), b"/x?a=1&a=0&b=2&d=4");
        outcome.query_set.clear();
        assert_eq!(outcome.path(b"/x?c=3"), b"/x");
    }
}
