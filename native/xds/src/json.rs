//! proto-JSON by descriptors: messages from JSON values with the path to what does not fit, and back.

use std::collections::HashSet;

use prost::Message as _;
use prost_reflect::{
    DynamicMessage, MessageDescriptor, ReflectMessage as _, SerializeOptions, Value,
};
use serde::de::DeserializeSeed as _;
use serde_json::{Map, Value as Json, json};

use crate::any::{self, type_name};
use crate::context::{Context, Fault, Result};
use crate::value;

/// The message that a JSON value describes. Unknown fields, wrong types and unknown `@type`s are faults with their path.
pub(crate) fn parse(context: &Context, full_name: &str, value: &Json) -> Result<DynamicMessage> {
    load_types(context, value)?;
    let descriptor = context.descriptor(full_name)?;
    if is_type_first(value) {
        parse_as(descriptor, value)
    } else {
        parse_as(descriptor, &type_first(value))
    }
}

fn parse_as(descriptor: MessageDescriptor, value: &Json) -> Result<DynamicMessage> {
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    descriptor.deserialize(deserializer).map_err(|error| {
        let path = track.path().to_string();
        let path = if path == "." { String::new() } else { path };
        let reason = error.to_string();
        // The path ends at the message; the field that it does not have is part of where the fault is.
        match reason
            .strip_prefix("unrecognized field name '")
            .and_then(|rest| rest.strip_suffix('\''))
        {
            Some(field) => Fault {
                path: field.to_owned(),
                reason: "no such field".to_owned(),
            }
            .under(&path),
            None => Fault { path, reason },
        }
    })
}

/// Puts every type that an `@type` names into the pool, so that `Any`s can be read; an unknown one is a fault.
fn load_types(context: &Context, value: &Json) -> Result<()> {
    match value {
        Json::Object(fields) => {
            if let Some(Json::String(url)) = fields.get("@type") {
                let name = type_name(url);
                context.descriptor(name).map_err(|_| Fault {
                    path: "@type".to_owned(),
                    reason: format!("type.googleapis.com/{name} is unknown"),
                })?;
            }
            fields.iter().try_for_each(|(key, value)| {
                load_types(context, value).map_err(|fault| fault.under(key))
            })
        }
        Json::Array(items) => items.iter().enumerate().try_for_each(|(index, item)| {
            load_types(context, item).map_err(|fault| fault.under(&format!("[{index}]")))
        }),
        _ => Ok(()),
    }
}

/// Whether no object has its `@type` behind another key: most documents are written so, and need not be copied.
fn is_type_first(value: &Json) -> bool {
    match value {
        Json::Object(fields) => fields
            .iter()
            .enumerate()
            .all(|(at, (key, value))| (at == 0 || key != "@type") && is_type_first(value)),
        Json::Array(items) => items.iter().all(is_type_first),
        _ => true,
    }
}

/// The same value with `@type` before all other keys: the reader of `Any` then need not buffer, and keeps the path.
fn type_first(value: &Json) -> Json {
    match value {
        Json::Object(fields) => {
            let mut result = Map::with_capacity(fields.len());
            if let Some(url) = fields.get("@type") {
                result.insert("@type".to_owned(), url.clone());
            }
            for (key, value) in fields {
                if key != "@type" {
                    result.insert(key.clone(), type_first(value));
                }
            }
            Json::Object(result)
        }
        Json::Array(items) => Json::Array(items.iter().map(type_first).collect()),
        other => other.clone(),
    }
}

/// A message as JSON: original field names, `Any` inlined under `@type`.
pub(crate) fn to_json(context: &Context, full_name: &str, bytes: &[u8]) -> Result<Json> {
    // Payloads are read by the pool their `Any` came from, so all of their types must be in it before the message is
    // decoded. Types inside payloads show only once the payloads can be read.
    let mut message = context.decode(full_name, bytes)?;
    let mut known = HashSet::new();
    loop {
        let before = known.len();
        for name in known.iter().chain([&EMPTY.to_owned()]) {
            context.descriptor(name)?;
        }
        load_payload_types(context, &message, &mut known, 0);
        if known.len() == before {
            break;
        }
    }
    message = context.decode(full_name, bytes)?;
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
        let (type_url, bytes) = any::parts(message);
        let name = type_name(&type_url);
        if depth > MAX_DEPTH || tidegate_proto::file_of_message(name).is_none() {
            // What will stand in its place.
            known.insert(TYPED_STRUCT.to_owned());
            return;
        }
        if let Ok(payload) = context.decode(name, &bytes) {
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
        let (type_url, bytes) = any::parts(message);
        let payload = if type_url.is_empty() && bytes.is_empty() {
            None
        } else if depth > MAX_DEPTH {
            Some(Err(Fault::whole("nested too deeply")))
        } else {
            Some(context.decode(type_name(&type_url), &bytes))
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
                let opaque = parse(context, TYPED_STRUCT, &opaque)?;
                (
                    format!("type.googleapis.com/{TYPED_STRUCT}"),
                    opaque.encode_to_vec(),
                )
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
