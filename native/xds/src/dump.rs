//! Messages as JSON, for `/config_dump`: the one place that needs descriptors at run time.

use std::collections::HashSet;

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _, SerializeOptions, Value,
};
use serde_json::{Value as Json, json};
use tidegate_proto::FileId;

use crate::any::type_name;
use crate::context::{Context, Fault, Result};
use crate::{json, value};

/// The descriptors that were needed so far, some MiB of them.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    pool: DescriptorPool,
    /// Sorted.
    files: Vec<FileId>,
}

/// What stands in the `Any`s of a resource more often than not. It is loaded with the resource's own type, because growing a
/// pool while messages of it are about means copying it.
const COMPANIONS: &[(&str, &[&str])] = &[
    ("envoy.config.bootstrap.v3.Bootstrap", IN_LISTENERS),
    ("envoy.config.listener.v3.Listener", IN_LISTENERS),
    ("envoy.config.route.v3.RouteConfiguration", IN_ROUTES),
];

const IN_LISTENERS: &[&str] = &[
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
];

const IN_ROUTES: &[&str] = &[
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
];

impl Descriptors {
    fn load(&mut self, roots: impl IntoIterator<Item = FileId>) -> Result<()> {
        let files = tidegate_proto::closure(roots, &self.files);
        let set: Vec<u8> = files.iter().flat_map(|file| file.set()).copied().collect();
        self.pool
            .decode_file_descriptor_set(set.as_slice())
            .map_err(|error| Fault::whole(format!("descriptor set: {error}")))?;
        self.files.extend(files);
        self.files.sort_unstable();
        Ok(())
    }
}

/// The descriptor of a message, its file and what that imports loaded when they are not yet.
fn descriptor(context: &Context, full_name: &str) -> Result<MessageDescriptor> {
    let unknown = || Fault::whole(format!("unknown message type '{full_name}'"));
    let file = tidegate_proto::file_of_message(full_name).ok_or_else(unknown)?;
    let mut descriptors = context.descriptors.borrow_mut();
    if descriptors.files.binary_search(&file).is_err() {
        let companions = COMPANIONS.iter().find(|(name, _)| *name == full_name);
        let companions = companions.map_or(&[][..], |(_, companions)| companions);
        let companions = companions
            .iter()
            .filter_map(|name| tidegate_proto::file_of_message(name));
        descriptors.load(companions.chain([file]))?;
    }
    descriptors
        .pool
        .get_message_by_name(full_name)
        .ok_or_else(unknown)
}

fn decode(context: &Context, full_name: &str, bytes: &[u8]) -> Result<DynamicMessage> {
    DynamicMessage::decode(descriptor(context, full_name)?, bytes)
        .map_err(|error| Fault::whole(format!("Unable to parse as {full_name}: {error}")))
}

/// A message as JSON: original field names, `Any` inlined under `@type`.
pub(crate) fn to_json(context: &Context, full_name: &str, bytes: &[u8]) -> Result<Json> {
    // Payloads are read by the pool their `Any` came from, so all of their types must be in it before the message is
    // decoded. Types inside payloads show only once the payloads can be read.
    let mut message = decode(context, full_name, bytes)?;
    let mut known = HashSet::new();
    loop {
        let before = known.len();
        for name in known.iter().chain([&EMPTY.to_owned()]) {
            descriptor(context, name)?;
        }
        load_payload_types(context, &message, &mut known, 0);
        if known.len() == before {
            break;
        }
    }
    message = decode(context, full_name, bytes)?;
    replace_unknown(context, &mut message, 0)?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(true);
    let printed = message.serialize_with_options(serde_json::value::Serializer, &options);
    let mut json =
        printed.map_err(|error| Fault::whole(format!("{full_name} as JSON: {error}")))?;
    shorten_numbers(&mut json);
    Ok(json)
}

/// `100.0` as `100`, the way protobuf prints doubles.
fn shorten_numbers(json: &mut Json) {
    match json {
        Json::Object(fields) => fields.values_mut().for_each(shorten_numbers),
        Json::Array(items) => items.iter_mut().for_each(shorten_numbers),
        Json::Number(number) if number.is_f64() => {
            *json = value::number(number.as_f64().unwrap_or_default());
        }
        _ => {}
    }
}

fn children(message: &DynamicMessage) -> impl Iterator<Item = &DynamicMessage> {
    message.fields().flat_map(|(_, value)| match value {
        Value::Message(inner) => vec![inner],
        Value::List(items) => items.iter().filter_map(Value::as_message).collect(),
        Value::Map(items) => items.values().filter_map(Value::as_message).collect(),
        _ => Vec::new(),
    })
}

/// Payloads inside payloads, in what nobody has checked yet.
const MAX_DEPTH: usize = 32;
const ANY: &str = "google.protobuf.Any";
const EMPTY: &str = "google.protobuf.Empty";
const TYPED_STRUCT: &str = "xds.type.v3.TypedStruct";

/// Loads the types of all payloads below `message`, those inside payloads too.
fn load_payload_types(
    context: &Context,
    message: &DynamicMessage,
    known: &mut HashSet<String>,
    depth: usize,
) {
    if message.descriptor().full_name() == ANY {
        let (type_url, bytes) = parts(message);
        let name = type_name(&type_url);
        if depth > MAX_DEPTH || tidegate_proto::file_of_message(name).is_none() {
            // What will stand in its place.
            known.insert(TYPED_STRUCT.to_owned());
            return;
        }
        if let Ok(payload) = decode(context, name, &bytes) {
            known.insert(name.to_owned());
            load_payload_types(context, &payload, known, depth + 1);
        }
        return;
    }
    children(message).for_each(|inner| load_payload_types(context, inner, known, depth));
}

/// Puts a `TypedStruct` where a payload's type is unknown or its bytes are broken, so that the rest can be shown.
fn replace_unknown(context: &Context, message: &mut DynamicMessage, depth: usize) -> Result<()> {
    if message.descriptor().full_name() == ANY {
        let (type_url, bytes) = parts(message);
        let payload = if type_url.is_empty() && bytes.is_empty() {
            None
        } else if depth > MAX_DEPTH {
            Some(Err(Fault::whole("nested too deeply")))
        } else {
            Some(decode(context, type_name(&type_url), &bytes))
        };
        let (type_url, bytes) = match payload {
            // An `Any` of nothing cannot be printed as one.
            None => (format!("type.googleapis.com/{EMPTY}"), Vec::new()),
            Some(Ok(mut payload)) => {
                replace_unknown(context, &mut payload, depth + 1)?;
                (type_url, payload.encode_to_vec())
            }
            Some(Err(_)) => {
                let opaque =
                    json!({ "type_url": type_url, "value": { "bytes": format!("{bytes:02x?}") } });
                let opaque = json::parse(TYPED_STRUCT, &opaque)?;
                (format!("type.googleapis.com/{TYPED_STRUCT}"), opaque)
            }
        };
        message.set_field_by_number(1, Value::String(type_url));
        message.set_field_by_number(2, Value::Bytes(bytes.into()));
        return Ok(());
    }
    for (_, value) in message.fields_mut() {
        match value {
            Value::Message(inner) => replace_unknown(context, inner, depth)?,
            Value::List(items) => {
                items
                    .iter_mut()
                    .filter_map(Value::as_message_mut)
                    .try_for_each(|inner| replace_unknown(context, inner, depth))?;
            }
            Value::Map(items) => {
                items
                    .values_mut()
                    .filter_map(Value::as_message_mut)
                    .try_for_each(|inner| replace_unknown(context, inner, depth))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The type URL and the encoded payload.
fn parts(any: &DynamicMessage) -> (String, Vec<u8>) {
    let type_url = any
        .get_field_by_number(1)
        .and_then(|url| url.as_str().map(str::to_owned));
    let bytes = any
        .get_field_by_number(2)
        .and_then(|value| value.as_bytes().map(|bytes| bytes.to_vec()));
    (type_url.unwrap_or_default(), bytes.unwrap_or_default())
}
