//! What formats may ask about a stream: access logs at its end, and header values with operators on its way.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tidegate_codec::h1::KnownHeader;
use tidegate_rt::{Clock, Moment};
use tidegate_snapshot::log_context::{
    AddressField, HeaderMap, LogContext, NumberField, TextField, TimePoint, TlsSide,
};
use tidegate_snapshot::matcher::CompiledString;
use tidegate_snapshot::metadata::DynamicMetadata;
use tidegate_snapshot::{HeaderEdit, HeaderName, HostAddress, ResponseFlags, WellKnown};
use tidegate_tls::TlsInfo;

use super::ServerConnection;
use super::stream::Stream;
use crate::worker::Core;

/// A stream and its connection, to be read.
pub(super) struct View<'a> {
    connection: &'a ServerConnection,
    stream: &'a Stream,
    start: SystemTime,
    now: SystemTime,
}

/// A stream whose request headers are being edited.
pub(super) struct RequestSide<'a> {
    connection: &'a ServerConnection,
    stream: &'a mut Stream,
    start: SystemTime,
    now: SystemTime,
}

/// A stream whose response headers are being edited.
pub(super) struct ResponseSide<'a> {
    connection: &'a ServerConnection,
    stream: &'a mut Stream,
    start: SystemTime,
    now: SystemTime,
}

impl LogContext for View<'_> {
    fn header(&self, map: HeaderMap, name: &HeaderName) -> Option<&[u8]> {
        match map {
            HeaderMap::Request => self.stream.request.header_named(name),
            HeaderMap::Response if name.is_pseudo() => None,
            HeaderMap::Response => self.stream.response.headers.get(name.as_bytes()),
            HeaderMap::ResponseTrailers => self.stream.response.trailers.get(name.as_bytes()),
        }
    }

    fn text(&self, field: TextField) -> Option<&[u8]> {
        text_of(self.connection, self.stream, field)
    }

    fn number(&self, field: NumberField) -> Option<u64> {
        let stream = self.stream;
        Some(match field {
            NumberField::ResponseCode => u64::from(stream.response.status),
            NumberField::ConnectionId => self.connection.downstream.info.id,
            NumberField::UpstreamConnectionId => stream.upstream_connection_id?,
            NumberField::UpstreamRequestAttemptCount => u64::from(stream.attempts),
            NumberField::BytesReceived => stream.request.bytes,
            NumberField::BytesSent => stream.response.bytes,
            NumberField::UpstreamWireBytesReceived => stream.upstream_bytes_received,
            NumberField::UpstreamWireBytesSent => stream.upstream_bytes_sent,
            NumberField::UpstreamHeaderBytesReceived => stream.upstream_header_bytes_received,
            NumberField::UpstreamHeaderBytesSent => stream.upstream_header_bytes_sent,
            NumberField::DownstreamHeaderBytesReceived => stream.request.head_bytes,
            NumberField::DownstreamHeaderBytesSent => stream.response.head_bytes,
            NumberField::DownstreamWireBytesReceived => {
                stream.request.head_bytes + stream.request.bytes
            }
            NumberField::DownstreamWireBytesSent => {
                stream.response.head_bytes + stream.response.bytes
            }
            NumberField::RequestHeadersBytes => request_headers_bytes(stream),
            // With `:status`.
            NumberField::ResponseHeadersBytes if stream.response.status > 0 => {
                stream.response.headers.byte_size() + 10
            }
            NumberField::ResponseTrailersBytes => stream.response.trailers.byte_size(),
            _ => return None,
        })
    }

    fn address(&self, field: AddressField) -> Option<SocketAddr> {
        let info = &self.connection.downstream.info;
        match field {
            AddressField::UpstreamHost | AddressField::UpstreamRemote => {
                match self.stream.host.as_ref()?.host.address {
                    HostAddress::Socket(address) => Some(address),
                    HostAddress::Pipe(_) => None,
                }
            }
            AddressField::UpstreamLocal => self.stream.upstream_local,
            AddressField::DownstreamLocal => Some(info.local),
            AddressField::DownstreamDirectLocal => Some(info.direct_local),
            AddressField::DownstreamRemote => self.stream.client,
            AddressField::DownstreamDirectRemote => Some(info.remote),
        }
    }

    fn upstream_host_text(&self) -> Option<&[u8]> {
        Some(self.stream.host.as_ref()?.host.address_text.as_bytes())
    }

    fn start_time(&self) -> SystemTime {
        self.start
    }

    fn now(&self) -> SystemTime {
        self.now
    }

    fn time_point(&self, point: TimePoint) -> Option<Duration> {
        let times = &self.stream.times;
        let moment: Option<Moment> = match point {
            TimePoint::DownstreamRxBegin => Some(times.start),
            TimePoint::DownstreamRxEnd => times.request_end,
            TimePoint::UpstreamConnectBegin => times.connect_begin,
            TimePoint::UpstreamConnectEnd => times.connect_end,
            TimePoint::UpstreamHandshakeEnd => None,
            TimePoint::UpstreamTxBegin => times.upstream_tx_begin,
            TimePoint::UpstreamTxEnd => times.upstream_tx_end,
            TimePoint::UpstreamRxBegin | TimePoint::UpstreamRxBodyBegin => times.upstream_rx_begin,
            TimePoint::UpstreamRxEnd => times.upstream_rx_end,
            TimePoint::DownstreamTxBegin => times.downstream_tx_begin,
            TimePoint::DownstreamTxEnd => times.downstream_tx_end,
        };
        moment.map(|moment| moment.since(times.start))
    }

    fn tls(&self, side: TlsSide) -> Option<&TlsInfo> {
        match side {
            TlsSide::Downstream => self.connection.downstream.info.tls.as_deref(),
            TlsSide::Upstream => self.stream.upstream_tls.as_deref(),
        }
    }

    fn response_flags(&self) -> ResponseFlags {
        self.stream.flags
    }

    fn request_random(&self) -> u64 {
        self.stream.random
    }

    fn grpc_message_counts(&self) -> Option<(u64, u64)> {
        self.stream.grpc.message_counts()
    }

    fn dynamic_metadata(&self) -> Option<&DynamicMetadata> {
        Some(&self.stream.metadata)
    }
}

/// Names and values, those that HTTP/2 tells as pseudo headers included.
fn request_headers_bytes(stream: &Stream) -> u64 {
    let request = &stream.request;
    let pseudo = |name: &str, value: &[u8]| {
        if value.is_empty() {
            0
        } else {
            (name.len() + value.len()) as u64
        }
    };
    // `host` is there as one of the others.
    let authority = if request.headers.has(KnownHeader::Host) {
        ":authority".len() - "host".len()
    } else {
        0
    };
    request.headers.byte_size()
        + authority as u64
        + pseudo(":method", request.method_bytes())
        + pseudo(":path", request.path_bytes())
        + pseudo(":scheme", request.headers.text(request.scheme))
}

/// The texts that a format may ask for.
fn text_of<'a>(
    connection: &'a ServerConnection,
    stream: &'a Stream,
    field: TextField,
) -> Option<&'a [u8]> {
    let text: &str = match field {
        TextField::Protocol => stream.request.protocol.as_str(),
        TextField::UpstreamProtocol => match stream.upstream_connection_id {
            Some(_) if stream.upstream_http2 => "HTTP/2",
            Some(_) => "HTTP/1.1",
            None => return None,
        },
        // Envoy answers without any there, which is not the same as none.
        TextField::ResponseCodeDetails
            if stream.flags.contains(ResponseFlags::NO_FILTER_CONFIG_FOUND) =>
        {
            return Some(stream.details.as_bytes());
        }
        TextField::ResponseCodeDetails => &stream.details,
        TextField::DownstreamTransportFailureReason => connection.downstream.transport.failure()?,
        TextField::UpstreamTransportFailureReason => stream.failure_reason.as_deref()?,
        TextField::UpstreamHostName => {
            let host = &stream.host.as_ref()?.host;
            if host.hostname.is_empty() {
                &host.address_text
            } else {
                &host.hostname
            }
        }
        TextField::UpstreamHostNameWithoutPort => &stream.host.as_ref()?.host.hostname,
        TextField::UpstreamCluster => &stream.cluster.as_ref()?.config.alt_stat_name,
        TextField::UpstreamClusterRaw => &stream.cluster.as_ref()?.config.name,
        TextField::RouteName => stream.route.as_ref()?.route().name(),
        TextField::FilterChainName => &connection.downstream.chain.config.name,
        TextField::ListenerName => connection.downstream.listener.compiled.name(),
        TextField::StreamId => {
            return stream.request.headers.known(KnownHeader::XRequestId);
        }
        TextField::RequestedServerName => {
            let info = &connection.downstream.info;
            info.requested_server_name.as_deref()?
        }
        TextField::AccessLogType => "DownstreamEnd",
        _ => return None,
    };
    (!text.is_empty()).then_some(text.as_bytes())
}

/// Both sides read through [`View`] and differ in which header list they edit.
macro_rules! editable {
    ($side:ident, $list:ident) => {
        impl<'a> $side<'a> {
            pub(super) fn new(
                connection: &'a ServerConnection,
                stream: &'a mut Stream,
                clock: &Clock,
            ) -> Self {
                let (start, now) = (clock.wall_of(stream.times.start), clock.wall());
                Self {
                    connection,
                    stream,
                    start,
                    now,
                }
            }

            const fn view(&self) -> View<'_> {
                View {
                    connection: self.connection,
                    stream: self.stream,
                    start: self.start,
                    now: self.now,
                }
            }
        }

        impl HeaderEdit for $side<'_> {
            fn contains(&self, name: &HeaderName) -> bool {
                self.stream.$list.contains(name)
            }

            fn remove(&mut self, name: &HeaderName) {
                self.stream.$list.remove(name);
            }

            fn remove_matching(&mut self, names: &CompiledString) {
                self.stream.$list.remove_matching(names);
            }

            fn append(&mut self, name: &HeaderName, value: &[u8]) {
                self.stream.$list.append(name, value);
            }

            fn set(&mut self, name: &HeaderName, value: &[u8]) {
                self.stream.$list.set(name, value);
            }
        }

        impl LogContext for $side<'_> {
            fn header(&self, map: HeaderMap, name: &HeaderName) -> Option<&[u8]> {
                match map {
                    HeaderMap::Request => self.stream.request.header_named(name),
                    HeaderMap::Response if name.known() == Some(WellKnown::Status) => None,
                    HeaderMap::Response => self.stream.response.headers.get(name.as_bytes()),
                    HeaderMap::ResponseTrailers => None,
                }
            }

            fn text(&self, field: TextField) -> Option<&[u8]> {
                text_of(self.connection, self.stream, field)
            }

            fn number(&self, field: NumberField) -> Option<u64> {
                self.view().number(field)
            }

            fn address(&self, field: AddressField) -> Option<SocketAddr> {
                self.view().address(field)
            }

            fn start_time(&self) -> SystemTime {
                self.start
            }

            fn now(&self) -> SystemTime {
                self.now
            }

            fn time_point(&self, point: TimePoint) -> Option<Duration> {
                self.view().time_point(point)
            }

            fn tls(&self, side: TlsSide) -> Option<&TlsInfo> {
                match side {
                    TlsSide::Downstream => self.connection.downstream.info.tls.as_deref(),
                    TlsSide::Upstream => self.stream.upstream_tls.as_deref(),
                }
            }

            fn response_flags(&self) -> ResponseFlags {
                self.stream.flags
            }

            fn request_random(&self) -> u64 {
                self.stream.random
            }

            fn dynamic_metadata(&self) -> Option<&DynamicMetadata> {
                Some(&self.stream.metadata)
            }
        }
    };
}

impl RequestSide<'_> {
    pub(super) fn path(&self) -> &[u8] {
        self.stream.request.path_bytes()
    }
}

editable!(RequestSide, request);
editable!(ResponseSide, response);

impl ServerConnection {
    /// A stream, to be read.
    pub(super) fn view<'a>(&'a self, stream: &'a Stream, core: &Core) -> View<'a> {
        View {
            connection: self,
            stream,
            start: core.clock.wall_of(stream.times.start),
            now: core.clock.wall(),
        }
    }

    /// Writes the access logs of a stream that is over.
    pub(super) fn write_logs(&self, stream: &Stream, core: &mut Core) {
        let hcm = Rc::clone(&self.hcm);
        let Some(compiled) = hcm.compiled() else {
            return;
        };
        if compiled.access_log.is_empty() {
            return;
        }
        let snapshot = std::sync::Arc::clone(&core.snapshot);
        let random = core.rng.next_u64();
        let view = self.view(stream, core);
        for log in compiled.access_log.iter() {
            core.log(log.path(), |out| {
                log.write(&view, snapshot.runtime(), random, out);
            });
        }
    }
}
