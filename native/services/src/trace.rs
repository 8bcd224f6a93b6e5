//! `opentelemetry.proto.collector.trace.v1.TraceService/Export`; its request is what goes over HTTP, too.

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, message};

/// The method's path.
pub const EXPORT: &[u8] = b"/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// `Span.kind`.
pub const SERVER: i32 = 2;
pub const CLIENT: i32 = 3;

/// `Status.code`.
const ERROR: i32 = 2;

/// `opentelemetry.proto.trace.v1.Span`.
#[derive(Clone, PartialEq, Message)]
pub struct Span {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub trace_state: String,
    /// Empty: a trace begins with it.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(int32, tag = "6")]
    pub kind: i32,
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    /// W3C's flags, then whether the parent is known to be remote or not, then whether it is.
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    /// One of several kinds: an empty one is written.
    #[prost(string, optional, tag = "1")]
    string_value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

impl KeyValue {
    fn new(key: &str, value: String) -> Self {
        Self {
            key: key.to_owned(),
            value: Some(AnyValue {
                string_value: Some(value),
            }),
        }
    }
}

impl Span {
    /// Names are unique: a later value replaces an earlier one. What is no UTF-8 is replaced.
    pub fn set_attribute(&mut self, key: &str, value: &[u8]) {
        let value = String::from_utf8_lossy(value).into_owned();
        let new = KeyValue::new(key, value);
        match self.attributes.iter_mut().find(|known| known.key == key) {
            Some(known) => *known = new,
            None => self.attributes.push(new),
        }
    }

    pub fn set_error(&mut self) {
        self.status = Some(Status { code: ERROR });
    }

    /// Adds it to spans that wait for [`request`].
    pub fn write(&self, out: &mut Vec<u8>) {
        message::encode(2, self, out);
    }
}

/// `ExportTraceServiceRequest` of one resource and one scope (name and version), with spans as [`Span::write`] left them.
pub fn request<'a>(
    resource: impl Iterator<Item = (&'a str, &'a str)>,
    scope: (&str, &str),
    spans: &[u8],
) -> Vec<u8> {
    let mut of_scope = Vec::with_capacity(spans.len() + 128);
    let scope = Scope {
        name: scope.0.to_owned(),
        version: scope.1.to_owned(),
    };
    message::encode(1, &scope, &mut of_scope);
    of_scope.extend_from_slice(spans);
    let resource = Resource {
        attributes: resource
            .map(|(key, value)| KeyValue::new(key, value.to_owned()))
            .collect(),
    };
    let mut of_resource = Vec::with_capacity(of_scope.len() + 256);
    message::encode(1, &resource, &mut of_resource);
    nested(2, &of_scope, &mut of_resource);
    let mut request = Vec::with_capacity(of_resource.len() + 8);
    nested(1, &of_resource, &mut request);
    request
}

fn nested(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Request {
        #[prost(message, repeated, tag = "1")]
        resource_spans: Vec<ResourceSpans>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct ResourceSpans {
        #[prost(message, optional, tag = "1")]
        resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        scope_spans: Vec<ScopeSpans>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct ScopeSpans {
        #[prost(message, optional, tag = "1")]
        scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")]
        spans: Vec<Span>,
    }

    #[test]
    fn reads_as_one_message() {
        let mut span = Span {
            name: "n".to_owned(),
            ..Span::default()
        };
        span.set_attribute("a", b"1");
        span.set_attribute("b", b"");
        span.set_attribute("a", b"2\xff");
        span.set_error();
        let mut spans = Vec::new();
        span.write(&mut spans);
        span.write(&mut spans);
        let bytes = request([("k", "v")].into_iter(), ("envoy", "1"), &spans);
        let read = Request::decode(&bytes[..]).unwrap();
        let of_scope = &read.resource_spans[0].scope_spans[0];
        assert_eq!(of_scope.spans, [span.clone(), span.clone()]);
        assert_eq!(of_scope.scope.as_ref().unwrap().version, "1");
        let values: Vec<_> = span
            .attributes
            .iter()
            .map(|pair| pair.value.clone())
            .collect();
        let text = |text: &str| {
            Some(AnyValue {
                string_value: Some(text.to_owned()),
            })
        };
        assert_eq!(values, [text("2\u{fffd}"), text("")]);
    }
}
