//! What scripts see of a stream: it is lent to them for as long as they run.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value};
use tidegate_codec::h1::{KnownHeader, Method};
use tidegate_lua::{Host, Level, List, Metadata, Side, SslList, SslNumber, SslText, Text};
use tidegate_model::Name;
use tidegate_snapshot::metadata::DynamicMetadata;
use tidegate_snapshot::per_filter::CompiledPolicy;
use tidegate_tls::{CertificateInfo, TlsInfo};

use crate::accept::ConnectionInfo;
use crate::hcm::headers::HeaderList;
use crate::hcm::stream::{Protocol, Request, Response, Stream, StreamRoute};
use crate::worker::LogSink;

/// See the module.
pub(crate) struct LuaHost {
    side: Side,
    /// Of the filter, as the configuration calls it.
    filter: Name,
    request: Request,
    response: Response,
    metadata: DynamicMetadata,
    route: Option<StreamRoute>,
    addresses: Addresses,
    server_name: Option<Name>,
    tls: Option<Rc<TlsInfo>>,
    log: Arc<dyn LogSink>,
    /// Headers have been changed.
    pub(super) touched: bool,
}

struct Addresses {
    remote: String,
    direct_remote: std::net::SocketAddr,
    local: std::net::SocketAddr,
    direct_local: std::net::SocketAddr,
}

impl LuaHost {
    pub(super) fn new(
        side: Side,
        filter: &Name,
        stream: &Stream,
        info: &ConnectionInfo,
        log: &Arc<dyn LogSink>,
    ) -> Box<Self> {
        let remote = stream.client.unwrap_or(info.remote);
        Box::new(Self {
            side,
            filter: Name::clone(filter),
            request: Request::default(),
            response: Response::default(),
            metadata: DynamicMetadata::default(),
            route: None,
            addresses: Addresses {
                remote: remote.to_string(),
                direct_remote: info.remote,
                local: info.local,
                direct_local: info.direct_local,
            },
            server_name: info.requested_server_name.clone(),
            tls: info.tls.clone(),
            log: Arc::clone(log),
            touched: false,
        })
    }

    /// Takes the stream's parts; called again, it gives them back.
    pub(super) fn swap(&mut self, stream: &mut Stream) {
        std::mem::swap(&mut self.request, &mut stream.request);
        std::mem::swap(&mut self.response, &mut stream.response);
        std::mem::swap(&mut self.metadata, &mut stream.metadata);
        std::mem::swap(&mut self.route, &mut stream.route);
    }

    fn list(&self, list: List) -> &HeaderList {
        match (self.side, list) {
            (Side::Request, List::Headers) => &self.request.headers,
            (Side::Request, List::Trailers) => &self.request.trailers,
            (Side::Response, List::Headers) => &self.response.headers,
            (Side::Response, List::Trailers) => &self.response.trailers,
        }
    }

    fn list_mut(&mut self, list: List) -> &mut HeaderList {
        match (self.side, list) {
            (Side::Request, List::Headers) => &mut self.request.headers,
            (Side::Request, List::Trailers) => &mut self.request.trailers,
            (Side::Response, List::Headers) => &mut self.response.headers,
            (Side::Response, List::Trailers) => &mut self.response.trailers,
        }
    }

    /// A header of the request that has a place of its own.
    fn of_request(&self, name: &[u8]) -> Option<&[u8]> {
        let request = &self.request;
        match name {
            b":method" => Some(request.method_bytes()),
            b":path" => Some(request.path_bytes()).filter(|path| !path.is_empty()),
            b":authority" | b"host" => request.headers.known(KnownHeader::Host),
            b":scheme" => Some(request.headers.text(request.scheme)),
            _ => None,
        }
    }

    fn set_of_request(&mut self, name: &[u8], value: &[u8]) {
        let request = &mut self.request;
        match name {
            b":method" => {
                request.method = Method::from_token(value).unwrap_or(Method::Other);
                request.method_text = request.headers.keep(value);
            }
            b":path" => request.path = request.headers.keep(value),
            b":scheme" => request.scheme = request.headers.keep(value),
            _ => request.headers.set_known(KnownHeader::Host, value),
        }
    }

    fn peer(&self) -> Option<&CertificateInfo> {
        Some(&self.tls.as_ref()?.peer.as_ref()?.info)
    }

    fn local(&self) -> Option<&CertificateInfo> {
        self.tls.as_ref()?.local.as_deref()
    }
}

fn has_own_place(side: Side, list: List, name: &[u8]) -> bool {
    side == Side::Request && list == List::Headers && (name.starts_with(b":") || name == b"host")
}

fn is_status(side: Side, list: List, name: &[u8]) -> bool {
    side == Side::Response && list == List::Headers && name == b":status"
}

impl Host for LuaHost {
    fn each_value(&self, list: List, name: &[u8], each: &mut dyn FnMut(&[u8])) {
        if has_own_place(self.side, list, name) {
            if let Some(value) = self.of_request(name) {
                each(value);
            }
        } else if is_status(self.side, list, name) {
            let mut buffer = itoa::Buffer::new();
            each(buffer.format(self.response.status).as_bytes());
        } else {
            self.list(list).get_all(name).for_each(each);
        }
    }

    fn each_header(&self, list: List, each: &mut dyn FnMut(&[u8], &[u8])) {
        if list == List::Headers {
            match self.side {
                Side::Request => {
                    // As Envoy's codecs come to know them, and as clients send them.
                    let names: [&[u8]; 4] = match self.request.protocol {
                        Protocol::Http2 => [b":method", b":scheme", b":authority", b":path"],
                        _ => [b":authority", b":path", b":method", b":scheme"],
                    };
                    for name in names {
                        if let Some(value) = self.of_request(name) {
                            each(name, value);
                        }
                    }
                }
                Side::Response => {
                    let mut buffer = itoa::Buffer::new();
                    each(b":status", buffer.format(self.response.status).as_bytes());
                }
            }
        }
        for (name, value) in self.list(list).pairs() {
            if !(list == List::Headers
                && self.side == Side::Request
                && name.eq_ignore_ascii_case(b"host"))
            {
                each(name, value);
            }
        }
    }

    fn add(&mut self, list: List, name: &[u8], value: &[u8]) {
        if has_own_place(self.side, list, name) || is_status(self.side, list, name) {
            return self.set(list, name, value);
        }
        self.list_mut(list).add_copy(name, value);
    }

    fn set(&mut self, list: List, name: &[u8], value: &[u8]) {
        if has_own_place(self.side, list, name) {
            self.set_of_request(name, value);
        } else if is_status(self.side, list, name) {
            let status = std::str::from_utf8(value).ok();
            let status = status.and_then(|text| text.parse().ok());
            self.response.status = status.unwrap_or(self.response.status);
        } else {
            self.list_mut(list).set(name, value);
        }
    }

    fn remove(&mut self, list: List, name: &[u8]) {
        if !has_own_place(self.side, list, name) {
            self.list_mut(list).remove(name);
        }
    }

    fn set_length(&mut self, length: usize) {
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(length).as_bytes();
        let headers = self.list_mut(List::Headers);
        headers.set_known(KnownHeader::ContentLength, text);
        if self.side == Side::Request {
            self.request.chunked = false;
        }
    }

    fn set_reason(&mut self, reason: &[u8]) {
        self.response.reason = Some(reason.into());
    }

    fn touched(&mut self) {
        self.touched = true;
    }

    fn text(&self, text: Text) -> Cow<'_, str> {
        match text {
            Text::Protocol => Cow::Borrowed(self.request.protocol.as_str()),
            Text::RouteName => {
                let route = self.route.as_ref();
                Cow::Borrowed(route.map_or("", |route| route.route().name()))
            }
            Text::LocalAddress => Cow::Owned(self.addresses.local.to_string()),
            Text::DirectLocalAddress => Cow::Owned(self.addresses.direct_local.to_string()),
            Text::RemoteAddress => Cow::Borrowed(&self.addresses.remote),
            Text::DirectRemoteAddress => Cow::Owned(self.addresses.direct_remote.to_string()),
            Text::RequestedServerName => {
                Cow::Borrowed(self.server_name.as_deref().unwrap_or_default())
            }
        }
    }

    fn metadata(&self, which: Metadata) -> Option<&Map<String, Value>> {
        let route = self.route.as_ref()?;
        match which {
            Metadata::Route => {
                let of_route = &route.route().per_filter;
                let named = of_route.metadata(&self.filter);
                named.or_else(|| of_route.metadata("envoy.filters.http.lua"))
            }
            Metadata::FilterContext => match route.per_filter().policy(&self.filter)? {
                CompiledPolicy::Lua(policy) => Some(&policy.filter_context),
                _ => None,
            },
        }
    }

    fn dynamic(&self, filter: &str) -> Option<Cow<'_, Map<String, Value>>> {
        self.metadata.namespace(filter)
    }

    fn dynamic_names(&self) -> Vec<String> {
        let names = self.metadata.iter();
        names.map(|(name, _)| String::from(&**name)).collect()
    }

    fn set_dynamic(&mut self, filter: &str, key: &str, value: Value) {
        self.metadata.set(filter, key, value);
    }

    fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    fn ssl_text(&self, text: SslText) -> String {
        let of = |info: Option<&CertificateInfo>, field: fn(&CertificateInfo) -> &str| {
            info.map(field).unwrap_or_default().to_owned()
        };
        let certificate = || self.tls.as_ref()?.peer.as_ref();
        match text {
            SslText::Sha256PeerCertificateDigest => of(self.peer(), |info| &info.sha256),
            SslText::SerialNumberPeerCertificate => of(self.peer(), |info| &info.serial),
            SslText::IssuerPeerCertificate => of(self.peer(), |info| &info.issuer),
            SslText::SubjectPeerCertificate => of(self.peer(), |info| &info.subject),
            SslText::SubjectLocalCertificate => of(self.local(), |info| &info.subject),
            SslText::PemPeerCertificate => {
                certificate().map_or_else(String::new, |peer| peer.pem_urlencoded())
            }
            SslText::PemPeerCertificateChain => {
                certificate().map_or_else(String::new, |peer| peer.pem_chain_urlencoded())
            }
            SslText::CiphersuiteString => self
                .tls
                .as_ref()
                .map_or_else(String::new, |tls| tls.cipher.to_owned()),
            SslText::TlsVersion => self
                .tls
                .as_ref()
                .map_or_else(String::new, |tls| tls.version.to_owned()),
        }
    }

    fn ssl_list(&self, list: SslList) -> Vec<String> {
        let (info, dns) = match list {
            SslList::UriSanLocal => (self.local(), false),
            SslList::UriSanPeer => (self.peer(), false),
            SslList::DnsSansLocal => (self.local(), true),
            SslList::DnsSansPeer => (self.peer(), true),
        };
        let Some(info) = info else {
            return Vec::new();
        };
        let names = if dns { &info.dns_sans } else { &info.uri_sans };
        names.iter().map(|name| String::from(&**name)).collect()
    }

    fn ssl_number(&self, number: SslNumber) -> i64 {
        let peer = self.peer();
        match number {
            SslNumber::ValidFromPeer => peer.map_or(0, |info| info.not_before),
            SslNumber::ExpirationPeer => peer.map_or(0, |info| info.not_after),
            SslNumber::Presented => i64::from(peer.is_some()),
            SslNumber::Validated => self.tls.as_ref().map_or(0, |tls| i64::from(tls.validated)),
        }
    }

    fn log(&self, level: Level, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        self.log.script_log(level, &format!("script log: {text}"));
    }
}
