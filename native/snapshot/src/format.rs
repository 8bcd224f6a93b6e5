//! Format strings, compiled: one engine for access logs and for header values.
//!
//! `tidegate_model::format` parses, this module prepares (header names interned, literals in place) and writes. It must not
//! know where the values come from ([`LogContext`]) or where the text goes.

pub mod time;
mod tls;

use std::io::Write;
use std::net::IpAddr;
use std::sync::LazyLock;

use tidegate_model::Name;
use tidegate_model::format::{
    self as parsed, AddressPart, DurationField, FormatItem, GrpcStatusFormat, HeaderMap,
    MessageCountsFormat, Operator, PathSource, Precision, TextField, TimeField, TimeFormat,
    TlsField, TlsSide,
};

pub use tidegate_model::format::FormatError;

use crate::grpc_status;
use crate::header_name::{HeaderName, WellKnown};
use crate::log_context::LogContext;
use crate::process;

/// A compiled format string.
#[derive(Debug, Clone)]
pub struct Formatter {
    pieces: Vec<Piece>,
    /// A missing value prints as nothing instead of `-`.
    omit_empty: bool,
}

#[derive(Debug, Clone)]
enum Piece {
    Literal(Name),
    Value(Value),
}

/// One operator, ready to be evaluated.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    source: Source,
    max_length: usize,
}

#[derive(Debug, Clone)]
enum Source {
    Header {
        map: HeaderMap,
        main: HeaderName,
        alternative: Option<HeaderName>,
    },
    Time {
        which: TimeField,
        format: TimeFormat,
    },
    Text(TextField),
    Number(parsed::NumberField),
    Address(parsed::AddressField, AddressPart),
    Duration(DurationField),
    CommonDuration {
        start: parsed::TimePoint,
        end: parsed::TimePoint,
        precision: Precision,
    },
    ResponseFlags {
        long: bool,
    },
    GrpcStatus(GrpcStatusFormat),
    GrpcMessageCounts(MessageCountsFormat),
    Tls(TlsSide, TlsField),
    CertificateTime {
        side: TlsSide,
        end: bool,
        format: TimeFormat,
    },
    /// Where white space becomes `_`.
    TextWithoutSpaces(TextField),
    /// Known when the configuration was loaded; `None`: missing.
    Fixed(Option<Name>),
    FixedNumber(u64),
    ConnectionIds,
    DynamicMetadata {
        filter: Name,
        path: Vec<Name>,
    },
    QueryParam(Name),
    QueryParams {
        decoded: bool,
    },
    Path {
        with_query: bool,
        source: PathSource,
    },
}

static PATH: LazyLock<HeaderName> = LazyLock::new(|| HeaderName::known_as(WellKnown::Path));
static ORIGINAL_PATH: LazyLock<HeaderName> =
    LazyLock::new(|| HeaderName::known_as(WellKnown::EnvoyOriginalPath));

/// What an operator came to, for formats that keep types.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Written {
    Missing,
    Text,
    Number,
}

impl Formatter {
    /// For access logs: what is missing prints as `-`.
    pub fn compile(text: &str) -> Result<Self, FormatError> {
        Self::build(text, false)
    }

    /// For header values: what is missing prints as nothing.
    pub fn compile_omitting_empty(text: &str) -> Result<Self, FormatError> {
        Self::build(text, true)
    }

    pub(crate) fn build(text: &str, omit_empty: bool) -> Result<Self, FormatError> {
        let pieces = parsed::parse(text)?
            .into_iter()
            .map(|item| match item {
                FormatItem::Literal(text) => Piece::Literal(text),
                FormatItem::Operator(operator) => Piece::Value(Value::compile(operator)),
            })
            .collect();
        Ok(Self { pieces, omit_empty })
    }

    /// The text, if there are no operators in it.
    pub fn literal(&self) -> Option<Name> {
        match self.pieces.as_slice() {
            [] => Some(Name::from("")),
            [Piece::Literal(text)] => Some(Name::clone(text)),
            _ => None,
        }
    }

    /// The operator, if there is nothing else.
    pub(crate) fn single_value(&self) -> Option<&Value> {
        match self.pieces.as_slice() {
            [Piece::Value(value)] => Some(value),
            _ => None,
        }
    }

    /// Appends the formatted text to `out`.
    #[inline]
    pub fn format(&self, context: &(impl LogContext + ?Sized), out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Value(value) => {
                    if value.write(context, out) == Written::Missing && !self.omit_empty {
                        out.push(b'-');
                    }
                }
            }
        }
    }
}

impl Formatter {
    /// Like [`Self::format`], calling `finish` with where each piece began once it is appended.
    pub(crate) fn format_pieces(
        &self,
        context: &(impl LogContext + ?Sized),
        out: &mut Vec<u8>,
        mut finish: impl FnMut(usize, &mut Vec<u8>),
    ) {
        for piece in &self.pieces {
            let start = out.len();
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Value(value) => {
                    if value.write(context, out) == Written::Missing && !self.omit_empty {
                        out.push(b'-');
                    }
                }
            }
            finish(start, out);
        }
    }
}

impl Value {
    fn compile(operator: parsed::FormatOperator) -> Self {
        let source = match operator.operator {
            Operator::Header {
                map,
                main,
                alternative,
            } => Source::Header {
                map,
                main: HeaderName::from(&main),
                alternative: alternative.as_ref().map(HeaderName::from),
            },
            Operator::Time { which, format } => Source::Time { which, format },
            Operator::Text(
                field @ (TextField::UpstreamTransportFailureReason
                | TextField::DownstreamTransportFailureReason),
            ) => Source::TextWithoutSpaces(field),
            Operator::Text(field) => Source::Text(field),
            Operator::ResponseCodeDetails {
                allow_whitespaces: false,
            } => Source::TextWithoutSpaces(TextField::ResponseCodeDetails),
            Operator::ResponseCodeDetails {
                allow_whitespaces: true,
            } => Source::Text(TextField::ResponseCodeDetails),
            Operator::FixedText(text) => Source::Fixed(Some(Name::from(text))),
            Operator::FixedNumber(value) => Source::FixedNumber(value),
            Operator::UpstreamConnectionIdsAttempted => Source::ConnectionIds,
            Operator::Number(field) => Source::Number(field),
            Operator::Address(field, part) => Source::Address(field, part),
            Operator::Duration(field) => Source::Duration(field),
            Operator::CommonDuration {
                start,
                end,
                precision,
            } => Source::CommonDuration {
                start,
                end,
                precision,
            },
            Operator::ResponseFlags { long } => Source::ResponseFlags { long },
            Operator::GrpcStatus(format) => Source::GrpcStatus(format),
            Operator::GrpcStatusNumber => Source::GrpcStatus(GrpcStatusFormat::Number),
            Operator::GrpcMessageCounts(format) => Source::GrpcMessageCounts(format),
            Operator::Environment(name) => Source::Fixed(process::environment(&name)),
            Operator::Hostname => Source::Fixed(process::hostname()),
            Operator::QueryParam(name) => Source::QueryParam(name),
            Operator::QueryParams { decoded } => Source::QueryParams { decoded },
            Operator::Path { with_query, source } => Source::Path { with_query, source },
            Operator::Tls(side, field) => Source::Tls(side, field),
            Operator::CertificateTime { side, end, format } => {
                Source::CertificateTime { side, end, format }
            }
            Operator::Unavailable => Source::Fixed(None),
            Operator::DynamicMetadata { filter, path } => Source::DynamicMetadata { filter, path },
        };
        Self {
            source,
            max_length: operator.max_length.unwrap_or(usize::MAX),
        }
    }

    /// Appends a value that is an object in JSON as one, whatever its `:LENGTH`; `None`: it is not of that kind.
    pub(crate) fn write_object(
        &self,
        context: &(impl LogContext + ?Sized),
        out: &mut Vec<u8>,
    ) -> Option<Written> {
        let Source::GrpcMessageCounts(MessageCountsFormat::Typed) = self.source else {
            return None;
        };
        let names = ["request_message_count", "response_message_count"];
        Some(write_message_counts(
            context,
            MessageCountsFormat::Typed,
            names,
            out,
        ))
    }

    /// Appends the value; on `Missing` nothing was appended.
    pub(crate) fn write(&self, context: &(impl LogContext + ?Sized), out: &mut Vec<u8>) -> Written {
        let start = out.len();
        let written = self.source.write(context, out);
        if written == Written::Text && self.max_length != usize::MAX {
            out.truncate(start.saturating_add(self.max_length).min(out.len()));
        }
        written
    }
}

impl Source {
    #[inline]
    fn write(&self, context: &(impl LogContext + ?Sized), out: &mut Vec<u8>) -> Written {
        match self {
            Self::Header {
                map,
                main,
                alternative,
            } => {
                let value = context.header(*map, main).or_else(|| {
                    alternative
                        .as_ref()
                        .and_then(|name| context.header(*map, name))
                });
                match value {
                    Some(value) => {
                        out.extend_from_slice(value);
                        Written::Text
                    }
                    None if main.known() == Some(WellKnown::Status) => {
                        let code = context.number(parsed::NumberField::ResponseCode);
                        match number(code.filter(|code| *code != 0), out) {
                            Written::Missing => Written::Missing,
                            _ => Written::Text,
                        }
                    }
                    None => Written::Missing,
                }
            }
            Self::Time { which, format } => {
                let moment = match which {
                    TimeField::Start => context.start_time(),
                    TimeField::Emit => context.now(),
                };
                time::write(format, moment, out);
                Written::Text
            }
            Self::Text(field) => match (text(context.text(*field), out), field) {
                // A host without a name is called by its address.
                (Written::Missing, TextField::UpstreamHostName) => {
                    Self::Address(parsed::AddressField::UpstreamHost, AddressPart::Whole)
                        .write(context, out)
                }
                (Written::Missing, TextField::UpstreamHostNameWithoutPort) => {
                    Self::Address(parsed::AddressField::UpstreamHost, AddressPart::WithoutPort)
                        .write(context, out)
                }
                (written, _) => written,
            },
            Self::TextWithoutSpaces(field) => {
                let start = out.len();
                let value = context.text(*field);
                if value.is_some_and(<[u8]>::is_empty) {
                    // There, though empty: not the same as none.
                    return Written::Text;
                }
                let written = text(value, out);
                for byte in out.get_mut(start..).unwrap_or_default() {
                    if byte.is_ascii_whitespace() {
                        *byte = b'_';
                    }
                }
                written
            }
            // What has not come about counts as zero.
            Self::Number(field) => number(Some(context.number(*field).unwrap_or(0)), out),
            Self::FixedNumber(value) => number(Some(*value), out),
            Self::DynamicMetadata { filter, path } => write_metadata(context, filter, path, out),
            Self::ConnectionIds => {
                let id = context
                    .number(parsed::NumberField::UpstreamConnectionId)
                    .filter(|id| *id != 0);
                match number(id, out) {
                    Written::Missing => Written::Missing,
                    _ => Written::Text,
                }
            }
            Self::Address(parsed::AddressField::UpstreamHost, AddressPart::Whole)
                if context.upstream_host_text().is_some() =>
            {
                text(context.upstream_host_text(), out)
            }
            Self::Address(field, part) => match context.address(*field) {
                None => Written::Missing,
                Some(address) => {
                    write_address(address, *part, out);
                    if *part == AddressPart::Port {
                        Written::Number
                    } else {
                        Written::Text
                    }
                }
            },
            Self::Duration(field) => number(
                context
                    .duration(*field)
                    .map(|duration| duration.as_millis() as u64),
                out,
            ),
            Self::CommonDuration {
                start,
                end,
                precision,
            } => {
                let span = context
                    .time_point(*end)
                    .zip(context.time_point(*start))
                    .and_then(|(end, start)| end.checked_sub(start));
                let units = span.map(|span| match precision {
                    Precision::Milliseconds => span.as_millis() as u64,
                    Precision::Microseconds => span.as_micros() as u64,
                    Precision::Nanoseconds => span.as_nanos() as u64,
                });
                number(units, out)
            }
            Self::ResponseFlags { long } => {
                let flags = context.response_flags();
                if flags.is_empty() {
                    // Text even in JSON, and even where empty values are left out.
                    out.push(b'-');
                } else {
                    flags.write(*long, out);
                }
                Written::Text
            }
            Self::GrpcStatus(format) => write_grpc_status(context, *format, out),
            Self::GrpcMessageCounts(format) => {
                let names = ["requestMessageCount", "responseMessageCount"];
                write_message_counts(context, *format, names, out)
            }
            Self::Tls(side, field) => match context.tls(*side) {
                Some(info) if tls::write(info, *field, out) => Written::Text,
                _ => Written::Missing,
            },
            Self::CertificateTime { side, end, format } => match context.tls(*side) {
                Some(info) if tls::write_time(info, *end, format, out) => Written::Text,
                _ => Written::Missing,
            },
            Self::Fixed(None) => Written::Missing,
            Self::Fixed(Some(value)) => {
                out.extend_from_slice(value.as_bytes());
                Written::Text
            }
            Self::QueryParam(name) => {
                let value = context
                    .header(HeaderMap::Request, &PATH)
                    .and_then(|path| crate::matcher::query_parameter(path, name.as_bytes()));
                match value {
                    Some(value) => {
                        percent_decode(&value, out);
                        Written::Text
                    }
                    None => Written::Missing,
                }
            }
            Self::QueryParams { decoded } => {
                let path = context
                    .header(HeaderMap::Request, &PATH)
                    .unwrap_or_default();
                let query = memchr::memchr(b'?', path)
                    .and_then(|mark| path.get(mark + 1..))
                    .unwrap_or_default();
                if query.is_empty() {
                    return Written::Missing;
                }
                if *decoded {
                    percent_decode(query, out);
                } else {
                    out.extend_from_slice(query);
                }
                Written::Text
            }
            Self::Path { with_query, source } => {
                let header = |name| context.header(HeaderMap::Request, name);
                let whole = match source {
                    PathSource::Path => header(&PATH),
                    PathSource::Original => header(&ORIGINAL_PATH),
                    PathSource::OriginalOrPath => header(&ORIGINAL_PATH).or_else(|| header(&PATH)),
                };
                let end = |whole: &[u8]| match with_query {
                    true => whole.len(),
                    false => memchr::memchr(b'?', whole).unwrap_or(whole.len()),
                };
                text(whole.and_then(|whole| whole.get(..end(whole))), out)
            }
        }
    }
}

/// `%41` becomes `A`; what is no valid escape stays.
fn percent_decode(value: &[u8], out: &mut Vec<u8>) {
    let digit = |byte: Option<&u8>| (*byte? as char).to_digit(16);
    let mut position = 0;
    while let Some(byte) = value.get(position) {
        let escape = digit(value.get(position + 1)).zip(digit(value.get(position + 2)));
        match escape {
            Some((high, low)) if *byte == b'%' => {
                out.push((high * 16 + low) as u8);
                position += 3;
            }
            _ => {
                out.push(*byte);
                position += 1;
            }
        }
    }
}

#[inline]
fn text(value: Option<&[u8]>, out: &mut Vec<u8>) -> Written {
    match value {
        Some(value) if !value.is_empty() => {
            out.extend_from_slice(value);
            Written::Text
        }
        _ => Written::Missing,
    }
}

#[inline]
fn number(value: Option<u64>, out: &mut Vec<u8>) -> Written {
    match value {
        Some(value) => {
            write_number(value, out);
            Written::Number
        }
        None => Written::Missing,
    }
}

/// Appends a decimal number.
#[inline]
pub(crate) fn write_number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn write_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        // By hand: this is in most log lines.
        IpAddr::V4(ip) => {
            for (position, octet) in ip.octets().into_iter().enumerate() {
                if position > 0 {
                    out.push(b'.');
                }
                write_number(u64::from(octet), out);
            }
        }
        IpAddr::V6(ip) => {
            let _ = write!(out, "{ip}");
        }
    }
}

fn write_address(address: std::net::SocketAddr, part: AddressPart, out: &mut Vec<u8>) {
    match (part, address.ip()) {
        (AddressPart::Port, _) => {
            write_number(u64::from(address.port()), out);
            return;
        }
        (AddressPart::Network(bits), ip) => {
            if let Ok(net) = ipnet::IpNet::new(ip, bits) {
                // Writing to a Vec does not fail.
                let _ = write!(out, "{}", net.trunc());
                return;
            }
            write_ip(ip, out);
        }
        (AddressPart::Whole, IpAddr::V6(ip)) => {
            let _ = write!(out, "[{ip}]");
        }
        (_, ip) => write_ip(ip, out),
    }
    if part == AddressPart::Whole {
        out.push(b':');
        write_number(u64::from(address.port()), out);
    }
}

/// For gRPC requests only.
fn write_grpc_status(
    context: &(impl LogContext + ?Sized),
    format: GrpcStatusFormat,
    out: &mut Vec<u8>,
) -> Written {
    let status = match grpc_status::grpc_status(context) {
        Some(status) if grpc_status::is_grpc_request(context) => status,
        _ => return Written::Missing,
    };
    match (format, grpc_status::names(status)) {
        (GrpcStatusFormat::CamelString, Some((camel, _))) => text(Some(camel.as_bytes()), out),
        (GrpcStatusFormat::SnakeString, Some((_, snake))) => text(Some(snake.as_bytes()), out),
        (GrpcStatusFormat::Number, _) | (_, None) => {
            let mut buffer = itoa::Buffer::new();
            out.extend_from_slice(buffer.format(status).as_bytes());
            Written::Number
        }
    }
}

/// Texts as they are, everything else as JSON.
fn write_metadata(
    context: &(impl LogContext + ?Sized),
    filter: &str,
    path: &[Name],
    out: &mut Vec<u8>,
) -> Written {
    let Some(metadata) = context.dynamic_metadata() else {
        return Written::Missing;
    };
    if path.is_empty() {
        return match metadata.namespace(filter) {
            // A map of texts to JSON can always be written.
            Some(fields) => {
                let _ = serde_json::to_writer(out, &*fields);
                Written::Text
            }
            None => Written::Missing,
        };
    }
    match metadata.value(filter, path) {
        None | Some(serde_json::Value::Null) => Written::Missing,
        Some(serde_json::Value::String(text)) => {
            out.extend_from_slice(text.as_bytes());
            Written::Text
        }
        Some(value) => {
            let _ = serde_json::to_writer(out, value);
            Written::Text
        }
    }
}

/// `{"requestMessageCount":"1"}` in text, `{"request_message_count":"1"}` in JSON, where it is an object; a count of
/// zero is left out.
fn write_message_counts(
    context: &(impl LogContext + ?Sized),
    format: MessageCountsFormat,
    names: [&str; 2],
    out: &mut Vec<u8>,
) -> Written {
    let Some((request, response)) = context.grpc_message_counts() else {
        return Written::Missing;
    };
    let mut buffer = itoa::Buffer::new();
    if format == MessageCountsFormat::Plain {
        out.extend_from_slice(buffer.format(request).as_bytes());
        out.push(b',');
        out.extend_from_slice(buffer.format(response).as_bytes());
        return Written::Text;
    }
    out.push(b'{');
    for (name, count) in names.into_iter().zip([request, response]) {
        if count > 0 {
            if out.last() != Some(&b'{') {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":\"");
            out.extend_from_slice(buffer.format(count).as_bytes());
            out.push(b'"');
        }
    }
    out.push(b'}');
    Written::Text
}

#[cfg(test)]
pub(crate) mod tests;
