//! Format strings of access logs and header values: the parser, pure.
//!
//! `%OPERATOR(argument):LENGTH%` and `%%`, as Envoy's substitution formatter reads them. What an operator's value is, and how
//! it is printed, is not known here.

mod operators;
mod time;

use std::fmt;

use self::operators::{NOT_YET, address, plain, time_point};
pub use self::time::parse_time_format;
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
    /// `QUERY_PARAM(name)`: its first value, decoded.
    QueryParam(Name),
    /// `QUERY_PARAMS`: the whole query.
    QueryParams {
        decoded: bool,
    },
    /// `PATH(WQ|NQ:ORIG|PATH|ORIG_OR_PATH)`.
    Path {
        with_query: bool,
        source: PathSource,
    },
    /// `RESPONSE_CODE_DETAILS`: white space becomes `_` unless allowed.
    ResponseCodeDetails {
        allow_whitespaces: bool,
    },
    UpstreamConnectionIdsAttempted,
    /// `FILTER_STATE(envoy.filters.http.grpc_stats)`: how many messages a gRPC call has had, both ways.
    GrpcMessageCounts(MessageCountsFormat),
    /// A value that is always the same here, as text.
    FixedText(&'static str),
    /// A value that is always the same here, as a number.
    FixedNumber(u64),
    /// Known to Envoy, and about something this proxy never has (TLS, dynamic metadata, filter state): always missing.
    Unavailable,
    /// A value that filters have told of the request; without a path all of a namespace, as JSON.
    DynamicMetadata {
        filter: Name,
        path: Vec<Name>,
    },
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
    /// `_WITHOUT_PORT(16)`: the network of so many bits, `10.1.0.0/16`.
    Network(u8),
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
pub enum MessageCountsFormat {
    /// JSON, Envoy's default.
    Typed,
    /// `1,2`
    Plain,
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
    /// `%U`: weeks begin on Sunday.
    WeekOfYearSunday,
    /// `%W`: weeks begin on Monday.
    WeekOfYearMonday,
    /// `%V`, ISO 8601.
    IsoWeek,
    /// `%G`, the year that the ISO week belongs to.
    IsoYear,
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
            "REQ" | "REQUEST_HEADER" | "STREAM_INFO_REQ" => self.header(HeaderMap::Request),
            "RESP" | "RESPONSE_HEADER" => self.header(HeaderMap::Response),
            "TRAILER" | "RESPONSE_TRAILER" => self.header(HeaderMap::ResponseTrailers),
            "ENVIRONMENT" => Ok(Operator::Environment(self.required()?)),
            "QUERY_PARAM" => Ok(Operator::QueryParam(self.required()?)),
            "QUERY_PARAMS" => self.query_params(),
            "PATH" => self.path(),
            "FILTER_STATE" => self.filter_state(),
            "DYNAMIC_METADATA" => {
                let path = self.required()?;
                let mut keys = path.split(':').map(Name::from);
                Ok(Operator::DynamicMetadata {
                    filter: keys.next().unwrap_or_default(),
                    path: keys.collect(),
                })
            }
            "UPSTREAM_FILTER_STATE" => {
                self.required()?;
                Ok(Operator::Unavailable)
            }
            "START_TIME" => self.without_length()?.time(TimeField::Start),
            "EMIT_TIME" => self.without_length()?.time(TimeField::Emit),
            "COMMON_DURATION" => self.without_length()?.common_duration(),
            "GRPC_STATUS" => self.without_length()?.grpc_status(),
            "REQUESTED_SERVER_NAME" => self.without_length()?.requested_server_name(),
            "RESPONSE_CODE_DETAILS" => {
                self.without_length()?;
                Ok(Operator::ResponseCodeDetails {
                    allow_whitespaces: self.argument == Some("ALLOW_WHITESPACES"),
                })
            }
            "DOWNSTREAM_PEER_CERT_V_START"
            | "DOWNSTREAM_PEER_CERT_V_END"
            | "UPSTREAM_PEER_CERT_V_START"
            | "UPSTREAM_PEER_CERT_V_END" => {
                self.without_length()?;
                Ok(Operator::Unavailable)
            }
            name if NOT_YET.contains(&name) => Err(error(format!(
                "%{name}% is an operator of Envoy that this version does not have yet"
            ))),
            name => match name.strip_suffix("_ADDRESS_WITHOUT_PORT").and_then(address) {
                Some(field) => {
                    self.without_length()?;
                    let bits = self.argument.and_then(|bits| bits.parse::<u8>().ok());
                    let part = bits.map_or(AddressPart::WithoutPort, AddressPart::Network);
                    Ok(Operator::Address(field, part))
                }
                None => self.plain(),
            },
        }
    }

    fn plain(&self) -> Result<Operator, FormatError> {
        let Some(operator) = plain(self.name) else {
            return Err(error(format!(
                "Not supported field in StreamInfo: {}",
                self.name
            )));
        };
        if self.argument.is_some_and(|argument| !argument.is_empty()) || self.max_length.is_some() {
            return Err(error(format!(
                "{} does not take any parameters or length",
                self.name
            )));
        }
        Ok(operator)
    }

    fn without_length(&self) -> Result<&Self, FormatError> {
        match self.max_length {
            None => Ok(self),
            Some(_) => Err(error(format!(
                "{} does not allow length to be specified.",
                self.name
            ))),
        }
    }

    fn required(&self) -> Result<Name, FormatError> {
        match self.argument {
            Some(argument) if !argument.is_empty() => Ok(Name::from(argument)),
            _ => Err(error(format!("{} requires parameters", self.name))),
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
        let (start, end, precision) = match parts.as_slice() {
            [start, end] => (start, end, "ms"),
            [start, end, precision] => (start, end, *precision),
            _ => return Err(invalid()),
        };
        let precision = match precision {
            "ms" => Precision::Milliseconds,
            "us" => Precision::Microseconds,
            "ns" => Precision::Nanoseconds,
            other => {
                return Err(error(format!(
                    "Invalid common duration precision: {other}."
                )));
            }
        };
        // Other names are moments that filters note down; none of ours does.
        Ok(match (time_point(start), time_point(end)) {
            (Some(start), Some(end)) => Operator::CommonDuration {
                start,
                end,
                precision,
            },
            _ => Operator::Unavailable,
        })
    }

    /// `KEY`, `KEY:TYPED`, `KEY:PLAIN` or `KEY:FIELD:NAME`; the gRPC statistics filter is the one that leaves something.
    fn filter_state(&self) -> Result<Operator, FormatError> {
        let argument = self.required()?;
        let mut parts = argument.split(':');
        let key = parts.next().unwrap_or_default();
        let format = match (parts.next().unwrap_or_default(), parts.next()) {
            ("" | "TYPED", None) => Some(MessageCountsFormat::Typed),
            ("PLAIN", None) => Some(MessageCountsFormat::Plain),
            // Its numbers are not to be had one by one.
            ("FIELD", Some(name)) if !name.is_empty() => None,
            ("" | "TYPED" | "PLAIN" | "FIELD", _) => {
                return Err(error(
                    "Invalid filter state serialize type, FIELD should be used with the field name."
                        .to_owned(),
                ));
            }
            _ => {
                return Err(error(
                    "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD."
                        .to_owned(),
                ));
            }
        };
        Ok(match format {
            Some(format) if key == "envoy.filters.http.grpc_stats" => {
                Operator::GrpcMessageCounts(format)
            }
            _ => Operator::Unavailable,
        })
    }

    fn grpc_status(&self) -> Result<Operator, FormatError> {
        Ok(Operator::GrpcStatus(match self.argument.unwrap_or("") {
            "" | "CAMEL_STRING" => GrpcStatusFormat::CamelString,
            "SNAKE_STRING" => GrpcStatusFormat::SnakeString,
            "NUMBER" => GrpcStatusFormat::Number,
            other => {
                return Err(error(format!(
                    "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: {other}"
                )));
            }
        }))
    }

    fn requested_server_name(&self) -> Result<Operator, FormatError> {
        let argument = self.argument.unwrap_or("");
        match argument.split(':').next().unwrap_or("") {
            "" | "SNI_ONLY" => Ok(Operator::Text(TextField::RequestedServerName)),
            "SNI_FIRST" | "HOST_FIRST" => Err(error(format!(
                "REQUESTED_SERVER_NAME option '{argument}' is not supported by this version, only 'SNI_ONLY' is"
            ))),
            other => Err(error(format!(
                "Invalid REQUESTED_SERVER_NAME option: '{other}', only 'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST' are allowed"
            ))),
        }
    }

    fn query_params(&self) -> Result<Operator, FormatError> {
        match self.argument.unwrap_or("") {
            "" | "ORIG" => Ok(Operator::QueryParams { decoded: false }),
            "DECODED" => Ok(Operator::QueryParams { decoded: true }),
            other => Err(error(format!(
                "Invalid QUERY_PARAMS option: '{other}', only 'ORIG'/'DECODED' are allowed"
            ))),
        }
    }

    fn path(&self) -> Result<Operator, FormatError> {
        let argument = self.argument.unwrap_or("");
        let mut parts = argument.split(':');
        let with_query = match parts.next().unwrap_or("") {
            "" | "WQ" => true,
            "NQ" => false,
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
        Ok(Operator::Path { with_query, source })
    }
}

#[cfg(test)]
mod tests;
