//! Format strings of access logs and header values: the parser, pure.
//!
//! `%OPERATOR(argument):LENGTH%` and `%%`, as Envoy's substitution formatter reads them. What an operator's value is, and how
//! it is printed, is not known here.

use std::fmt;

use crate::Name;

/// One piece of a format string, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum FormatItem {
    Literal(Name),
    Operator(FormatOperator),
}

/// An operator and its `:LENGTH`.
#[derive(Debug, Clone, PartialEq)]
pub struct FormatOperator {
    pub operator: Operator,
    pub max_length: Option<usize>,
}

/// What an operator stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Operator {
    /// `REQ`, `RESP`, `TRAILER`; names in lower case; the alternative is used when the main header is absent.
    Header {
        map: HeaderMap,
        main: Name,
        alternative: Option<Name>,
    },
    /// `START_TIME`, `EMIT_TIME` and their siblings.
    Time {
        which: TimeField,
        format: TimeFormat,
    },
    Text(TextField),
    Number(NumberField),
    Address(AddressField, AddressPart),
    /// From the start of the request to this point, in milliseconds.
    Duration(DurationField),
    /// `COMMON_DURATION(start:end:precision)`.
    CommonDuration {
        start: TimePoint,
        end: TimePoint,
        precision: Precision,
    },
    ResponseFlags {
        long: bool,
    },
    GrpcStatus(GrpcStatusFormat),
    /// The status as a number.
    GrpcStatusNumber,
    /// `ENVIRONMENT(NAME)`: read when the configuration is loaded.
    Environment(Name),
    /// Read when the configuration is loaded.
    Hostname,
    /// `QUERY_PARAM(name)`.
    QueryParam(Name),
    /// `QUERY_PARAMS`: the whole query, decoded or not.
    Path {
        query: PathQuery,
        source: PathSource,
    },
    /// Known to Envoy, and about something this proxy never has (TLS, dynamic metadata, filter state): always missing.
    Unavailable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderMap {
    Request,
    Response,
    ResponseTrailers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeField {
    Start,
    Emit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextField {
    Protocol,
    UpstreamProtocol,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    DownstreamTransportFailureReason,
    UpstreamHostName,
    UpstreamHostNameWithoutPort,
    /// The cluster's `alt_stat_name`.
    UpstreamCluster,
    /// The cluster's name.
    UpstreamClusterRaw,
    RouteName,
    VirtualHostName,
    VirtualClusterName,
    FilterChainName,
    ListenerName,
    RequestedServerName,
    StreamId,
    UniqueId,
    TraceId,
    SpanId,
    AccessLogType,
    LocalReplyBody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberField {
    ResponseCode,
    ConnectionId,
    UpstreamConnectionId,
    UpstreamRequestAttemptCount,
    BytesReceived,
    BytesSent,
    UpstreamWireBytesReceived,
    UpstreamWireBytesSent,
    UpstreamHeaderBytesReceived,
    UpstreamHeaderBytesSent,
    DownstreamWireBytesReceived,
    DownstreamWireBytesSent,
    DownstreamHeaderBytesReceived,
    DownstreamHeaderBytesSent,
    UpstreamDecompressedHeaderBytesReceived,
    UpstreamDecompressedHeaderBytesSent,
    DownstreamDecompressedHeaderBytesReceived,
    DownstreamDecompressedHeaderBytesSent,
    BytesRetransmitted,
    PacketsRetransmitted,
    RequestHeadersBytes,
    ResponseHeadersBytes,
    ResponseTrailersBytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressField {
    UpstreamHost,
    UpstreamLocal,
    UpstreamRemote,
    DownstreamLocal,
    DownstreamDirectLocal,
    DownstreamRemote,
    DownstreamDirectRemote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressPart {
    Whole,
    WithoutPort,
    Port,
}

/// Durations with an operator of their own, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurationField {
    /// Start of the request to its last byte sent downstream, or to now for a periodic line.
    Total,
    /// To the last byte of the request received.
    Request,
    /// To the last byte of the request sent upstream.
    RequestTx,
    /// To the first byte of the response received.
    Response,
    /// From the first byte of the response received to its last byte sent.
    ResponseTx,
    DownstreamHandshake,
    Roundtrip,
    UpstreamConnectionPoolReady,
}

/// Moments in a request's life, Envoy's names for `COMMON_DURATION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimePoint {
    DownstreamRxBegin,
    DownstreamRxEnd,
    UpstreamConnectBegin,
    UpstreamConnectEnd,
    UpstreamHandshakeEnd,
    UpstreamTxBegin,
    UpstreamTxEnd,
    UpstreamRxBegin,
    UpstreamRxBodyBegin,
    UpstreamRxEnd,
    DownstreamTxBegin,
    DownstreamTxEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcStatusFormat {
    CamelString,
    SnakeString,
    Number,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathQuery {
    With,
    Without,
    Only,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathSource {
    /// `:path` as it is now.
    Path,
    /// `x-envoy-original-path`.
    Original,
    /// The original path where there is one, else `:path`.
    OriginalOrPath,
}

/// A time's format, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeFormat {
    /// Empty: Envoy's default, `2018-04-16T21:55:30.123Z`.
    pub items: Vec<TimeItem>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeItem {
    Literal(Name),
    /// Four digits or more.
    Year,
    Year2,
    Century,
    Month,
    MonthName,
    MonthNameShort,
    Day,
    DaySpacePadded,
    DayOfYear,
    Hour,
    HourSpacePadded,
    Hour12,
    Minute,
    Second,
    AmPm,
    WeekdayName,
    WeekdayNameShort,
    /// 1 is Monday.
    Weekday1,
    /// 0 is Sunday.
    Weekday0,
    /// `%s`.
    EpochSeconds,
    /// The sub-second part in so many digits: `%f` is 9, `%3f` is 3.
    Subsecond(u8),
    /// `%E3S`, `%E*S`: seconds with a fraction; `None`: as many digits as needed.
    SecondFraction(Option<u8>),
    /// `%z`: `+0000`.
    ZoneOffset,
    /// `%Ez`: `+00:00`.
    ZoneOffsetColon,
    /// `%Z`: `UTC`.
    ZoneName,
}

/// A format string that Envoy would refuse, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatError {
    pub reason: String,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for FormatError {}

fn error(reason: String) -> FormatError {
    FormatError { reason }
}

/// Reads a format string.
pub fn parse(text: &str) -> Result<Vec<FormatItem>, FormatError> {
    let mut items = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('%') {
        let (before, after) = rest.split_at(start);
        literal.push_str(before);
        let body = after.strip_prefix('%').unwrap_or(after);
        if let Some(tail) = body.strip_prefix('%') {
            literal.push('%');
            rest = tail;
            continue;
        }
        let position = text.len() - after.len();
        let (command, tail) = split_command(body).ok_or_else(|| {
            error(format!(
                "Incorrect configuration: {text}. Couldn't find valid command at position {position}"
            ))
        })?;
        if !literal.is_empty() {
            items.push(FormatItem::Literal(Name::from(std::mem::take(
                &mut literal,
            ))));
        }
        items.push(FormatItem::Operator(command.resolve()?));
        rest = tail;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        items.push(FormatItem::Literal(Name::from(literal)));
    }
    Ok(items)
}

/// A command as written, before its meaning is known.
struct Command<'a> {
    name: &'a str,
    argument: Option<&'a str>,
    max_length: Option<usize>,
}

/// `NAME(argument):LENGTH%` at the start of `body`, and what follows it.
fn split_command(body: &str) -> Option<(Command<'_>, &str)> {
    let name_end = body
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .filter(|end| *end > 0)?;
    let (name, mut rest) = body.split_at(name_end);
    let mut argument = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let (found, tail) = inside.split_once(')')?;
        argument = Some(found);
        rest = tail;
    }
    let mut max_length = None;
    if let Some(digits) = rest.strip_prefix(':') {
        let end = digits.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = digits.split_at(end);
        max_length = Some(number.parse().ok()?);
        rest = tail;
    }
    let rest = rest.strip_prefix('%')?;
    Some((
        Command {
            name,
            argument,
            max_length,
        },
        rest,
    ))
}

impl Command<'_> {
    fn resolve(&self) -> Result<FormatOperator, FormatError> {
        Ok(FormatOperator {
            operator: self.operator()?,
            max_length: self.max_length,
        })
    }

    fn operator(&self) -> Result<Operator, FormatError> {
        match self.name {
            "REQ" => self.header(HeaderMap::Request),
            "RESP" => self.header(HeaderMap::Response),
            "TRAILER" => self.header(HeaderMap::ResponseTrailers),
            "START_TIME" => self.time(TimeField::Start),
            "EMIT_TIME" => self.time(TimeField::Emit),
            "ENVIRONMENT" => Ok(Operator::Environment(self.required()?)),
            "QUERY_PARAM" => Ok(Operator::QueryParam(self.required()?)),
            "COMMON_DURATION" => self.common_duration(),
            "GRPC_STATUS" => self.grpc_status(),
            "PATH" => self.path(),
            "DYNAMIC_METADATA"
            | "CLUSTER_METADATA"
            | "UPSTREAM_METADATA"
            | "FILTER_STATE"
            | "UPSTREAM_FILTER_STATE"
            | "METADATA" => {
                self.required()?;
                Ok(Operator::Unavailable)
            }
            "DOWNSTREAM_PEER_CERT_V_START"
            | "DOWNSTREAM_PEER_CERT_V_END"
            | "UPSTREAM_PEER_CERT_V_START"
            | "UPSTREAM_PEER_CERT_V_END" => Ok(Operator::Unavailable),
            _ => {
                let Some(operator) = plain(self.name) else {
                    return Err(error(format!(
                        "Not supported field in StreamInfo: {}",
                        self.name
                    )));
                };
                self.forbid_argument()?;
                Ok(operator)
            }
        }
    }

    fn required(&self) -> Result<Name, FormatError> {
        match self.argument {
            Some(argument) if !argument.is_empty() => Ok(Name::from(argument)),
            _ => Err(error(format!("{} requires parameters", self.name))),
        }
    }

    fn forbid_argument(&self) -> Result<(), FormatError> {
        match self.argument {
            None => Ok(()),
            Some("") => Err(error(format!(
                "{} does not take any parameters, drop the ()",
                self.name
            ))),
            Some(argument) => Err(error(format!(
                "{} does not take any parameters, found {argument}",
                self.name
            ))),
        }
    }

    /// `X`, `X?Y` or `?Y`.
    fn header(&self, map: HeaderMap) -> Result<Operator, FormatError> {
        let argument = self.required()?;
        if argument.contains(['\0', '\r', '\n']) {
            return Err(error(
                "Invalid header configuration. Format string contains null or newline.".to_owned(),
            ));
        }
        let mut parts = argument.split('?');
        let main = parts.next().unwrap_or("");
        let alternative = parts.next();
        if parts.next().is_some() {
            return Err(error(format!(
                "More than 1 alternative header specified in token: {argument}"
            )));
        }
        Ok(Operator::Header {
            map,
            main: Name::from(main.to_ascii_lowercase()),
            alternative: alternative
                .filter(|name| !name.is_empty())
                .map(|name| Name::from(name.to_ascii_lowercase())),
        })
    }

    fn time(&self, which: TimeField) -> Result<Operator, FormatError> {
        Ok(Operator::Time {
            which,
            format: parse_time_format(self.argument.unwrap_or(""))?,
        })
    }

    fn common_duration(&self) -> Result<Operator, FormatError> {
        let argument = self.required()?;
        let parts: Vec<&str> = argument.split(':').collect();
        let invalid = || {
            error(format!(
                "Invalid common duration configuration: {argument}."
            ))
        };
        let [start, end, precision] = parts.as_slice() else {
            return Err(invalid());
        };
        Ok(Operator::CommonDuration {
            start: time_point(start).ok_or_else(invalid)?,
            end: time_point(end).ok_or_else(invalid)?,
            precision: match *precision {
                "ms" => Precision::Milliseconds,
                "us" => Precision::Microseconds,
                "ns" => Precision::Nanoseconds,
                other => {
                    return Err(error(format!(
                        "Invalid common duration precision: {other}."
                    )));
                }
            },
        })
    }

    fn grpc_status(&self) -> Result<Operator, FormatError> {
        Ok(Operator::GrpcStatus(match self.argument.unwrap_or("") {
            "" | "CAMEL_STRING" => GrpcStatusFormat::CamelString,
            "SNAKE_STRING" => GrpcStatusFormat::SnakeString,
            "NUMBER" => GrpcStatusFormat::Number,
            _ => {
                return Err(error(
                    "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER."
                        .to_owned(),
                ));
            }
        }))
    }

    /// `PATH(WQ|NQ:ORIG|PATH|ORIG_OR_PATH)`.
    fn path(&self) -> Result<Operator, FormatError> {
        let argument = self.argument.unwrap_or("");
        let mut parts = argument.split(':');
        let query = match parts.next().unwrap_or("") {
            "" | "WQ" => PathQuery::With,
            "NQ" => PathQuery::Without,
            other => {
                return Err(error(format!(
                    "Invalid PATH option: '{other}', only 'WQ'/'NQ' are allowed"
                )));
            }
        };
        let source = match parts.next().unwrap_or("") {
            "" | "ORIG_OR_PATH" => PathSource::OriginalOrPath,
            "ORIG" => PathSource::Original,
            "PATH" => PathSource::Path,
            other => {
                return Err(error(format!(
                    "Invalid PATH option: '{other}', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed"
                )));
            }
        };
        Ok(Operator::Path { query, source })
    }
}

fn time_point(name: &str) -> Option<TimePoint> {
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
fn plain(name: &str) -> Option<Operator> {
    use AddressField as A;
    use AddressPart as P;
    use DurationField as D;
    use NumberField as N;
    use TextField as T;

    Some(match name {
        "PROTOCOL" => Operator::Text(T::Protocol),
        "UPSTREAM_PROTOCOL" => Operator::Text(T::UpstreamProtocol),
        "RESPONSE_CODE_DETAILS" => Operator::Text(T::ResponseCodeDetails),
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
        "VIRTUAL_HOST_NAME" => Operator::Text(T::VirtualHostName),
        "VIRTUAL_CLUSTER_NAME" => Operator::Text(T::VirtualClusterName),
        "FILTER_CHAIN_NAME" => Operator::Text(T::FilterChainName),
        "LISTENER_NAME" => Operator::Text(T::ListenerName),
        "REQUESTED_SERVER_NAME" => Operator::Text(T::RequestedServerName),
        "STREAM_ID" => Operator::Text(T::StreamId),
        "UNIQUE_ID" => Operator::Text(T::UniqueId),
        "TRACE_ID" => Operator::Text(T::TraceId),
        "SPAN_ID" => Operator::Text(T::SpanId),
        "ACCESS_LOG_TYPE" => Operator::Text(T::AccessLogType),
        "LOCAL_REPLY_BODY" => Operator::Text(T::LocalReplyBody),
        "RESPONSE_CODE" => Operator::Number(N::ResponseCode),
        "CONNECTION_ID" => Operator::Number(N::ConnectionId),
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
        "BYTES_RETRANSMITTED" => Operator::Number(N::BytesRetransmitted),
        "PACKETS_RETRANSMITTED" => Operator::Number(N::PacketsRetransmitted),
        "REQUEST_HEADERS_BYTES" => Operator::Number(N::RequestHeadersBytes),
        "RESPONSE_HEADERS_BYTES" => Operator::Number(N::ResponseHeadersBytes),
        "RESPONSE_TRAILERS_BYTES" => Operator::Number(N::ResponseTrailersBytes),
        "UPSTREAM_HOST" => Operator::Address(A::UpstreamHost, P::Whole),
        "UPSTREAM_LOCAL_ADDRESS" => Operator::Address(A::UpstreamLocal, P::Whole),
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => {
            Operator::Address(A::UpstreamLocal, P::WithoutPort)
        }
        "UPSTREAM_LOCAL_PORT" => Operator::Address(A::UpstreamLocal, P::Port),
        "UPSTREAM_REMOTE_ADDRESS" => Operator::Address(A::UpstreamRemote, P::Whole),
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => {
            Operator::Address(A::UpstreamRemote, P::WithoutPort)
        }
        "UPSTREAM_REMOTE_PORT" => Operator::Address(A::UpstreamRemote, P::Port),
        "DOWNSTREAM_LOCAL_ADDRESS" => Operator::Address(A::DownstreamLocal, P::Whole),
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => {
            Operator::Address(A::DownstreamLocal, P::WithoutPort)
        }
        "DOWNSTREAM_LOCAL_PORT" => Operator::Address(A::DownstreamLocal, P::Port),
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" => Operator::Address(A::DownstreamDirectLocal, P::Whole),
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" => {
            Operator::Address(A::DownstreamDirectLocal, P::WithoutPort)
        }
        "DOWNSTREAM_DIRECT_LOCAL_PORT" => Operator::Address(A::DownstreamDirectLocal, P::Port),
        "DOWNSTREAM_REMOTE_ADDRESS" => Operator::Address(A::DownstreamRemote, P::Whole),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => {
            Operator::Address(A::DownstreamRemote, P::WithoutPort)
        }
        "DOWNSTREAM_REMOTE_PORT" => Operator::Address(A::DownstreamRemote, P::Port),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => {
            Operator::Address(A::DownstreamDirectRemote, P::Whole)
        }
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            Operator::Address(A::DownstreamDirectRemote, P::WithoutPort)
        }
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => Operator::Address(A::DownstreamDirectRemote, P::Port),
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
        "QUERY_PARAMS" => Operator::Path {
            query: PathQuery::Only,
            source: PathSource::Path,
        },
        _ if UNAVAILABLE.contains(&name) => Operator::Unavailable,
        _ => return None,
    })
}

/// Operators of Envoy about things this proxy does not have yet: they are accepted and print as missing.
const UNAVAILABLE: &[&str] = &[
    "CUSTOM_FLAGS",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_EMAIL_SAN",
    "DOWNSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    "DOWNSTREAM_PEER_CHAIN_SERIALS",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_EMAIL_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_OTHERNAME_SAN",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_VERSION",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "UPSTREAM_LOCAL_DNS_SAN",
    "UPSTREAM_LOCAL_SUBJECT",
    "UPSTREAM_LOCAL_URI_SAN",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_PEER_DNS_SAN",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_SESSION_ID",
    "UPSTREAM_TLS_VERSION",
];

/// Reads a time format; empty is Envoy's default.
pub fn parse_time_format(text: &str) -> Result<TimeFormat, FormatError> {
    let mut items = Vec::new();
    let mut literal = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            literal.push(c);
            continue;
        }
        let Some(directive) = chars.next() else {
            literal.push('%');
            break;
        };
        let mut push = |item: TimeItem| {
            if !literal.is_empty() {
                items.push(TimeItem::Literal(Name::from(std::mem::take(&mut literal))));
            }
            items.push(item);
        };
        match directive {
            'Y' => push(TimeItem::Year),
            'y' => push(TimeItem::Year2),
            'C' => push(TimeItem::Century),
            'm' => push(TimeItem::Month),
            'B' => push(TimeItem::MonthName),
            'b' | 'h' => push(TimeItem::MonthNameShort),
            'd' => push(TimeItem::Day),
            'e' => push(TimeItem::DaySpacePadded),
            'j' => push(TimeItem::DayOfYear),
            'H' => push(TimeItem::Hour),
            'k' => push(TimeItem::HourSpacePadded),
            'I' => push(TimeItem::Hour12),
            'M' => push(TimeItem::Minute),
            'S' => push(TimeItem::Second),
            'p' => push(TimeItem::AmPm),
            'A' => push(TimeItem::WeekdayName),
            'a' => push(TimeItem::WeekdayNameShort),
            'u' => push(TimeItem::Weekday1),
            'w' => push(TimeItem::Weekday0),
            's' => push(TimeItem::EpochSeconds),
            'f' => push(TimeItem::Subsecond(9)),
            'z' => push(TimeItem::ZoneOffset),
            'Z' => push(TimeItem::ZoneName),
            '1'..='9' if chars.peek() == Some(&'f') => {
                chars.next();
                push(TimeItem::Subsecond(directive as u8 - b'0'));
            }
            'E' => match extended(&mut chars) {
                Some(item) => push(item),
                None => literal.push_str("%E"),
            },
            'T' => {
                push(TimeItem::Hour);
                items.push(TimeItem::Literal(Name::from(":")));
                items.push(TimeItem::Minute);
                items.push(TimeItem::Literal(Name::from(":")));
                items.push(TimeItem::Second);
            }
            'R' => {
                push(TimeItem::Hour);
                items.push(TimeItem::Literal(Name::from(":")));
                items.push(TimeItem::Minute);
            }
            'F' => {
                push(TimeItem::Year);
                items.push(TimeItem::Literal(Name::from("-")));
                items.push(TimeItem::Month);
                items.push(TimeItem::Literal(Name::from("-")));
                items.push(TimeItem::Day);
            }
            'D' => {
                push(TimeItem::Month);
                items.push(TimeItem::Literal(Name::from("/")));
                items.push(TimeItem::Day);
                items.push(TimeItem::Literal(Name::from("/")));
                items.push(TimeItem::Year2);
            }
            'n' => literal.push('\n'),
            't' => literal.push('\t'),
            '%' => literal.push('%'),
            other => {
                literal.push('%');
                literal.push(other);
            }
        }
    }
    if !literal.is_empty() {
        items.push(TimeItem::Literal(Name::from(literal)));
    }
    if items
        .iter()
        .any(|item| matches!(item, TimeItem::Literal(text) if text.contains(['\n', '\r'])))
    {
        return Err(error(
            "Invalid header configuration. Format string contains newline.".to_owned(),
        ));
    }
    Ok(TimeFormat { items })
}

/// What follows `%E`: `z`, `*z`, `S` with digits, `f` with digits, `Y`.
fn extended(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<TimeItem> {
    let mut ahead = chars.clone();
    let item = match (ahead.next()?, ahead.next()) {
        ('z', _) => {
            chars.next();
            return Some(TimeItem::ZoneOffsetColon);
        }
        ('*', Some('z')) => TimeItem::ZoneOffsetColon,
        ('*', Some('S')) => TimeItem::SecondFraction(None),
        ('*', Some('f')) => TimeItem::Subsecond(9),
        ('4', Some('Y')) => TimeItem::Year,
        (digit @ '0'..='9', Some('S')) => TimeItem::SecondFraction(Some(digit as u8 - b'0')),
        (digit @ '1'..='9', Some('f')) => TimeItem::Subsecond(digit as u8 - b'0'),
        _ => return None,
    };
    chars.next();
    chars.next();
    Some(item)
}

#[cfg(test)]
mod tests;
