//! The names of operators, as Envoy 1.40 has them.

use super::{
    AddressField, AddressPart, DurationField, NumberField, Operator, TextField, TimePoint,
    TlsField, TlsSide,
};

/// Operators of Envoy that print something real there and that this version cannot evaluate: refused by name.
pub(super) const NOT_YET: &[&str] = &[
    "CEL",
    "CLUSTER_METADATA",
    "COALESCE",
    "DOWNSTREAM_DETECTED_CLOSE_TYPE",
    "DOWNSTREAM_LOCAL_CLOSE_REASON",
    "EMIT_TIME_LOCAL",
    "METADATA",
    "ROUTE_RESOLUTION_COUNT",
    "ROUTE_RESOLUTION_TIME_US",
    "START_TIME_LOCAL",
    "TYPED_CEL",
    "UPSTREAM_DETECTED_CLOSE_TYPE",
    "UPSTREAM_LOCAL_CLOSE_REASON",
    "UPSTREAM_METADATA",
];

pub(super) fn time_point(name: &str) -> Option<TimePoint> {
    Some(match name {
        "DS_RX_BEG" => TimePoint::DownstreamRxBegin,
        "DS_RX_END" => TimePoint::DownstreamRxEnd,
        "US_CX_BEG" => TimePoint::UpstreamConnectBegin,
        "US_CX_END" => TimePoint::UpstreamConnectEnd,
        "US_HS_END" => TimePoint::UpstreamHandshakeEnd,
        "US_TX_BEG" => TimePoint::UpstreamTxBegin,
        "US_TX_END" => TimePoint::UpstreamTxEnd,
        "US_RX_BEG" => TimePoint::UpstreamRxBegin,
        "US_RX_BODY_BEG" => TimePoint::UpstreamRxBodyBegin,
        "US_RX_END" => TimePoint::UpstreamRxEnd,
        "DS_TX_BEG" => TimePoint::DownstreamTxBegin,
        "DS_TX_END" => TimePoint::DownstreamTxEnd,
        _ => return None,
    })
}

/// Operators without an argument.
pub(super) fn plain(name: &str) -> Option<Operator> {
    use AddressField as A;
    use AddressPart as P;
    use DurationField as D;
    use NumberField as N;
    use TextField as T;

    Some(match name {
        "PROTOCOL" => Operator::Text(T::Protocol),
        "UPSTREAM_PROTOCOL" => Operator::Text(T::UpstreamProtocol),
        "CONNECTION_TERMINATION_DETAILS" => Operator::Text(T::ConnectionTerminationDetails),
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::Text(T::UpstreamTransportFailureReason),
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON" => {
            Operator::Text(T::DownstreamTransportFailureReason)
        }
        "UPSTREAM_HOST_NAME" => Operator::Text(T::UpstreamHostName),
        "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Operator::Text(T::UpstreamHostNameWithoutPort),
        "UPSTREAM_CLUSTER" => Operator::Text(T::UpstreamCluster),
        "UPSTREAM_CLUSTER_RAW" => Operator::Text(T::UpstreamClusterRaw),
        "ROUTE_NAME" => Operator::Text(T::RouteName),
        "VIRTUAL_CLUSTER_NAME" => Operator::Text(T::VirtualClusterName),
        "FILTER_CHAIN_NAME" => Operator::Text(T::FilterChainName),
        "LISTENER_NAME" => Operator::Text(T::ListenerName),
        "STREAM_ID" => Operator::Text(T::StreamId),
        "UNIQUE_ID" => Operator::Text(T::UniqueId),
        "TRACE_ID" => Operator::Text(T::TraceId),
        "SPAN_ID" => Operator::Text(T::SpanId),
        "ACCESS_LOG_TYPE" => Operator::Text(T::AccessLogType),
        "LOCAL_REPLY_BODY" => Operator::Text(T::LocalReplyBody),
        "RESPONSE_CODE" => Operator::Number(N::ResponseCode),
        "CONNECTION_ID" => Operator::Number(N::ConnectionId),
        // Without retries there is one; with none Envoy prints nothing, not 0.
        "UPSTREAM_CONNECTION_IDS_ATTEMPTED" => Operator::UpstreamConnectionIdsAttempted,
        "UPSTREAM_CONNECTION_ID" => Operator::Number(N::UpstreamConnectionId),
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Operator::Number(N::UpstreamRequestAttemptCount),
        "BYTES_RECEIVED" => Operator::Number(N::BytesReceived),
        "BYTES_SENT" => Operator::Number(N::BytesSent),
        "UPSTREAM_WIRE_BYTES_RECEIVED" => Operator::Number(N::UpstreamWireBytesReceived),
        "UPSTREAM_WIRE_BYTES_SENT" => Operator::Number(N::UpstreamWireBytesSent),
        "UPSTREAM_HEADER_BYTES_RECEIVED" => Operator::Number(N::UpstreamHeaderBytesReceived),
        "UPSTREAM_HEADER_BYTES_SENT" => Operator::Number(N::UpstreamHeaderBytesSent),
        "DOWNSTREAM_WIRE_BYTES_RECEIVED" => Operator::Number(N::DownstreamWireBytesReceived),
        "DOWNSTREAM_WIRE_BYTES_SENT" => Operator::Number(N::DownstreamWireBytesSent),
        "DOWNSTREAM_HEADER_BYTES_RECEIVED" => Operator::Number(N::DownstreamHeaderBytesReceived),
        "DOWNSTREAM_HEADER_BYTES_SENT" => Operator::Number(N::DownstreamHeaderBytesSent),
        "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED" => {
            Operator::Number(N::UpstreamDecompressedHeaderBytesReceived)
        }
        "UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT" => {
            Operator::Number(N::UpstreamDecompressedHeaderBytesSent)
        }
        "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED" => {
            Operator::Number(N::DownstreamDecompressedHeaderBytesReceived)
        }
        "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT" => {
            Operator::Number(N::DownstreamDecompressedHeaderBytesSent)
        }
        "REQUEST_HEADERS_BYTES" => Operator::Number(N::RequestHeadersBytes),
        "RESPONSE_HEADERS_BYTES" => Operator::Number(N::ResponseHeadersBytes),
        "RESPONSE_TRAILERS_BYTES" => Operator::Number(N::ResponseTrailersBytes),
        "UPSTREAM_HOST" => Operator::Address(A::UpstreamHost, P::Whole),
        "DURATION" => Operator::Duration(D::Total),
        "REQUEST_DURATION" => Operator::Duration(D::Request),
        "REQUEST_TX_DURATION" => Operator::Duration(D::RequestTx),
        "RESPONSE_DURATION" => Operator::Duration(D::Response),
        "RESPONSE_TX_DURATION" => Operator::Duration(D::ResponseTx),
        "DOWNSTREAM_HANDSHAKE_DURATION" => Operator::Duration(D::DownstreamHandshake),
        "ROUNDTRIP_DURATION" => Operator::Duration(D::Roundtrip),
        "UPSTREAM_CONNECTION_POOL_READY_DURATION" => {
            Operator::Duration(D::UpstreamConnectionPoolReady)
        }
        "RESPONSE_FLAGS" => Operator::ResponseFlags { long: false },
        "RESPONSE_FLAGS_LONG" => Operator::ResponseFlags { long: true },
        "GRPC_STATUS_NUMBER" => Operator::GrpcStatusNumber,
        "HOSTNAME" => Operator::Hostname,
        "BYTES_RETRANSMITTED" | "PACKETS_RETRANSMITTED" | "DOWNSTREAM_CX_RTT" => {
            Operator::FixedNumber(0)
        }
        "CUSTOM_FLAGS"
        | "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID"
        | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID" => Operator::FixedText(""),
        // Without retries, the hosts attempted are the host.
        "UPSTREAM_HOSTS_ATTEMPTED" => Operator::Address(A::UpstreamHost, P::Whole),
        "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT" => {
            Operator::Address(A::UpstreamHost, P::WithoutPort)
        }
        "UPSTREAM_HOST_NAMES_ATTEMPTED" => Operator::Text(T::UpstreamHostName),
        "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT" => {
            Operator::Text(T::UpstreamHostNameWithoutPort)
        }
        _ if let Some((side, field)) = tls(name) => Operator::Tls(side, field),
        _ if UNAVAILABLE.contains(&name) => Operator::Unavailable,
        _ => {
            let (stem, part) = match (name.strip_suffix("_ADDRESS"), name.strip_suffix("_PORT")) {
                (Some(stem), _) => (stem, P::Whole),
                (None, Some(stem)) => (stem, P::Port),
                (None, None) => return None,
            };
            Operator::Address(address(stem)?, part)
        }
    })
}

/// What comes before `_ADDRESS`, `_PORT` and `_ADDRESS_WITHOUT_PORT`.
pub(super) fn address(stem: &str) -> Option<AddressField> {
    Some(match stem {
        "UPSTREAM_LOCAL" => AddressField::UpstreamLocal,
        "UPSTREAM_REMOTE" => AddressField::UpstreamRemote,
        "DOWNSTREAM_LOCAL" => AddressField::DownstreamLocal,
        "DOWNSTREAM_DIRECT_LOCAL" => AddressField::DownstreamDirectLocal,
        "DOWNSTREAM_REMOTE" => AddressField::DownstreamRemote,
        "DOWNSTREAM_DIRECT_REMOTE" => AddressField::DownstreamDirectRemote,
        _ => return None,
    })
}

/// Operators about TLS; upstream there are fewer.
fn tls(name: &str) -> Option<(TlsSide, TlsField)> {
    use TlsField as F;

    if name == "UPSTREAM_SERVER_NAME" {
        return Some((TlsSide::Upstream, F::ServerName));
    }
    let (side, what) = match name.strip_prefix("DOWNSTREAM_") {
        Some(what) => (TlsSide::Downstream, what),
        None => (TlsSide::Upstream, name.strip_prefix("UPSTREAM_")?),
    };
    let is_downstream = side == TlsSide::Downstream;
    let field = match what {
        "TLS_VERSION" => F::Version,
        "TLS_CIPHER" => F::Cipher,
        "TLS_GROUP" => F::Group,
        "PEER_URI_SAN" => F::PeerUriSan,
        "PEER_DNS_SAN" => F::PeerDnsSan,
        "PEER_IP_SAN" => F::PeerIpSan,
        "LOCAL_URI_SAN" => F::LocalUriSan,
        "LOCAL_DNS_SAN" => F::LocalDnsSan,
        "LOCAL_IP_SAN" => F::LocalIpSan,
        "PEER_SUBJECT" => F::PeerSubject,
        "PEER_ISSUER" => F::PeerIssuer,
        "PEER_CERT" => F::PeerCert,
        "PEER_EMAIL_SAN" if is_downstream => F::PeerEmailSan,
        "PEER_OTHERNAME_SAN" if is_downstream => F::PeerOthernameSan,
        "LOCAL_EMAIL_SAN" if is_downstream => F::LocalEmailSan,
        "LOCAL_OTHERNAME_SAN" if is_downstream => F::LocalOthernameSan,
        "LOCAL_SUBJECT" if is_downstream => F::LocalSubject,
        "PEER_SERIAL" if is_downstream => F::PeerSerial,
        "PEER_FINGERPRINT_256" if is_downstream => F::PeerFingerprint256,
        "PEER_FINGERPRINT_1" if is_downstream => F::PeerFingerprint1,
        _ => return None,
    };
    Some((side, field))
}

/// Operators of Envoy about things this proxy does not have yet: they are accepted and print as missing.
const UNAVAILABLE: &[&str] = &[
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    "DOWNSTREAM_PEER_CHAIN_SERIALS",
    "DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_ISSUER_SERIAL",
    "DOWNSTREAM_TLS_SESSION_ID",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID",
    "UPSTREAM_TLS_SESSION_ID",
];
