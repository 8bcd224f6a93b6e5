//! Format strings, compiled: one engine for access logs and for header values.
//!
//! `tidegate_model::format` parses, this module prepares (header names interned, literals in place) and writes. It must not
//! know where the values come from ([`LogContext`]) or where the text goes.

pub mod time;

use std::io::Write;

use tidegate_model::Name;
use tidegate_model::format::{
    self as parsed, AddressPart, DurationField, FormatItem, GrpcStatusFormat, HeaderMap, Operator,
    PathQuery, PathSource, Precision, TimeField, TimeFormat,
};

pub use tidegate_model::format::FormatError;

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
    Text(parsed::TextField),
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
    /// Known when the configuration was loaded; `None`: missing.
    Fixed(Option<Name>),
    QueryParam(Name),
    Path {
        query: PathQuery,
        source: PathSource,
        original: HeaderName,
        path: HeaderName,
    },
}

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
            Operator::Text(field) => Source::Text(field),
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
            Operator::Environment(name) => Source::Fixed(process::environment(&name)),
            Operator::Hostname => Source::Fixed(process::hostname()),
            Operator::QueryParam(name) => Source::QueryParam(name),
            Operator::Path { query, source } => Source::Path {
                query,
                source,
                original: HeaderName::known_as(WellKnown::EnvoyOriginalPath),
                path: HeaderName::known_as(WellKnown::Path),
            },
            Operator::Unavailable => Source::Fixed(None),
        };
        Self {
            source,
            max_length: operator.max_length.unwrap_or(usize::MAX),
        }
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
                text(value, out)
            }
            Self::Time { which, format } => {
                let moment = match which {
                    TimeField::Start => context.start_time(),
                    TimeField::Emit => context.now(),
                };
                time::write(format, moment, out);
                Written::Text
            }
            Self::Text(field) => text(context.text(*field), out),
            Self::Number(field) => number(context.number(*field), out),
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
                    return Written::Missing;
                }
                flags.write(*long, out);
                Written::Text
            }
            Self::GrpcStatus(format) => write_grpc_status(context, *format, out),
            Self::Fixed(value) => text(value.as_ref().map(|value| value.as_bytes()), out),
            Self::QueryParam(name) => {
                let path = HeaderName::known_as(WellKnown::Path);
                let value = context
                    .header(HeaderMap::Request, &path)
                    .and_then(|path| crate::matcher::query_parameter(path, name.as_bytes()));
                text(value.as_deref(), out)
            }
            Self::Path {
                query,
                source,
                original,
                path,
            } => {
                let header = |name| context.header(HeaderMap::Request, name);
                let whole = match source {
                    PathSource::Path => header(path),
                    PathSource::Original => header(original),
                    PathSource::OriginalOrPath => header(original).or_else(|| header(path)),
                };
                let mark = |whole: &[u8]| memchr::memchr(b'?', whole);
                text(
                    whole.and_then(|whole| match query {
                        PathQuery::With => Some(whole),
                        PathQuery::Without => whole.get(..mark(whole).unwrap_or(whole.len())),
                        PathQuery::Only => whole.get(mark(whole)? + 1..),
                    }),
                    out,
                )
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

fn write_address(address: std::net::SocketAddr, part: AddressPart, out: &mut Vec<u8>) {
    // Writing to a Vec does not fail.
    let _ = match part {
        AddressPart::Whole => write!(out, "{address}"),
        AddressPart::WithoutPort => write!(out, "{}", address.ip()),
        AddressPart::Port => {
            write_number(u64::from(address.port()), out);
            Ok(())
        }
    };
}

/// The names of the gRPC statuses, camel and snake.
const GRPC_STATUSES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

/// From the response's trailers or headers, for gRPC requests only.
fn write_grpc_status(
    context: &(impl LogContext + ?Sized),
    format: GrpcStatusFormat,
    out: &mut Vec<u8>,
) -> Written {
    let content_type = HeaderName::known_as(WellKnown::ContentType);
    let is_grpc = context
        .header(HeaderMap::Request, &content_type)
        .and_then(|value| value.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+')));
    if !is_grpc {
        return Written::Missing;
    }
    let name = HeaderName::known_as(WellKnown::GrpcStatus);
    let status = context
        .header(HeaderMap::ResponseTrailers, &name)
        .or_else(|| context.header(HeaderMap::Response, &name))
        .and_then(|value| std::str::from_utf8(value).ok()?.parse::<u64>().ok());
    let Some(status) = status else {
        return Written::Missing;
    };
    let names = GRPC_STATUSES.get(status as usize);
    match (format, names) {
        (GrpcStatusFormat::CamelString, Some((camel, _))) => text(Some(camel.as_bytes()), out),
        (GrpcStatusFormat::SnakeString, Some((_, snake))) => text(Some(snake.as_bytes()), out),
        (GrpcStatusFormat::Number, _) | (_, None) => number(Some(status), out),
    }
}

#[cfg(test)]
mod tests;
