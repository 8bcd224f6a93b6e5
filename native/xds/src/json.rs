//! proto-JSON into encoded messages, in one pass over whatever [`serde`] can read: text, or values.
//!
//! What is read is written at once, by the schema; there is no message in between. Fields go by both of their names, numbers and
//! enum values in all of their forms, the well-known types have the forms that protobuf gives them. Everything that does not fit
//! is a [`Fault`] with its path. Beyond the rules of protobuf's JSON, a key must not be given twice, in any object.

mod scalar;
mod well_known;
mod writer;

use std::collections::HashSet;
use std::fmt;

use prost::encoding::WireType;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};
use tidegate_proto::schema::{FieldType, Kind, MessageType, Oneof};

use self::scalar::Scalar;
use self::well_known::{Any, AnyValue, ListValue, Struct, Text, write_null};
use self::writer::{Number, Step, Writer};
use crate::context::{Fault, Result, message_type};

/// The encoded message that a JSON value describes. Unknown fields, wrong types and unknown `@type`s are faults with their path.
pub(crate) fn parse(full_name: &str, value: &Json) -> Result<Vec<u8>> {
    let kind = message_type(full_name)?;
    if is_type_first(value) {
        read(kind, value)
    } else {
        read(kind, type_first(value))
    }
}

/// [`parse`] for text. `None` when something is wrong with it, or it has an `@type` behind another key: what it is tells the
/// careful way, over the value.
pub(crate) fn parse_text(full_name: &str, text: &str) -> Result<Option<Vec<u8>>> {
    let kind = message_type(full_name)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let encoded = read(kind, &mut deserializer).ok();
    Ok(encoded.filter(|_| deserializer.end().is_ok()))
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

/// The same value with `@type` before all other keys, which is what tells the type of the others.
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

fn read<'de, D: Deserializer<'de>>(kind: MessageType, from: D) -> Result<Vec<u8>> {
    let mut writer = Writer::default();
    let read = Contents {
        writer: &mut writer,
        kind,
    }
    .deserialize(from);
    match read {
        Ok(()) => Ok(writer.out),
        // The segments of what was being read when it failed are still there.
        Err(error) => Err(Fault {
            path: writer.path(),
            reason: error.to_string(),
        }),
    }
}

// === messages ===

/// The contents of a message, without key and length.
struct Contents<'w> {
    writer: &'w mut Writer,
    kind: MessageType,
}

impl<'de> DeserializeSeed<'de> for Contents<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        let Self { writer, kind } = self;
        let Some(google) = kind.full_name().strip_prefix("google.protobuf.") else {
            return from.deserialize_map(Fields { writer, kind });
        };
        match google {
            "Any" => from.deserialize_map(Any { writer }),
            "Struct" => from.deserialize_map(Struct { writer }),
            "ListValue" => from.deserialize_seq(ListValue { writer }),
            "Value" => from.deserialize_any(AnyValue { writer }),
            "Duration" => from.deserialize_str(Text::duration(writer)),
            "Timestamp" => from.deserialize_str(Text::timestamp(writer)),
            "FieldMask" => from.deserialize_str(Text::field_mask(writer)),
            _ => match (is_wrapper(google), kind.field(1)) {
                (true, Some(field)) => from.deserialize_any(Scalar { writer, field }),
                _ => from.deserialize_map(Fields { writer, kind }),
            },
        }
    }
}

fn is_wrapper(google: &str) -> bool {
    google
        .strip_suffix("Value")
        .is_some_and(|of| !matches!(of, "" | "List" | "Null" | "Enum"))
}

/// Whether an `Any` has a type's JSON under `value` and not beside `@type`.
fn is_well_known(kind: MessageType) -> bool {
    let google = kind.full_name().strip_prefix("google.protobuf.");
    google.is_some_and(|google| {
        matches!(
            google,
            "Any"
                | "Struct"
                | "ListValue"
                | "Value"
                | "Duration"
                | "Timestamp"
                | "FieldMask"
                | "Empty"
        ) || is_wrapper(google)
    })
}

/// What a key in the JSON of a message is.
enum Key {
    Field(FieldType, &'static str),
    Unknown(String),
}

/// Finds the field without copying the key.
struct KeyOf(MessageType);

impl<'de> DeserializeSeed<'de> for KeyOf {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<Key, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, key: &str) -> std::result::Result<Key, E> {
        Ok(match self.0.field_with_json_name(key) {
            Some(field) if field.name() == key => Key::Field(field, field.name()),
            Some(field) => Key::Field(field, field.json_name()),
            None => Key::Unknown(key.to_owned()),
        })
    }
}

struct Fields<'w> {
    writer: &'w mut Writer,
    kind: MessageType,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let Self { writer, kind } = self;
        // With whether there was a value, and not null.
        let mut seen: Vec<(FieldType, bool)> = Vec::new();
        while let Some(key) = map.next_key_seed(KeyOf(kind))? {
            let (field, name) = match key {
                Key::Field(field, name) => (field, name),
                Key::Unknown(key) => {
                    // The field that a message does not have is part of where the fault is.
                    writer.steps.push(Step::Key(key));
                    return Err(A::Error::custom(NO_SUCH_FIELD));
                }
            };
            writer.steps.push(Step::Name(name));
            if seen.iter().any(|(other, _)| *other == field) {
                return Err(A::Error::custom("is given twice"));
            }
            let set = map.next_value_seed(Optional { writer, field })?;
            if set && let Some(oneof) = field.oneof() {
                let same = seen
                    .iter()
                    .any(|(other, set)| *set && other.oneof() == Some(oneof));
                if same {
                    writer.steps.pop();
                    let name = kind.oneofs().nth(oneof).map(Oneof::name);
                    return Err(A::Error::custom(format!(
                        "multiple fields provided for oneof '{}'",
                        name.unwrap_or_default()
                    )));
                }
            }
            seen.push((field, set));
            writer.steps.pop();
        }
        Ok(())
    }
}

const NO_SUCH_FIELD: &str = "no such field";

/// The value of a field, with its key. True when it was not null.
struct Optional<'w> {
    writer: &'w mut Writer,
    field: FieldType,
}

impl<'de> DeserializeSeed<'de> for Optional<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<bool, D::Error> {
        from.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Optional<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("option")
    }

    fn visit_unit<E: Error>(self) -> std::result::Result<bool, E> {
        self.visit_none()
    }

    fn visit_none<E: Error>(self) -> std::result::Result<bool, E> {
        let Self { writer, field } = self;
        match field.kind() {
            // There null is a value like any other.
            Kind::Message(kind) if kind.full_name() == "google.protobuf.Value" => {
                writer.delimited(field.number(), write_null);
                Ok(true)
            }
            Kind::Enum(kind) if kind.full_name() == "google.protobuf.NullValue" => {
                if field.has_presence() {
                    writer.key(field.number(), WireType::Varint);
                    writer.number(Number::Varint(0));
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> std::result::Result<bool, D::Error> {
        let Self { writer, field } = self;
        if field.is_list() {
            from.deserialize_any(List { writer, field })?;
        } else if field.is_map() {
            from.deserialize_any(Entries { writer, field })?;
        } else {
            One { writer, field }.deserialize(from)?;
        }
        Ok(true)
    }
}

/// One value of a field, with its key.
struct One<'w> {
    writer: &'w mut Writer,
    field: FieldType,
}

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        let Self { writer, field } = self;
        match field.kind() {
            Kind::Message(kind) => writer.delimited(field.number(), |writer| {
                Contents { writer, kind }.deserialize(from)
            }),
            Kind::String => from.deserialize_str(Scalar { writer, field }),
            _ => from.deserialize_any(Scalar { writer, field }),
        }
    }
}

// === lists and maps ===

struct List<'w> {
    writer: &'w mut Writer,
    field: FieldType,
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
        let Self { writer, field } = self;
        for index in 0.. {
            writer.steps.push(Step::Index(index));
            let one = One { writer, field };
            let more = seq.next_element_seed(one)?.is_some();
            writer.steps.pop();
            if !more {
                break;
            }
        }
        Ok(())
    }
}

struct Entries<'w> {
    writer: &'w mut Writer,
    field: FieldType,
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let Self { writer, field } = self;
        let entry = field.message();
        let parts = entry.and_then(|entry| Some((entry.field(1)?, entry.field(2)?)));
        let Some((key_field, value_field)) = parts else {
            return Err(A::Error::custom("not a map"));
        };
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            writer.steps.push(Step::Key(key.clone()));
            writer.delimited(field.number(), |writer| {
                let keys = Scalar {
                    writer,
                    field: key_field,
                };
                keys.key(&key)?;
                map.next_value_seed(One {
                    writer,
                    field: value_field,
                })
            })?;
            if !seen.insert(key) {
                return Err(A::Error::custom("is given twice"));
            }
            writer.steps.pop();
        }
        Ok(())
    }
}
