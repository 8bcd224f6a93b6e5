//! The request's head on its way in: what the connection manager checks, adds and takes away before routing
//! (Envoy's `ConnectionManagerUtility::mutateRequestHeaders` and the sanity checks around it).
//!
//! Knows the connection and the configuration, but neither routes nor upstreams.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use tidegate_codec::h1::{
    BodyTracker, HeadScratch, KnownHeader, Method, RequestFraming, RequestHead, TargetForm,
    TrailerPolicy, is_hop_by_hop, tokens,
};
use tidegate_codec::h2::Scratch;
use tidegate_model::hcm::{ForwardClientCertDetails, HttpConnectionManager};
use tidegate_snapshot::grpc_status::is_grpc_content_type;

use super::path::{self, Normalized};
use super::request_id;
use super::runtime::HcmRuntime;
use super::stream::Request;
use crate::accept::ConnectionInfo;
use crate::worker::Core;

/// A request that is answered before routing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) details: &'static str,
    pub(crate) location: Option<Vec<u8>>,
}

impl Refused {
    const fn new(status: u16, details: &'static str) -> Self {
        Self {
            status,
            details,
            location: None,
        }
    }
}

/// Takes a parsed head over into the stream's request.
pub(crate) fn receive(
    request: &mut Request,
    head: &RequestHead,
    bytes: &[u8],
    scratch: &HeadScratch,
    hcm: &HcmRuntime,
) {
    let head_bytes = bytes.get(..head.len as usize).unwrap_or(bytes);
    request.headers.receive(head_bytes, scratch);
    request.parsed = true;
    request.method = head.method;
    request.method_text = head.method_span;
    request.path = head.target.path_query;
    if request.path.is_empty() && head.target.form == TargetForm::Absolute {
        request.path = request.headers.keep(b"/");
    }
    request.protocol = head.version.into();
    request.head_bytes = u64::from(head.len);
    request.close = !head.keep_alive;
    request.upgrade = head.upgrade;
    request.chunked = head.framing == RequestFraming::Chunked;
    let trailers = if hcm.config.http1.enable_trailers {
        TrailerPolicy::Forward
    } else {
        TrailerPolicy::Drop
    };
    request.body = BodyTracker::request(head.framing, trailers, &hcm.limits);
    if request.chunked {
        request.unframe = request.body;
        request.takes_trailers = hcm.config.http1.enable_trailers;
    }
    // What follows a CONNECT is no request: it never ends by itself.
    request.complete =
        request.body.is_finished() && !head.upgrade && head.method != Method::Connect;
    if head.target.form == TargetForm::Absolute || head.target.form == TargetForm::Authority {
        let authority = head.authority.of(bytes).to_vec();
        request.headers.set_known(KnownHeader::Host, &authority);
    }
    request.grpc = is_grpc(request);
}

/// Takes a head over that came by HTTP/2 and has been decoded into the worker's scratch.
pub(crate) fn receive_http2(request: &mut Request, scratch: &Scratch, end: bool) {
    let head = scratch.request();
    request.headers.receive_fields(scratch, head.authority);
    request.parsed = true;
    request.method = head.method;
    request.method_text = head.method_span;
    request.path = head.path;
    request.scheme = head.scheme;
    request.head_bytes = request.headers.byte_size();
    request.complete = end;
    request.chunked = !end && head.content_length.is_none() && head.method != Method::Connect;
    request.grpc = is_grpc(request);
    if let Some(protocol) = head.protocol {
        // Extended CONNECT, in the words of HTTP/1.
        let protocol = scratch.of(protocol);
        request
            .headers
            .add_known(KnownHeader::Connection, b"upgrade");
        request.headers.add_known(KnownHeader::Upgrade, protocol);
        request.method = Method::Get;
        request.method_text = request.headers.keep(b"GET");
        request.upgrade = true;
        request.chunked = false;
    }
}

pub(super) fn is_grpc(request: &Request) -> bool {
    let content_type = request.headers.known(KnownHeader::ContentType);
    content_type.is_some_and(is_grpc_content_type)
}

/// The checks and changes before routing. Returns the client's address as far as it can be trusted.
pub(crate) fn prepare(
    request: &mut Request,
    hcm: &HcmRuntime,
    info: &ConnectionInfo,
    core: &mut Core,
) -> Result<SocketAddr, Refused> {
    let config = &hcm.config;
    if request.method != Method::Connect {
        check_path(request, config, &mut core.http.value)?;
    }
    if let Some(stripped) =
        path::strip_authority(config, request.authority_bytes(), info.local.port())
    {
        let stripped = stripped.to_vec();
        request.headers.set_known(KnownHeader::Host, &stripped);
    }
    remove_hop_by_hop(request);
    Ok(mutate(request, hcm, info, core))
}

fn check_path(
    request: &mut Request,
    config: &HttpConnectionManager,
    out: &mut Vec<u8>,
) -> Result<(), Refused> {
    match request.path_bytes().first() {
        None => return Err(Refused::new(404, "missing_path_rejected")),
        Some(b'/') => {}
        Some(_) => return Err(Refused::new(404, "absolute_path_rejected")),
    }
    match path::normalize(config, request.path_bytes(), out) {
        Normalized::Unchanged => {}
        Normalized::Changed => request.path = request.headers.keep(out),
        Normalized::Refused => return Err(Refused::new(400, "path_normalization_failed")),
        Normalized::Rejected => {
            // The log has the path as it would have become.
            request.path = request.headers.keep(out);
            return Err(Refused::new(400, "path_normalization_failed"));
        }
        Normalized::Redirect if request.grpc => {
            return Err(Refused::new(400, "path_normalization_failed"));
        }
        Normalized::Redirect => {
            request.path = request.headers.keep(out);
            let location = Some(out.clone());
            return Err(Refused {
                status: 307,
                details: "path_normalization_failed",
                location,
            });
        }
    }
    Ok(())
}

/// Takes away what concerns the client's connection only. `te: trailers` goes on, and what asks for an upgrade.
fn remove_hop_by_hop(request: &mut Request) {
    let upgrade = request.upgrade;
    let mut connection_left = false;
    request.headers.retain(|line, value| match line.known {
        KnownHeader::Connection if upgrade => {
            connection_left |= !value.eq_ignore_ascii_case(b"upgrade");
            true
        }
        KnownHeader::Upgrade if upgrade => true,
        KnownHeader::Te => tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers")),
        KnownHeader::XEnvoyInternal => false,
        // Gone already, unless the upstream is to answer it.
        KnownHeader::Expect => true,
        known => !line.hop_by_hop && !is_hop_by_hop(known),
    });
    if connection_left {
        request
            .headers
            .set_known(KnownHeader::Connection, b"upgrade");
    }
    if request
        .headers
        .known(KnownHeader::Te)
        .is_some_and(|value| value != b"trailers")
    {
        request.headers.set_known(KnownHeader::Te, b"trailers");
    }
}

fn mutate(
    request: &mut Request,
    hcm: &HcmRuntime,
    info: &ConnectionInfo,
    core: &mut Core,
) -> SocketAddr {
    let config = &*hcm.config;
    let headers = &mut request.headers;
    let hops = config.xff_num_trusted_hops as usize;
    let mut client = None;
    let trust_address;
    if config.use_remote_address {
        trust_address = !headers.has(KnownHeader::XForwardedFor);
        if hops > 0 {
            client = forwarded_for(headers.known(KnownHeader::XForwardedFor), hops - 1)
                .map(|(ip, _)| ip);
        }
        if !config.skip_xff_append {
            append_forwarded_for(request, info.remote.ip(), core);
        }
        let headers = &mut request.headers;
        if hops == 0 || !headers.has(KnownHeader::XForwardedProto) {
            headers.set_known(KnownHeader::XForwardedProto, scheme_of(info));
        }
        if config.append_x_forwarded_port
            && (hops == 0 || !headers.has(KnownHeader::XForwardedPort))
        {
            set_decimal(
                request,
                KnownHeader::XForwardedPort,
                u64::from(info.local.port()),
            );
        }
    } else {
        let found = forwarded_for(headers.known(KnownHeader::XForwardedFor), hops);
        client = found.map(|(ip, _)| ip);
        trust_address = found.is_some_and(|(_, single)| single);
        if !headers.has(KnownHeader::XForwardedProto) {
            headers.add_known(KnownHeader::XForwardedProto, scheme_of(info));
            if config.append_x_forwarded_port && !headers.has(KnownHeader::XForwardedPort) {
                set_decimal(
                    request,
                    KnownHeader::XForwardedPort,
                    u64::from(info.local.port()),
                );
            }
        }
    }
    set_scheme(request, config, info);
    let client = client.map_or(info.remote, |ip| SocketAddr::new(ip, 0));

    let internal = trust_address && config.internal_address_config.is_internal(client.ip());
    let edge = !internal && config.use_remote_address;
    request.internal = internal;
    if internal {
        request
            .headers
            .set_known(KnownHeader::XEnvoyInternal, b"true");
    } else {
        remove_internal(request, edge);
    }
    let headers = &mut request.headers;
    if let Some(via) = &config.via {
        headers.append(b"via", b", ", via.as_bytes());
    }
    if edge {
        let text = client.ip().to_string();
        headers.set_known(KnownHeader::XEnvoyExternalAddress, text.as_bytes());
    }
    if config.generate_request_id
        && (!headers.has(KnownHeader::XRequestId) || (edge && !config.preserve_external_request_id))
    {
        let id = request_id::generate(&mut core.rng);
        headers.set_known(KnownHeader::XRequestId, &id);
    }
    forward_client_cert(request, config, info);
    client
}

/// By the client's connection.
const fn scheme_of(info: &ConnectionInfo) -> &'static [u8] {
    match info.tls {
        Some(_) => b"https",
        None => b"http",
    }
}

/// Envoy's `mutateXfccRequestHeader`.
fn forward_client_cert(
    request: &mut Request,
    config: &HttpConnectionManager,
    info: &ConnectionInfo,
) {
    use ForwardClientCertDetails as Mode;

    let mode = config.forward_client_cert_details;
    if mode == Mode::AlwaysForwardOnly {
        return;
    }
    let headers = &mut request.headers;
    let presented = info.tls.as_ref().is_some_and(|tls| tls.peer.is_some());
    if mode == Mode::Sanitize || !presented {
        headers.remove_known(KnownHeader::XForwardedClientCert);
    } else if let Some(element) = &info.client_cert {
        if mode == Mode::AppendForward {
            headers.append(b"x-forwarded-client-cert", b",", element);
        } else {
            headers.set_known(KnownHeader::XForwardedClientCert, element);
        }
    }
}

/// `:scheme` is what `x-forwarded-proto` says, if it says something known.
fn set_scheme(request: &mut Request, config: &HttpConnectionManager, info: &ConnectionInfo) {
    if let Some(scheme) = &config.scheme_to_overwrite {
        let scheme = scheme.as_bytes();
        request.scheme = request.headers.keep(scheme);
        request
            .headers
            .set_known(KnownHeader::XForwardedProto, scheme);
        return;
    }
    if !request.scheme.is_empty() {
        // The client has said it.
        return;
    }
    let known = request
        .headers
        .known(KnownHeader::XForwardedProto)
        .is_some_and(|value| {
            value.eq_ignore_ascii_case(b"http") || value.eq_ignore_ascii_case(b"https")
        });
    match request.headers.known_span(KnownHeader::XForwardedProto) {
        Some(span) if known => request.scheme = span,
        _ => request.scheme = request.headers.keep(scheme_of(info)),
    }
}

/// The address `skip` places from the end of an `x-forwarded-for`, and whether it is the only one.
fn forwarded_for(value: Option<&[u8]>, skip: usize) -> Option<(IpAddr, bool)> {
    let value = value?;
    let mut parts = value.rsplit(|byte| *byte == b',');
    let part = parts.nth(skip)?;
    let single = skip == 0 && parts.next().is_none();
    let text = std::str::from_utf8(part.trim_ascii()).ok()?;
    let ip = text
        .parse()
        .ok()
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some((ip, single))
}

fn append_forwarded_for(request: &mut Request, remote: IpAddr, core: &mut Core) {
    let text: Cow<'_, str> = if remote.is_loopback() {
        Cow::Borrowed(core.http.local_address())
    } else {
        Cow::Owned(remote.to_string())
    };
    request
        .headers
        .append(b"x-forwarded-for", b",", text.as_bytes());
}

fn set_decimal(request: &mut Request, known: KnownHeader, value: u64) {
    let mut buffer = itoa::Buffer::new();
    request
        .headers
        .set_known(known, buffer.format(value).as_bytes());
}

/// What only trusted callers may say (Envoy's `cleanInternalHeaders`).
fn remove_internal(request: &mut Request, edge: bool) {
    request.headers.retain(|line, _| match line.known {
        KnownHeader::XEnvoyDecoratorOperation
        | KnownHeader::XEnvoyDownstreamServiceCluster
        | KnownHeader::XEnvoyDownstreamServiceNode => !edge,
        KnownHeader::XEnvoyRetriableStatusCodes
        | KnownHeader::XEnvoyRetriableHeaderNames
        | KnownHeader::XEnvoyRetryOn
        | KnownHeader::XEnvoyRetryGrpcOn
        | KnownHeader::XEnvoyMaxRetries
        | KnownHeader::XEnvoyUpstreamAltStatName
        | KnownHeader::XEnvoyUpstreamRqTimeoutMs
        | KnownHeader::XEnvoyUpstreamRqPerTryTimeoutMs
        | KnownHeader::XEnvoyUpstreamRqTimeoutAltResponse
        | KnownHeader::XEnvoyExpectedRqTimeoutMs
        | KnownHeader::XEnvoyForceTrace
        | KnownHeader::XEnvoyIpTags
        | KnownHeader::XEnvoyOriginalUrl
        | KnownHeader::XEnvoyHedgeOnPerTryTimeout => false,
        _ => true,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_for_from_the_end() {
        let value = Some(&b"1.1.1.1, 2.2.2.2,3.3.3.3"[..]);
        assert_eq!(
            forwarded_for(value, 0),
            Some(("3.3.3.3".parse().unwrap(), false))
        );
        assert_eq!(
            forwarded_for(value, 2),
            Some(("1.1.1.1".parse().unwrap(), false))
        );
        assert_eq!(forwarded_for(value, 3), None);
        assert_eq!(
            forwarded_for(Some(b"10.0.0.1"), 0),
            Some(("10.0.0.1".parse().unwrap(), true))
        );
        assert_eq!(forwarded_for(Some(b"x"), 0), None);
        assert_eq!(
            forwarded_for(Some(b"[::1]"), 0),
            Some(("::1".parse().unwrap(), true))
        );
        assert_eq!(forwarded_for(None, 0), None);
    }
}
