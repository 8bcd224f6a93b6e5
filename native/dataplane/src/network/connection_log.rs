//! What an access log can ask about a connection that carries no HTTP: the TCP proxy's, and one that no filter chain took.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tidegate_model::Name;
use tidegate_snapshot::log_context::{
    AddressField, HeaderMap, LogContext, NumberField, TextField, TimePoint,
};
use tidegate_snapshot::{AccessLogs, HeaderName, ResponseFlags};

use crate::accept::ConnectionInfo;
use crate::cluster::ClusterRuntime;
use crate::istio::Told;
use crate::listener::ListenerRuntime;
use crate::worker::Core;

/// The facts of one connection when its log line is written.
pub(crate) struct ConnectionLog<'a> {
    pub(crate) listener: &'a Rc<ListenerRuntime>,
    pub(crate) info: &'a ConnectionInfo,
    start: SystemTime,
    now: SystemTime,
    pub(crate) flags: ResponseFlags,
    pub(crate) details: Option<&'static str>,
    pub(crate) termination_details: Option<&'a Name>,
    /// `%ACCESS_LOG_TYPE%`.
    pub(crate) access_log_type: &'static str,
    pub(crate) filter_chain: Option<&'a Name>,
    /// `%PROTOCOL%`, where it was HTTP.
    pub(crate) protocol: Option<&'static str>,
    pub(crate) upstream: Option<UpstreamLog<'a>>,
    pub(crate) attempts: u32,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) upstream_bytes_received: u64,
    pub(crate) upstream_bytes_sent: u64,
}

/// The upstream side.
pub(crate) struct UpstreamLog<'a> {
    pub(crate) config: &'a Rc<ClusterRuntime>,
    /// The host's `istio.workload`.
    pub(crate) workload: Option<&'a Name>,
    /// Who the host's proxy is; `None`: it is not asked.
    pub(crate) peer: Option<&'a Told>,
    pub(crate) cluster: &'a Name,
    pub(crate) cluster_alt_stat_name: &'a Name,
    /// `None`: no host was chosen.
    pub(crate) host: Option<(&'a Name, Option<SocketAddr>)>,
    pub(crate) local: Option<SocketAddr>,
    /// 0: there is no connection.
    pub(crate) connection_id: u64,
    pub(crate) is_connected: bool,
    pub(crate) failure_reason: Option<&'a str>,
}

impl<'a> ConnectionLog<'a> {
    pub(crate) fn new(
        core: &Core,
        listener: &'a Rc<ListenerRuntime>,
        info: &'a ConnectionInfo,
    ) -> Self {
        Self {
            listener,
            info,
            start: core.clock.wall_of(info.accepted_at),
            now: core.clock.wall(),
            flags: ResponseFlags::NONE,
            details: None,
            termination_details: None,
            access_log_type: "NotSet",
            filter_chain: None,
            protocol: None,
            upstream: None,
            attempts: 0,
            bytes_received: 0,
            bytes_sent: 0,
            upstream_bytes_received: 0,
            upstream_bytes_sent: 0,
        }
    }
}

impl LogContext for ConnectionLog<'_> {
    fn header(&self, _: HeaderMap, _: &HeaderName) -> Option<&[u8]> {
        None
    }

    fn text(&self, field: TextField) -> Option<&[u8]> {
        let upstream = self.upstream.as_ref();
        let text: &str = match field {
            TextField::Protocol => self.protocol?,
            TextField::ResponseCodeDetails => self.details?,
            TextField::UpstreamTransportFailureReason => upstream?.failure_reason?,
            TextField::ConnectionTerminationDetails => self.termination_details?,
            TextField::RequestedServerName => self.info.requested_server_name.as_ref()?,
            TextField::UpstreamHostName => upstream?.host?.0,
            TextField::UpstreamCluster => upstream?.cluster_alt_stat_name,
            TextField::UpstreamClusterRaw => upstream?.cluster,
            TextField::FilterChainName => self.filter_chain?,
            TextField::ListenerName => self.listener.compiled.name(),
            TextField::AccessLogType => self.access_log_type,
            _ => return None,
        };
        (!text.is_empty()).then_some(text.as_bytes())
    }

    fn number(&self, field: NumberField) -> Option<u64> {
        Some(match field {
            NumberField::ResponseCode => 0,
            NumberField::ConnectionId => self.info.id,
            NumberField::UpstreamConnectionId => {
                self.upstream.as_ref().map_or(0, |up| up.connection_id)
            }
            NumberField::UpstreamRequestAttemptCount => u64::from(self.attempts),
            NumberField::BytesReceived | NumberField::DownstreamWireBytesReceived => {
                self.bytes_received
            }
            NumberField::BytesSent | NumberField::DownstreamWireBytesSent => self.bytes_sent,
            NumberField::UpstreamWireBytesReceived => self.upstream_bytes_received,
            NumberField::UpstreamWireBytesSent => self.upstream_bytes_sent,
            _ => 0,
        })
    }

    fn address(&self, field: AddressField) -> Option<SocketAddr> {
        let upstream = self.upstream.as_ref();
        match field {
            AddressField::UpstreamHost => upstream?.host?.1,
            AddressField::UpstreamRemote => upstream.filter(|up| up.is_connected)?.host?.1,
            AddressField::UpstreamLocal => upstream.filter(|up| up.is_connected)?.local,
            AddressField::DownstreamLocal => Some(self.info.local),
            AddressField::DownstreamDirectLocal => Some(self.info.direct_local),
            AddressField::DownstreamRemote | AddressField::DownstreamDirectRemote => {
                Some(self.info.remote)
            }
        }
    }

    fn start_time(&self) -> SystemTime {
        self.start
    }

    fn now(&self) -> SystemTime {
        self.now
    }

    fn time_point(&self, point: TimePoint) -> Option<Duration> {
        match point {
            TimePoint::DownstreamTxEnd => self.now.duration_since(self.start).ok(),
            _ => None,
        }
    }

    fn response_flags(&self) -> ResponseFlags {
        self.flags
    }
}

/// Writes the line to every log whose filter lets it pass.
pub(crate) fn write(core: &mut Core, logs: &AccessLogs, line: &ConnectionLog<'_>) {
    for log in logs.iter() {
        let random = core.rng.next_u64();
        let snapshot = std::sync::Arc::clone(&core.snapshot);
        core.log(log.path(), |out| {
            log.write(line, snapshot.runtime(), random, out);
        });
    }
}
