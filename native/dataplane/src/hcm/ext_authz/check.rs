//! The question: what the service is told of a request.

use std::collections::HashMap;
use std::net::SocketAddr;

use tidegate_codec::h1::KnownHeader;
use tidegate_model::ext_authz::{AuthzService, BodySettings, HttpAuthz};
use tidegate_services::auth;
use tidegate_snapshot::ext_authz::CompiledExtAuthz;
use tidegate_snapshot::per_filter::CompiledPolicy;

use super::super::ServerConnection;
use super::super::async_client::CallRequest;
use super::super::headers::HeaderList;
use super::super::stream::{Request, Stream};
use crate::worker::{Core, Worker};

const PARTIAL_BODY: &[u8] = b"x-envoy-auth-partial-body";

impl ServerConnection {
    /// Asks the service. `body`: how much it is shown of the body that waits, if it is shown any.
    pub(super) fn send_check(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        filter: &CompiledExtAuthz,
        name: &str,
        body: Option<BodySettings>,
    ) {
        let limit = body.map_or(0, |settings| settings.max_request_bytes as usize);
        let held = body.map(|_| stream.held_body(limit));
        let partial = held
            .as_ref()
            .map(|held| held.len() < stream.request.pending.len());
        match &filter.config.service {
            AuthzService::Http(service) => {
                let held = held.unwrap_or_default();
                ask_http(stream, worker, filter, service, &held, partial);
            }
            AuthzService::Grpc(service) => {
                let attributes = self.attributes(
                    stream,
                    &worker.core,
                    filter,
                    name,
                    held,
                    partial,
                    body.is_some_and(|settings| settings.pack_as_bytes),
                );
                let message = auth::encode(attributes);
                let authority = service.authority.as_ref().unwrap_or(&service.cluster);
                let mut framed = Vec::new();
                let mut call = CallRequest::grpc(
                    &service.cluster,
                    authority.as_bytes(),
                    auth::CHECK,
                    &message,
                    &mut framed,
                );
                for (name, value) in &service.initial_metadata {
                    call.headers.add(name.as_bytes(), value.as_bytes());
                }
                call.timeout = service.timeout;
                call.internal = !service.skip_envoy_headers;
                call.forwarded_for = !service.skip_envoy_headers;
                call.retry.clone_from(&filter.retry_policy);
                Self::call(stream, worker, call);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a question consists of")]
    fn attributes(
        &self,
        stream: &Stream,
        core: &Core,
        filter: &CompiledExtAuthz,
        name: &str,
        body: Option<Vec<u8>>,
        partial: Option<bool>,
        pack_as_bytes: bool,
    ) -> auth::Attributes {
        let request = &stream.request;
        let info = &self.downstream.info;
        let mut headers = HashMap::new();
        let mut raw = Vec::new();
        let encode_raw = filter.config.encode_raw_headers;
        each_header(request, |name, value| {
            if name == PARTIAL_BODY || !filter.tells(name) {
                return;
            }
            let key = text(name);
            if encode_raw {
                raw.push(auth::HeaderValue {
                    key,
                    raw_value: value.to_vec(),
                    value: Vec::new(),
                });
            } else {
                join(&mut headers, key, &text(value));
            }
        });
        if let Some(partial) = partial {
            let value = if partial { "true" } else { "false" };
            if encode_raw {
                raw.push(auth::HeaderValue {
                    key: text(PARTIAL_BODY),
                    raw_value: value.as_bytes().to_vec(),
                    value: Vec::new(),
                });
            } else {
                headers.insert(text(PARTIAL_BODY), value.to_owned());
            }
        }
        let body = body.unwrap_or_default();
        let (body, raw_body) = if pack_as_bytes {
            (String::new(), body)
        } else {
            (sanitized(&body), Vec::new())
        };
        let http = auth::HttpRequest {
            id: stream.key.number().to_string(),
            method: text(request.method_bytes()),
            headers,
            path: text(request.path_bytes()),
            host: text(request.authority_bytes()),
            scheme: text(request.headers.text(request.scheme)),
            size: request.bytes as i64,
            protocol: request.protocol.as_str().to_owned(),
            body,
            raw_body,
            header_map: encode_raw.then_some(auth::HeaderMap { headers: raw }),
        };
        let began = core.clock.wall() - core.now().since(stream.times.start);
        let namespaces = &filter.config.metadata_context_namespaces;
        let metadata = stream
            .metadata
            .iter()
            .filter(|(name, _)| namespaces.contains(name))
            .collect::<Vec<_>>();
        let metadata = metadata.iter().map(|(name, fields)| (&***name, &**fields));
        auth::Attributes {
            source: Some(auth::Peer {
                service: request
                    .headers
                    .known(KnownHeader::XEnvoyDownstreamServiceCluster)
                    .map(text)
                    .unwrap_or_default(),
                ..peer(info.remote)
            }),
            destination: Some(peer(info.local)),
            request: Some(auth::Request {
                time: Some(auth::timestamp(began)),
                http: Some(http),
            }),
            context_extensions: context_extensions(stream, name),
            metadata_context: Some(auth::Metadata::new(metadata)),
            route_metadata_context: Some(auth::Metadata::default()),
        }
    }
}

/// The levels' together; the more specific one wins.
fn context_extensions(stream: &Stream, name: &str) -> HashMap<String, String> {
    let mut all = HashMap::new();
    let Some(route) = &stream.route else {
        return all;
    };
    for policy in route.per_filter().policies(name) {
        #[allow(
            irrefutable_let_patterns,
            reason = "filters differ in what routes may say"
        )]
        if let CompiledPolicy::ExtAuthz(config) = policy {
            for (key, value) in &config.context_extensions {
                let entry = all.entry(key.to_string());
                entry.or_insert_with(|| value.to_string());
            }
        }
    }
    all
}

fn peer(address: SocketAddr) -> auth::Peer {
    auth::Peer {
        address: Some(auth::Address {
            socket_address: Some(auth::SocketAddress {
                address: address.ip().to_string(),
                port_value: Some(u32::from(address.port())),
            }),
        }),
        ..auth::Peer::default()
    }
}

fn ask_http(
    stream: &mut Stream,
    worker: &mut Worker,
    filter: &CompiledExtAuthz,
    service: &HttpAuthz,
    body: &[u8],
    partial: Option<bool>,
) {
    let request = &stream.request;
    let mut headers = HeaderList::default();
    let mut told: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let (mut method, mut authority, mut path) = (Vec::new(), Vec::new(), Vec::new());
    each_header(request, |name, value| {
        if name == PARTIAL_BODY || name == b"content-length" || !filter.tells(name) {
            return;
        }
        match name {
            b":method" => method = value.to_vec(),
            b":authority" => authority = value.to_vec(),
            b":path" => path = [service.path_prefix.as_bytes(), value].concat(),
            _ if name.first() == Some(&b':') => {}
            _ => match told.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => {
                    known.push(b',');
                    known.extend_from_slice(value);
                }
                None => told.push((name.to_vec(), value.to_vec())),
            },
        }
    });
    for (name, value) in &told {
        headers.add(name, value);
    }
    if let Some(partial) = partial {
        headers.set(PARTIAL_BODY, if partial { b"true" } else { b"false" });
    }
    for (name, value) in &service.headers_to_add {
        if &**name == ":authority" || &**name == "host" {
            authority = value.as_bytes().to_vec();
        } else {
            headers.set(name.as_bytes(), value.as_bytes());
        }
    }
    if body.is_empty() {
        headers.set(b"content-length", b"0");
    }
    let mut call = CallRequest::new(&service.cluster, &method, &authority, &path);
    call.headers = headers;
    call.body = body;
    call.forwarded_for = false;
    call.timeout = (!service.timeout.is_zero()).then_some(service.timeout);
    call.retry.clone_from(&filter.retry_policy);
    ServerConnection::call(stream, worker, call);
}

/// All headers of a request, names in lower case, with the pseudo headers of HTTP/2 in front.
fn each_header(request: &Request, mut each: impl FnMut(&[u8], &[u8])) {
    let pseudo: [(&[u8], &[u8]); 4] = [
        (b":authority", request.authority_bytes()),
        (b":path", request.path_bytes()),
        (b":method", request.method_bytes()),
        (b":scheme", request.headers.text(request.scheme)),
    ];
    for (name, value) in pseudo {
        if !value.is_empty() {
            each(name, value);
        }
    }
    for (name, value) in request.headers.pairs() {
        let lower = name.to_ascii_lowercase();
        if lower != b"host" {
            each(&lower, value);
        }
    }
}

fn join(headers: &mut HashMap<String, String>, key: String, value: &str) {
    match headers.get_mut(&key) {
        Some(known) => {
            known.push(',');
            known.push_str(value);
        }
        None => {
            headers.insert(key, value.to_owned());
        }
    }
}

/// Bytes that are no UTF-8 become `!`, as in Envoy.
fn sanitized(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| '!'));
    }
    out
}

fn text(bytes: &[u8]) -> String {
    sanitized(bytes)
}
