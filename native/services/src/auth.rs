//! `envoy.service.auth.v3.Authorization/Check`.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use prost::Message;
use serde_json::{Map, Value};

/// The method's path.
pub const CHECK: &[u8] = b"/envoy.service.auth.v3.Authorization/Check";

/// `CheckRequest`, its one field left out: the attributes of a request.
#[derive(Clone, PartialEq, Message)]
pub struct Attributes {
    #[prost(message, optional, tag = "1")]
    pub source: Option<Peer>,
    #[prost(message, optional, tag = "2")]
    pub destination: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    pub request: Option<Request>,
    #[prost(map = "string, string", tag = "10")]
    pub context_extensions: HashMap<String, String>,
    #[prost(message, optional, tag = "11")]
    pub metadata_context: Option<Metadata>,
    #[prost(message, optional, tag = "13")]
    pub route_metadata_context: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Peer {
    #[prost(message, optional, tag = "1")]
    pub address: Option<Address>,
    #[prost(string, tag = "2")]
    pub service: String,
    #[prost(string, tag = "4")]
    pub principal: String,
    #[prost(string, tag = "5")]
    pub certificate: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Address {
    #[prost(message, optional, tag = "1")]
    pub socket_address: Option<SocketAddress>,
}

#[derive(Clone, PartialEq, Message)]
pub struct SocketAddress {
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(uint32, optional, tag = "3")]
    pub port_value: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(message, optional, tag = "1")]
    pub time: Option<prost_types::Timestamp>,
    #[prost(message, optional, tag = "2")]
    pub http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub struct HttpRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(map = "string, string", tag = "3")]
    pub headers: HashMap<String, String>,
    #[prost(string, tag = "4")]
    pub path: String,
    #[prost(string, tag = "5")]
    pub host: String,
    #[prost(string, tag = "6")]
    pub scheme: String,
    #[prost(int64, tag = "9")]
    pub size: i64,
    #[prost(string, tag = "10")]
    pub protocol: String,
    #[prost(string, tag = "11")]
    pub body: String,
    #[prost(bytes = "vec", tag = "12")]
    pub raw_body: Vec<u8>,
    #[prost(message, optional, tag = "13")]
    pub header_map: Option<HeaderMap>,
}

#[derive(Clone, PartialEq, Message)]
pub struct HeaderMap {
    #[prost(message, repeated, tag = "1")]
    pub headers: Vec<HeaderValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct HeaderValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub raw_value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    #[prost(map = "string, message", tag = "1")]
    filter_metadata: HashMap<String, prost_types::Struct>,
}

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(message, optional, tag = "2")]
    denied_response: Option<HttpAnswer>,
    #[prost(message, optional, tag = "3")]
    ok_response: Option<OkHttpResponse>,
    #[prost(message, optional, tag = "4")]
    dynamic_metadata: Option<prost_types::Struct>,
    #[prost(message, optional, tag = "5")]
    error_response: Option<HttpAnswer>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
}

/// `DeniedHttpResponse`: what the client is answered.
#[derive(Clone, PartialEq, Message)]
pub struct HttpAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    #[prost(bytes = "vec", tag = "3")]
    pub body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct HttpStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

/// What an answer that lets the request pass changes.
#[derive(Clone, PartialEq, Message)]
pub struct OkHttpResponse {
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    #[prost(message, optional, tag = "3")]
    dynamic_metadata: Option<prost_types::Struct>,
    #[prost(string, repeated, tag = "5")]
    pub headers_to_remove: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub response_headers_to_add: Vec<HeaderValueOption>,
    #[prost(message, repeated, tag = "7")]
    pub query_parameters_to_set: Vec<QueryParameter>,
    #[prost(string, repeated, tag = "8")]
    pub query_parameters_to_remove: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    #[prost(message, optional, tag = "2")]
    append: Option<BoolValue>,
    #[prost(int32, tag = "3")]
    append_action: i32,
}

#[derive(Clone, PartialEq, Message)]
struct BoolValue {
    #[prost(bool, tag = "1")]
    value: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct QueryParameter {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// What to do with a header that may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Append {
    /// The older `append: true`: joined to what is there, and nothing if there is none.
    Join,
    Add,
    AddIfAbsent,
    Overwrite,
    OverwriteIfExists,
    /// Of a kind that nobody knows.
    Unknown,
}

impl HeaderValueOption {
    pub fn append(&self) -> Append {
        match (&self.append, self.append_action) {
            (Some(append), _) if append.value => Append::Join,
            (Some(_), _) | (None, 2) => Append::Overwrite,
            (None, 0) => Append::Add,
            (None, 1) => Append::AddIfAbsent,
            (None, 3) => Append::OverwriteIfExists,
            (None, _) => Append::Unknown,
        }
    }

    /// Name and value; the raw one counts if there is no other.
    pub fn pair(&self) -> (&str, &[u8]) {
        self.header.as_ref().map_or(("", &[][..]), |header| {
            if header.value.is_empty() {
                (&header.key, &header.raw_value)
            } else {
                (&header.key, &header.value)
            }
        })
    }
}

impl HttpAnswer {
    /// `None`: it does not say.
    pub fn status(&self) -> Option<u16> {
        let code = self.status.as_ref()?.code;
        u16::try_from(code).ok().filter(|code| *code > 0)
    }
}

/// What a service has decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    pub verdict: Verdict,
    pub dynamic_metadata: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Ok(OkHttpResponse),
    Denied(HttpAnswer),
    Error(HttpAnswer),
}

impl Metadata {
    /// Namespaces with their fields.
    pub fn new<'a>(parts: impl Iterator<Item = (&'a str, &'a Map<String, Value>)>) -> Self {
        Self {
            filter_metadata: parts
                .map(|(name, fields)| (name.to_owned(), to_struct(fields)))
                .collect(),
        }
    }
}

/// The time that a request began at.
pub fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    prost_types::Timestamp {
        seconds: since.as_secs() as i64,
        nanos: since.subsec_nanos() as i32,
    }
}

/// A `CheckRequest`, encoded.
pub fn encode(attributes: Attributes) -> Vec<u8> {
    let request = CheckRequest {
        attributes: Some(attributes),
    };
    request.encode_to_vec()
}

/// A `CheckResponse`. `None`: that is none.
pub fn decode(bytes: &[u8]) -> Option<Decision> {
    let response = CheckResponse::decode(bytes).ok()?;
    let ok = response.status.is_none_or(|status| status.code == 0);
    let of_ok = response
        .ok_response
        .as_ref()
        .and_then(|ok| ok.dynamic_metadata.clone());
    let metadata = of_ok.or(response.dynamic_metadata);
    Some(Decision {
        verdict: match (ok, response.error_response) {
            (true, _) => Verdict::Ok(response.ok_response.unwrap_or_default()),
            (false, Some(error)) => Verdict::Error(error),
            (false, None) => Verdict::Denied(response.denied_response.unwrap_or_default()),
        },
        dynamic_metadata: metadata.as_ref().map(from_struct).unwrap_or_default(),
    })
}

fn from_struct(from: &prost_types::Struct) -> Map<String, Value> {
    from.fields
        .iter()
        .map(|(key, value)| (key.clone(), from_value(value)))
        .collect()
}

fn from_value(value: &prost_types::Value) -> Value {
    use prost_types::value::Kind;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => {
            serde_json::Number::from_f64(*number).map_or(Value::Null, Value::Number)
        }
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        Some(Kind::StructValue(inner)) => Value::Object(from_struct(inner)),
        Some(Kind::ListValue(list)) => Value::Array(list.values.iter().map(from_value).collect()),
    }
}

fn to_struct(from: &Map<String, Value>) -> prost_types::Struct {
    prost_types::Struct {
        fields: from
            .iter()
            .map(|(key, value)| (key.clone(), to_value(value)))
            .collect(),
    }
}

fn to_value(value: &Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.iter().map(to_value).collect(),
        }),
        Value::Object(fields) => Kind::StructValue(to_struct(fields)),
    };
    prost_types::Value { kind: Some(kind) }
}
