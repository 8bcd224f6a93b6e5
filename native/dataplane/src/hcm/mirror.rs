//! Mirrors: copies of a request to other clusters, whose answers nobody looks at (`request_mirror_policies`).
//!
//! A copy is a call of ours ([`async_client`]) without an owner. It gets the head as the upstream does, and the body as it comes;
//! it never holds the request up. A request that its client gives up takes its copies with it, as in Envoy.

use std::time::Duration;

use tidegate_codec::h1::{BodyTracker, KnownHeader};
use tidegate_model::route::{MirrorCluster, MirrorPolicy};
use tidegate_snapshot::routes::port_start;

use super::ServerConnection;
use super::async_client::{self, CallRequest};
use super::headers::HeaderList;
use super::http1::feed_payload;
use super::stream::{Attached, Stream};
use crate::conn::Key;
use crate::worker::Worker;

/// The copies of one request.
pub(crate) struct Mirrors {
    calls: Vec<Key>,
    /// Finds the payload in a body that comes in HTTP/1's chunks.
    unframe: Option<BodyTracker>,
    ended: bool,
}

impl ServerConnection {
    /// Sends the copies that the route asks for. `body`: what came with the head and has not been counted yet.
    pub(super) fn start_mirrors(
        &self,
        stream: &mut Stream,
        worker: &mut Worker,
        body: &Attached<'_>,
        timeout: Option<Duration>,
    ) {
        let Some(route) = stream.route.clone() else {
            return;
        };
        let Some(policies) = route.forward().map(|forward| &forward.mirrors) else {
            return;
        };
        let request = &stream.request;
        let framed = request.chunked && !request.is_payload();
        let mut mirrors = Mirrors {
            calls: Vec::with_capacity(policies.len()),
            unframe: framed.then_some(request.unframe),
            ended: request.complete || body.last,
        };
        let mut bytes = Vec::new();
        pending(stream, &mut bytes);
        bytes.extend_from_slice(body.bytes);
        let mut several = Vec::new();
        let payload = mirrors.payload(&bytes, &mut several);
        let runtime = worker.core.snapshot.runtime().clone();
        for policy in policies.iter() {
            let wanted = |fraction| runtime.hits(fraction, stream.random);
            if !policy.runtime_fraction.as_ref().is_none_or(wanted) {
                continue;
            }
            let Some(cluster) = cluster_of(stream, policy) else {
                continue;
            };
            if worker.core.snapshot.cluster_by_name(&cluster).is_none() {
                continue;
            }
            let method = stream.request.method_bytes().to_vec();
            let path = stream.request.path_bytes().to_vec();
            let authority = authority_of(stream, policy);
            let mut call = CallRequest::new(&cluster, &method, &authority, &path);
            call.headers = copy_of(&stream.request.headers);
            call.body = payload;
            call.more = !mirrors.ended;
            call.timeout = timeout;
            mirrors.calls.push(async_client::start(worker, call, None));
        }
        if !mirrors.calls.is_empty() {
            stream.mirrors = Some(Box::new(mirrors));
        }
    }

    /// A piece of the body, for the copies too.
    pub(super) fn mirror_body(&self, stream: &mut Stream, worker: &mut Worker, body: &[u8]) {
        let end = stream.request.complete;
        let Some(mirrors) = &mut stream.mirrors else {
            return;
        };
        if mirrors.ended {
            return;
        }
        mirrors.ended = end;
        let mut several = Vec::new();
        let payload = mirrors.payload(body, &mut several);
        for call in &mirrors.calls {
            async_client::push(worker, *call, payload, end);
        }
    }

    /// The request is over.
    pub(super) fn end_mirrors(&self, stream: &mut Stream, worker: &mut Worker) {
        let Some(mirrors) = stream.mirrors.take() else {
            return;
        };
        for call in mirrors.calls.iter().filter(|_| !mirrors.ended) {
            if stream.request.complete {
                async_client::push(worker, *call, &[], true);
            } else {
                async_client::cancel(worker, *call);
            }
        }
    }
}

impl Mirrors {
    fn payload<'b>(&mut self, bytes: &'b [u8], several: &'b mut Vec<u8>) -> &'b [u8] {
        match &mut self.unframe {
            None => bytes,
            // It has been checked on its way in.
            Some(unframe) => feed_payload(unframe, bytes, several, None)
                .map(|(payload, _)| payload)
                .unwrap_or_default(),
        }
    }
}

/// What has been received of the body, and waits.
fn pending(stream: &Stream, out: &mut Vec<u8>) {
    let pending = &stream.request.pending;
    let count = pending.len().div_ceil(tidegate_buf::SEGMENT_SIZE) + 2;
    let mut slices = vec![std::io::IoSlice::new(&[]); count];
    let filled = pending.slices(&mut slices);
    for slice in slices.iter().take(filled) {
        out.extend_from_slice(slice);
    }
}

fn cluster_of(stream: &Stream, policy: &MirrorPolicy) -> Option<String> {
    let name = match &policy.cluster {
        MirrorCluster::Name(name) => return Some(name.to_string()),
        MirrorCluster::Header(header) => header,
    };
    let value = stream.request.headers.get(name.as_bytes())?;
    String::from_utf8(value.to_vec()).ok()
}

/// The copy's `host`: it tells that it is one.
fn authority_of(stream: &Stream, policy: &MirrorPolicy) -> Vec<u8> {
    if let Some(host) = &policy.host_rewrite_literal {
        return host.as_bytes().to_vec();
    }
    let mut authority = stream.request.authority_bytes().to_vec();
    if !policy.disable_shadow_host_suffix_append {
        let at = port_start(&authority).unwrap_or(authority.len());
        authority.splice(at..at, *b"-shadow");
    }
    authority
}

fn copy_of(headers: &HeaderList) -> HeaderList {
    let mut copy = HeaderList::default();
    for field in headers.fields() {
        if field.known == KnownHeader::Other {
            copy.add(field.name, field.value);
        } else {
            copy.add_known(field.known, field.value);
        }
    }
    copy
}
