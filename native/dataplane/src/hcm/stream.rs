//! The state of one request and its response, reused from request to request.
//!
//! Only data and the questions that can be answered from it; what happens with it is told by the other files of this
//! folder, in the order of a request's way.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_buf::OutBuf;
use tidegate_codec::h1::{BodyTracker, KnownHeader, Method, Span, Version};
use tidegate_codec::h2::StreamRef;
use tidegate_rt::Moment;
use tidegate_snapshot::fault::Abort;
use tidegate_snapshot::matcher::CompiledString;
use tidegate_snapshot::metadata::DynamicMetadata;
use tidegate_snapshot::per_filter::PerFilterLevels;
use tidegate_snapshot::retry::CompiledRetryPolicy;
use tidegate_snapshot::routes::action::CompiledWeightedCluster;
use tidegate_snapshot::routes::{CompiledAction, CompiledForward, CompiledRoute};
use tidegate_snapshot::{
    CompiledRoutes, CompiledVirtualHost, HeaderEdit, HeaderLevels, HeaderName, RequestView,
    ResponseFlags, WellKnown,
};
use tidegate_tls::TlsInfo;

use super::compressor::Compression;
use super::ext_authz::AuthzState;
use super::grpc::GrpcFilters;
use super::headers::HeaderList;
use super::jwt_authn::JwtState;
use super::lua::LuaStream;
use super::mirror::Mirrors;
use super::paused::Pause;
use super::retry::Tries;
use super::runtime::HcmRuntime;
use super::streams::StreamKey;
use super::tracing::Span as TraceSpan;
use crate::cluster::{ActiveRequest, ClusterRuntime, HostRuntime};
use crate::conn::Key;
use crate::istio::Exchanged;
use crate::pool::PoolId;

/// What the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http10,
    Http11,
    Http2,
}

impl Protocol {
    /// As `%PROTOCOL%` prints it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => Version::Http10.as_str(),
            Self::Http11 => Version::Http11.as_str(),
            Self::Http2 => "HTTP/2",
        }
    }
}

impl From<Version> for Protocol {
    fn from(version: Version) -> Self {
        match version {
            Version::Http10 => Self::Http10,
            Version::Http11 => Self::Http11,
        }
    }
}

/// The request as it is now, edits included.
pub(crate) struct Request {
    pub(crate) headers: HeaderList,
    pub(crate) method: Method,
    pub(crate) method_text: Span,
    /// Path and query.
    pub(crate) path: Span,
    pub(crate) scheme: Span,
    pub(crate) protocol: Protocol,
    /// The head was read (not so for a request that the codec refused).
    pub(crate) parsed: bool,
    pub(crate) head_bytes: u64,
    pub(crate) body: BodyTracker,
    /// Goes to an HTTP/1 upstream in chunks: it came so, or by HTTP/2 without a length.
    pub(crate) chunked: bool,
    /// Follows chunks that came by HTTP/1 once more, for the payload that an HTTP/2 upstream gets.
    pub(crate) unframe: BodyTracker,
    /// Trailers that come by HTTP/1 are passed on.
    pub(crate) takes_trailers: bool,
    pub(crate) trailers: HeaderList,
    /// A filter looks at the body: it is payload from the filters on, whatever it came by.
    pub(crate) filtered: bool,
    /// Everything has been received.
    pub(crate) complete: bool,
    /// Payload bytes received.
    pub(crate) bytes: u64,
    /// Body bytes that wait for an upstream connection, framed as they came, or for its window: payload then.
    pub(crate) pending: OutBuf,
    /// Payload from an HTTP/2 client that it may not replace yet: the upstream side has not taken it.
    pub(crate) unreleased: usize,
    /// The client wants to leave HTTP for this protocol.
    pub(crate) upgrade: bool,
    pub(crate) grpc: bool,
    /// The `host` header says `Connection: close` or is HTTP/1.0 without keep-alive.
    pub(crate) close: bool,
    pub(crate) internal: bool,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            headers: HeaderList::default(),
            method: Method::Get,
            method_text: Span::EMPTY,
            path: Span::EMPTY,
            scheme: Span::EMPTY,
            protocol: Protocol::Http11,
            parsed: false,
            head_bytes: 0,
            body: BodyTracker::None,
            chunked: false,
            unframe: BodyTracker::None,
            takes_trailers: false,
            trailers: HeaderList::default(),
            filtered: false,
            complete: false,
            bytes: 0,
            pending: OutBuf::new(),
            unreleased: 0,
            upgrade: false,
            grpc: false,
            close: false,
            internal: false,
        }
    }
}

impl Request {
    /// The body passes as payload, not in HTTP/1's framing.
    #[inline]
    pub(crate) fn is_payload(&self) -> bool {
        self.filtered || self.protocol == Protocol::Http2
    }

    #[inline]
    pub(crate) fn method_bytes(&self) -> &[u8] {
        self.headers.text(self.method_text)
    }

    #[inline]
    pub(crate) fn path_bytes(&self) -> &[u8] {
        self.headers.text(self.path)
    }

    #[inline]
    pub(crate) fn authority_bytes(&self) -> &[u8] {
        self.headers.known(KnownHeader::Host).unwrap_or_default()
    }

    /// A header as logs and matchers name it, pseudo headers included.
    pub(crate) fn header_named(&self, name: &HeaderName) -> Option<&[u8]> {
        if !self.parsed {
            return None;
        }
        let text = match name.known() {
            Some(WellKnown::Method) => self.method_bytes(),
            Some(WellKnown::Path) if self.path.is_empty() => return None,
            Some(WellKnown::Path) => self.path_bytes(),
            Some(WellKnown::Authority | WellKnown::Host) => {
                return self.headers.known(KnownHeader::Host);
            }
            Some(WellKnown::Scheme) => self.headers.text(self.scheme),
            _ if name.is_pseudo() => return None,
            _ => return self.headers.get(name.as_bytes()),
        };
        Some(text)
    }
}

impl RequestView for Request {
    #[inline]
    fn method(&self) -> &[u8] {
        self.method_bytes()
    }

    #[inline]
    fn path(&self) -> &[u8] {
        self.path_bytes()
    }

    #[inline]
    fn authority(&self) -> &[u8] {
        self.authority_bytes()
    }

    #[inline]
    fn scheme(&self) -> &[u8] {
        self.headers.text(self.scheme)
    }

    fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        self.headers.get(name.as_bytes())
    }

    fn each_header(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8])) {
        for value in self.headers.get_all(name.as_bytes()) {
            each(value);
        }
    }
}

/// The part of a request's body that was received together with the head.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attached<'b> {
    /// Framed as it came.
    pub(crate) bytes: &'b [u8],
    pub(crate) payload: u64,
    /// It is the whole body.
    pub(crate) last: bool,
}

/// How the response's body goes downstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum BodyMode {
    /// As it comes, framing included.
    #[default]
    Raw,
    /// Its end is known only when it comes: in chunks.
    Chunk,
    /// Payload only: to HTTP/2 clients, and to those that know no chunks, for which the end is the connection's.
    Payload,
}

/// The response as it is now.
#[derive(Default)]
pub(crate) struct Response {
    pub(crate) headers: HeaderList,
    /// 0 until it is known.
    pub(crate) status: u16,
    /// What the status line of HTTP/1 says instead of the usual.
    pub(crate) reason: Option<Box<[u8]>>,
    /// The head has been handed to the socket.
    pub(crate) started: bool,
    /// So has the end.
    pub(crate) complete: bool,
    /// Payload bytes sent.
    pub(crate) bytes: u64,
    pub(crate) head_bytes: u64,
    pub(crate) mode: BodyMode,
    pub(crate) trailers: HeaderList,
    /// Payload that waits for an HTTP/2 client's window.
    pub(crate) pending: OutBuf,
    /// The upstream has said all; `pending` may hold some of it.
    pub(crate) ended: bool,
    /// 101, or 2xx to CONNECT, was passed on: both directions are a tunnel.
    pub(crate) tunnel: bool,
    /// The connection ends after it, but not before the client has had time to read it.
    pub(crate) linger: bool,
}

/// What the request matched.
#[derive(Clone)]
pub(crate) struct StreamRoute {
    pub(crate) routes: Arc<CompiledRoutes>,
    pub(crate) virtual_host: Arc<CompiledVirtualHost>,
    /// In the virtual host.
    pub(crate) position: u32,
    /// The random number that chose the route, and its weighted cluster.
    pub(crate) random: u64,
}

impl StreamRoute {
    #[inline]
    pub(crate) fn route(&self) -> &CompiledRoute {
        self.virtual_host.route_at(self.position)
    }

    pub(crate) fn forward(&self) -> Option<&CompiledForward> {
        match &self.route().action {
            CompiledAction::Route(forward) => Some(forward),
            _ => None,
        }
    }

    /// The route's, else the virtual host's.
    pub(crate) fn retry_policy(&self) -> Option<&Arc<CompiledRetryPolicy>> {
        let of_route = self.forward()?.retry_policy.as_ref();
        of_route.or(self.virtual_host.retry_policy.as_ref())
    }

    pub(crate) fn weighted(&self) -> Option<&CompiledWeightedCluster> {
        self.forward()?.pick(self.random).weighted
    }

    pub(crate) fn header_levels(&self) -> HeaderLevels<'_> {
        HeaderLevels {
            weighted_cluster: self.weighted().map(|entry| &entry.header_mutations),
            route: &self.route().header_mutations,
            virtual_host: &self.virtual_host.headers,
            route_configuration: &self.routes.headers,
            most_specific_wins: self.routes.config.most_specific_header_mutations_wins,
        }
    }

    pub(crate) fn per_filter(&self) -> PerFilterLevels<'_> {
        PerFilterLevels {
            weighted_cluster: self.weighted().map(|entry| &entry.per_filter),
            route: &self.route().per_filter,
            virtual_host: &self.virtual_host.per_filter,
            route_configuration: &self.routes.per_filter,
        }
    }
}

/// What an upstream connection knows a request by; 0 for HTTP/1.
pub(crate) type Token = u32;

/// Where the request's upstream side stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Upstream {
    /// Not asked for yet, or done with.
    #[default]
    None,
    /// Waiting in a pool's queue.
    Pending(PoolId),
    /// The request is being sent, or has been.
    Active(Key, Token),
}

/// Moments of the request's life; zero stands for not yet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) start: Moment,
    pub(crate) request_end: Option<Moment>,
    pub(crate) upstream_tx_begin: Option<Moment>,
    pub(crate) upstream_tx_end: Option<Moment>,
    pub(crate) upstream_rx_begin: Option<Moment>,
    pub(crate) upstream_rx_end: Option<Moment>,
    pub(crate) downstream_tx_begin: Option<Moment>,
    pub(crate) downstream_tx_end: Option<Moment>,
    pub(crate) connect_begin: Option<Moment>,
    pub(crate) connect_end: Option<Moment>,
}

/// When what is due at the latest; see `timeouts.rs`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deadlines {
    /// The stream's idle timeout, and when it counts from.
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) active_at: Moment,
    /// `request_timeout`.
    pub(crate) request: Option<Moment>,
    /// The route's timeout; runs from the end of the request.
    pub(crate) response: Option<Moment>,
    /// The duration behind `response`.
    pub(crate) response_timeout: Option<Duration>,
    pub(crate) max_duration: Option<Moment>,
    /// An injected delay.
    pub(crate) delay: Option<Moment>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Stream {
    /// What the rest of the worker knows it by.
    pub(crate) key: StreamKey,
    /// What the codec knows it by; `None`: HTTP/1.
    pub(crate) wire: Option<StreamRef>,
    /// The manager under which it began, where the connection has a later one.
    pub(super) hcm: Option<Rc<HcmRuntime>>,
    pub(crate) request: Request,
    pub(crate) response: Response,
    pub(crate) route: Option<StreamRoute>,
    pub(crate) cluster: Option<Rc<ClusterRuntime>>,
    pub(crate) host: Option<Rc<HostRuntime>>,
    /// The host chosen for a request that waits for a connection.
    pub(crate) pending_host: Option<Rc<HostRuntime>>,
    pub(crate) active: Option<ActiveRequest>,
    pub(crate) upstream: Upstream,
    /// Payload from an HTTP/2 upstream that it may not replace yet: the client's side has not taken it.
    pub(crate) upstream_unreleased: usize,
    pub(crate) upstream_http2: bool,
    pub(crate) upstream_connection_id: Option<u64>,
    pub(crate) upstream_local: Option<SocketAddr>,
    pub(crate) upstream_tls: Option<Rc<TlsInfo>>,
    pub(crate) upstream_bytes_sent: u64,
    pub(crate) upstream_bytes_received: u64,
    pub(crate) upstream_header_bytes_sent: u64,
    pub(crate) upstream_header_bytes_received: u64,
    pub(crate) attempts: u32,
    /// Of a request that may be tried again, or whose tries have limits of their own.
    pub(crate) tries: Option<Box<Tries>>,
    pub(crate) failure_reason: Option<Cow<'static, str>>,
    pub(crate) flags: ResponseFlags,
    pub(crate) details: Cow<'static, str>,
    pub(crate) times: Times,
    pub(crate) deadlines: Deadlines,
    /// Decides runtime fractions and weighted clusters.
    pub(crate) random: u64,
    /// The client as `x-forwarded-for` and the configuration tell it.
    pub(crate) client: Option<SocketAddr>,
    /// The filter to go on with.
    pub(crate) next_filter: usize,
    /// The CORS filter has to annotate the response.
    pub(crate) cors: bool,
    /// What the gRPC filters keep.
    pub(crate) grpc: GrpcFilters,
    /// What the compressor filters keep.
    pub(crate) compression: Compression,
    /// Counts among the upgraded streams: the client may leave HTTP.
    pub(crate) upgraded: bool,
    /// The response's `content-length` speaks of a body that is not passed on.
    pub(crate) drop_length: bool,
    /// Copies of it that are under way.
    pub(crate) mirrors: Option<Box<Mirrors>>,
    /// `set-cookie` headers for the response: cookies made up for consistent hashing.
    pub(crate) set_cookies: Vec<Vec<u8>>,
    /// The upstream connection has more to send than it should hold.
    pub(crate) request_held: bool,
    /// The response cannot be completed.
    pub(crate) cut: bool,
    /// What filters have told of the request.
    pub(crate) metadata: DynamicMetadata,
    /// What authentication by tokens keeps.
    pub(crate) jwt: Option<Box<JwtState>>,
    /// What external authorization keeps.
    pub(crate) authz: Option<Box<AuthzState>>,
    /// What scripts keep.
    pub(crate) lua: Option<Box<LuaStream>>,
    /// The filter at hand waits.
    pub(crate) pause: Option<Box<Pause>>,
    /// How the request is to be aborted when its delay is over.
    pub(crate) abort: Option<Abort>,
    /// Counts among the fault filter's active faults.
    pub(crate) active_fault: bool,
    /// Of a connection manager that traces.
    pub(crate) span: Option<Box<TraceSpan>>,
    /// What Istio's filters have found out.
    pub(crate) istio: Exchanged,
    /// Response headers of the route's levels have been applied.
    pub(crate) response_mutated: bool,
}

impl Stream {
    /// The response's body passes filters, as payload.
    #[inline]
    pub(crate) fn is_response_filtered(&self) -> bool {
        !self.grpc.is_empty()
            || self.compression.is_active()
            || self.lua.as_ref().is_some_and(|lua| lua.filters_response())
    }

    /// Takes note of the body that came with the head. Not before the request is on its way (or made to wait): as in
    /// Envoy, an answer at sight of the head comes before the request is complete.
    pub(crate) fn attach(&mut self, attached: Attached<'_>, now: Moment) {
        self.request.bytes += attached.payload;
        if attached.last {
            self.request.complete = true;
            self.times.request_end = Some(now);
        }
    }

    /// Ready for the next request; buffers keep their memory.
    pub(crate) fn reset(&mut self) {
        let [
            mut request,
            mut response,
            mut request_trailers,
            mut response_trailers,
        ] = [
            &mut self.request.headers,
            &mut self.response.headers,
            &mut self.request.trailers,
            &mut self.response.trailers,
        ]
        .map(std::mem::take);
        request.clear();
        response.clear();
        request_trailers.clear();
        let mut metadata = std::mem::take(&mut self.metadata);
        metadata.clear();
        response_trailers.clear();
        *self = Self::default();
        self.metadata = metadata;
        self.request.headers = request;
        self.response.headers = response;
        self.request.trailers = request_trailers;
        self.response.trailers = response_trailers;
    }
}

/// Edits the request's headers on behalf of a route.
impl HeaderEdit for Request {
    fn contains(&self, name: &HeaderName) -> bool {
        self.header_named(name).is_some()
    }

    fn remove(&mut self, name: &HeaderName) {
        if !name.is_pseudo() && name.known() != Some(WellKnown::Host) {
            self.headers.remove(name.as_bytes());
        }
    }

    fn remove_matching(&mut self, names: &CompiledString) {
        self.headers.remove_matching(|name| names.matches(name));
    }

    fn append(&mut self, name: &HeaderName, value: &[u8]) {
        match name.known() {
            _ if name.is_pseudo() || name.known() == Some(WellKnown::Host) => self.set(name, value),
            Some(
                WellKnown::ForwardedFor | WellKnown::Via | WellKnown::UserAgent | WellKnown::Accept,
            ) => {
                self.headers.append(name.as_bytes(), b",", value);
            }
            _ => self.headers.add(name.as_bytes(), value),
        }
    }

    fn set(&mut self, name: &HeaderName, value: &[u8]) {
        match name.known() {
            Some(WellKnown::Authority | WellKnown::Host) => {
                self.headers.set_known(KnownHeader::Host, value);
            }
            Some(WellKnown::Path) => self.path = self.headers.keep(value),
            Some(WellKnown::Method) => self.method_text = self.headers.keep(value),
            Some(WellKnown::Scheme) => self.scheme = self.headers.keep(value),
            _ if name.is_pseudo() => {}
            _ => self.headers.set(name.as_bytes(), value),
        }
    }
}

impl HeaderEdit for Response {
    fn contains(&self, name: &HeaderName) -> bool {
        self.headers.get(name.as_bytes()).is_some()
    }

    fn remove(&mut self, name: &HeaderName) {
        self.headers.remove(name.as_bytes());
    }

    fn remove_matching(&mut self, names: &CompiledString) {
        self.headers.remove_matching(|name| names.matches(name));
    }

    fn append(&mut self, name: &HeaderName, value: &[u8]) {
        self.headers.add(name.as_bytes(), value);
    }

    fn set(&mut self, name: &HeaderName, value: &[u8]) {
        if name.known() == Some(WellKnown::Status) {
            if let Some(status) = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok())
            {
                self.status = status;
            }
        } else if !name.is_pseudo() {
            self.headers.set(name.as_bytes(), value);
        }
    }
}
