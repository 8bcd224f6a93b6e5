//! proto-JSON into encoded messages, in one pass over whatever [`serde`] can read: text, or values.
//!
//! What is read is written at once, by the schema; there is no message in between. Fields go by both of their names, numbers and
//! enum values in all of their forms, the well-known types have the forms that protobuf gives them. Everything that does not fit
//! is a [`Fault`] with its path. Beyond the rules of protobuf's JSON, a key must not be given twice, in any object.

use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::{Map, Value as Json};
use tidegate_proto::schema::{FieldType, Kind, MessageType, Oneof};

use crate::any::type_name;
use crate::context::{Fault, Result, message_type};
use crate::message::scalar_type;

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

/// A step from a message to what it contains.
enum Step {
    Name(&'static str),
    Key(String),
    Index(usize),
}

/// What has been written, and where we are.
#[derive(Default)]
struct Writer {
    out: Vec<u8>,
    steps: Vec<Step>,
}

impl Writer {
    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.steps {
            match step {
                Step::Index(index) => path.push_str(&format!("[{index}]")),
                Step::Name(_) | Step::Key(_) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(match step {
                        Step::Key(key) => key,
                        Step::Name(name) => name,
                        Step::Index(_) => "",
                    });
                }
            }
        }
        path
    }

    fn key(&mut self, number: u32, wire_type: WireType) {
        encode_key(number, wire_type, &mut self.out);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.key(number, WireType::LengthDelimited);
        encode_varint(bytes.len() as u64, &mut self.out);
        self.out.extend_from_slice(bytes);
    }

    /// A number without its key.
    fn number(&mut self, number: Number) {
        match number {
            Number::Varint(value) => encode_varint(value, &mut self.out),
            Number::Four(bytes) => self.out.extend_from_slice(&bytes),
            Number::Eight(bytes) => self.out.extend_from_slice(&bytes),
        }
    }

    /// What `write` writes, with its length before it.
    fn delimited<T>(&mut self, number: u32, write: impl FnOnce(&mut Self) -> T) -> T {
        self.key(number, WireType::LengthDelimited);
        let at = self.out.len();
        // Room for a short length; a long one moves what follows.
        self.out.push(0);
        let written = write(self);
        let from = at + 1;
        let end = self.out.len();
        let mut length = [0; 10];
        let size = {
            let mut rest = &mut length[..];
            encode_varint((end - from) as u64, &mut rest);
            10 - rest.len()
        };
        if size > 1 {
            self.out.resize(end + size - 1, 0);
            self.out.copy_within(from..end, at + size);
        }
        if let (Some(to), Some(length)) = (self.out.get_mut(at..at + size), length.get(..size)) {
            to.copy_from_slice(length);
        }
        written
    }
}

/// A number as it is encoded.
#[derive(Clone, Copy)]
enum Number {
    Varint(u64),
    Four([u8; 4]),
    Eight([u8; 8]),
}

impl Number {
    fn is_zero(self) -> bool {
        match self {
            Self::Varint(value) => value == 0,
            Self::Four(bytes) => bytes == [0; 4],
            Self::Eight(bytes) => bytes == [0; 8],
        }
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
            "Duration" => from.deserialize_str(Duration { writer }),
            "Timestamp" => from.deserialize_str(Timestamp { writer }),
            "FieldMask" => from.deserialize_str(FieldMask { writer }),
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

// === scalars ===

/// A value that is no message, with its key; nothing for a default that is as good as nothing.
struct Scalar<'w> {
    writer: &'w mut Writer,
    field: FieldType,
}

type Done<E> = std::result::Result<(), E>;

impl Scalar<'_> {
    /// Whether a default must be written.
    fn keeps_default(&self) -> bool {
        self.field.has_presence() || self.field.is_list()
    }

    fn write<E>(self, number: Number) -> Done<E> {
        if self.keeps_default() || !number.is_zero() {
            let wire_type = scalar_type(self.field).unwrap_or(WireType::Varint);
            self.writer.key(self.field.number(), wire_type);
            self.writer.number(number);
        }
        Ok(())
    }

    fn bytes<E>(self, bytes: &[u8]) -> Done<E> {
        if self.keeps_default() || !bytes.is_empty() {
            self.writer.bytes(self.field.number(), bytes);
        }
        Ok(())
    }

    fn integer<E: Error>(self, value: i128, given: Unexpected<'_>) -> Done<E> {
        let range = |_| E::custom("out of range integral type conversion attempted");
        let number = match self.field.kind() {
            Kind::Double => Number::Eight((value as f64).to_le_bytes()),
            Kind::Float => Number::Four((value as f32).to_le_bytes()),
            Kind::Int32 | Kind::Enum(_) => {
                let value = i32::try_from(value).map_err(range)?;
                Number::Varint(i64::from(value) as u64)
            }
            Kind::Int64 => Number::Varint(i64::try_from(value).map_err(range)? as u64),
            Kind::Uint32 => Number::Varint(u64::from(u32::try_from(value).map_err(range)?)),
            Kind::Uint64 => Number::Varint(u64::try_from(value).map_err(range)?),
            Kind::Sint32 => zigzag(i64::from(i32::try_from(value).map_err(range)?)),
            Kind::Sint64 => zigzag(i64::try_from(value).map_err(range)?),
            Kind::Fixed32 => Number::Four(u32::try_from(value).map_err(range)?.to_le_bytes()),
            Kind::Sfixed32 => Number::Four(i32::try_from(value).map_err(range)?.to_le_bytes()),
            Kind::Fixed64 => Number::Eight(u64::try_from(value).map_err(range)?.to_le_bytes()),
            Kind::Sfixed64 => Number::Eight(i64::try_from(value).map_err(range)?.to_le_bytes()),
            Kind::Bool | Kind::String | Kind::Bytes | Kind::Message(_) => {
                return Err(E::invalid_type(given, &self));
            }
        };
        self.write(number)
    }

    fn float<E: Error>(self, value: f64) -> Done<E> {
        match self.field.kind() {
            Kind::Double => self.write(Number::Eight(value.to_le_bytes())),
            Kind::Float if value.is_finite() && (value as f32).is_infinite() => {
                Err(E::custom("float value out of range"))
            }
            Kind::Float => self.write(Number::Four((value as f32).to_le_bytes())),
            Kind::Bool | Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Enum(_) => {
                Err(E::invalid_type(Unexpected::Float(value), &self))
            }
            _ if value.fract() != 0.0 => Err(E::custom("expected integer value")),
            // Beyond this not every integer is a double, and all types of ours end.
            _ if value.abs() > 2f64.powi(64) => Err(E::custom("float value out of range")),
            _ => self.integer(value as i128, Unexpected::Float(value)),
        }
    }

    /// The key of a map, which is text in JSON whatever it is.
    fn key<E: Error>(self, key: &str) -> Done<E> {
        match self.field.kind() {
            Kind::Bool => {
                let value: bool = key.parse().map_err(E::custom)?;
                self.write(Number::Varint(u64::from(value)))
            }
            _ => self.visit_str(key),
        }
    }
}

fn zigzag(value: i64) -> Number {
    Number::Varint(((value << 1) ^ (value >> 63)) as u64)
}

impl Visitor<'_> for Scalar<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.field.kind() {
            Kind::Double => "a 64-bit floating point value",
            Kind::Float => "a 32-bit floating point value",
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "a 32-bit signed integer",
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                "a 64-bit signed integer or decimal string"
            }
            Kind::Uint32 | Kind::Fixed32 => "a 32-bit unsigned integer or decimal string",
            Kind::Uint64 | Kind::Fixed64 => "a 64-bit unsigned integer or decimal string",
            Kind::Bool => "a boolean",
            Kind::String => "a string",
            Kind::Bytes => "a base64-encoded string",
            Kind::Enum(_) => "a string or integer",
            Kind::Message(_) => "a map",
        })
    }

    fn visit_bool<E: Error>(self, value: bool) -> Done<E> {
        match self.field.kind() {
            Kind::Bool => self.write(Number::Varint(u64::from(value))),
            _ => Err(E::invalid_type(Unexpected::Bool(value), &self)),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Done<E> {
        self.integer(i128::from(value), Unexpected::Signed(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Done<E> {
        self.integer(i128::from(value), Unexpected::Unsigned(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Done<E> {
        self.float(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Done<E> {
        let given = Unexpected::Str(text);
        match self.field.kind() {
            Kind::String => self.bytes(text.as_bytes()),
            Kind::Bytes => {
                let bytes =
                    base64(text).map_err(|error| E::custom(format!("invalid base64: {error}")))?;
                self.bytes(&bytes)
            }
            Kind::Enum(kind) if kind.full_name() == "google.protobuf.NullValue" => match text {
                "NULL_VALUE" => self.write(Number::Varint(0)),
                _ => Err(E::custom("expected null")),
            },
            Kind::Enum(kind) => match kind.number_of(text) {
                Some(number) => self.integer(i128::from(number), given),
                None => Err(E::custom(format!("unrecognized enum value '{text}'"))),
            },
            Kind::Double | Kind::Float => {
                // The names of what has no digits are the same in Rust, in any case.
                let value: f64 = text.parse().map_err(E::custom)?;
                self.float(value)
            }
            Kind::Bool | Kind::Message(_) => Err(E::invalid_type(given, &self)),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                let value: i64 = text.parse().map_err(E::custom)?;
                self.integer(i128::from(value), given)
            }
            Kind::Uint64 | Kind::Fixed64 => {
                let value: u64 = text.parse().map_err(E::custom)?;
                self.integer(i128::from(value), given)
            }
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                let value: i32 = text.parse().map_err(E::custom)?;
                self.integer(i128::from(value), given)
            }
            Kind::Uint32 | Kind::Fixed32 => {
                let value: u32 = text.parse().map_err(E::custom)?;
                self.integer(i128::from(value), given)
            }
        }
    }
}

/// Either alphabet, padded or not.
fn base64(text: &str) -> std::result::Result<Vec<u8>, base64::DecodeError> {
    use base64::alphabet::{STANDARD, URL_SAFE};
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) {
        &URL_SAFE
    } else {
        &STANDARD
    };
    GeneralPurpose::new(alphabet, config).decode(text)
}

// === well-known types ===

struct Any<'w> {
    writer: &'w mut Writer,
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let Self { writer } = self;
        if map.next_key::<String>()?.as_deref() != Some("@type") {
            return Err(A::Error::custom("expected '@type' field"));
        }
        writer.steps.push(Step::Name("@type"));
        let type_url: String = map.next_value()?;
        let name = type_name(&type_url);
        let Some(kind) = MessageType::named(name) else {
            return Err(A::Error::custom(format!(
                "type.googleapis.com/{name} is unknown"
            )));
        };
        if name == type_url {
            return Err(A::Error::custom(format!(
                "unsupported type url '{type_url}'"
            )));
        }
        writer.steps.pop();
        writer.bytes(1, type_url.as_bytes());
        writer.delimited(2, |writer| {
            if !is_well_known(kind) {
                return Fields { writer, kind }.visit_map(map);
            }
            match map.next_key::<String>()? {
                Some(key) if key == "value" => {
                    writer.steps.push(Step::Key(key));
                    map.next_value_seed(Contents { writer, kind })?;
                    writer.steps.pop();
                }
                Some(key) => {
                    writer.steps.push(Step::Key(key));
                    return Err(A::Error::custom(NO_SUCH_FIELD));
                }
                None => return Err(A::Error::custom("expected 'value' field")),
            }
            if let Some(key) = map.next_key::<String>()? {
                writer.steps.push(Step::Key(key));
                return Err(A::Error::custom(NO_SUCH_FIELD));
            }
            Ok(())
        })
    }
}

// Fields of `google.protobuf.Struct`, `ListValue` and `Value`.
const FIELDS: u32 = 1;
const VALUES: u32 = 1;
const NULL_VALUE: u32 = 1;
const NUMBER_VALUE: u32 = 2;
const STRING_VALUE: u32 = 3;
const BOOL_VALUE: u32 = 4;
const STRUCT_VALUE: u32 = 5;
const LIST_VALUE: u32 = 6;

fn write_null(writer: &mut Writer) {
    writer.key(NULL_VALUE, WireType::Varint);
    writer.number(Number::Varint(0));
}

struct Struct<'w> {
    writer: &'w mut Writer,
}

impl<'de> Visitor<'de> for Struct<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let Self { writer } = self;
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            writer.steps.push(Step::Key(key.clone()));
            writer.delimited(FIELDS, |writer| {
                writer.bytes(1, key.as_bytes());
                writer.delimited(2, |writer| map.next_value_seed(AnyValue { writer }))
            })?;
            if !seen.insert(key) {
                return Err(A::Error::custom("is given twice"));
            }
            writer.steps.pop();
        }
        Ok(())
    }
}

struct ListValue<'w> {
    writer: &'w mut Writer,
}

/// An element of a `ListValue`, with its key.
struct Element<'w> {
    writer: &'w mut Writer,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Done<D::Error> {
        self.writer
            .delimited(VALUES, |writer| from.deserialize_any(AnyValue { writer }))
    }
}

impl<'de> Visitor<'de> for ListValue<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
        let Self { writer } = self;
        for index in 0.. {
            writer.steps.push(Step::Index(index));
            let more = seq.next_element_seed(Element { writer })?.is_some();
            writer.steps.pop();
            if !more {
                break;
            }
        }
        Ok(())
    }
}

struct AnyValue<'w> {
    writer: &'w mut Writer,
}

impl<'de> DeserializeSeed<'de> for AnyValue<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Done<D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Done<E> {
        self.writer.key(BOOL_VALUE, WireType::Varint);
        self.writer.number(Number::Varint(u64::from(value)));
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Done<E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Done<E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Done<E> {
        self.writer.key(NUMBER_VALUE, WireType::SixtyFourBit);
        self.writer.number(Number::Eight(value.to_le_bytes()));
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Done<E> {
        self.writer.bytes(STRING_VALUE, text.as_bytes());
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Done<E> {
        write_null(self.writer);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Done<A::Error> {
        self.writer
            .delimited(LIST_VALUE, |writer| ListValue { writer }.visit_seq(seq))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Done<A::Error> {
        self.writer
            .delimited(STRUCT_VALUE, |writer| Struct { writer }.visit_map(map))
    }
}

/// Seconds and nanoseconds, as durations and timestamps are encoded.
fn write_time(writer: &mut Writer, seconds: i64, nanos: i32) {
    for (number, value) in [(1, seconds), (2, i64::from(nanos))] {
        if value != 0 {
            writer.key(number, WireType::Varint);
            writer.number(Number::Varint(value as u64));
        }
    }
}

struct Duration<'w> {
    writer: &'w mut Writer,
}

/// Some 10,000 years, the protocol's limit.
const MOST_SECONDS: i64 = 315_576_000_000;

impl Visitor<'_> for Duration<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Done<E> {
        let duration: prost_types::Duration = text.parse().map_err(E::custom)?;
        if duration.seconds.abs() > MOST_SECONDS {
            return Err(E::custom("duration out of range"));
        }
        write_time(self.writer, duration.seconds, duration.nanos);
        Ok(())
    }
}

struct Timestamp<'w> {
    writer: &'w mut Writer,
}

impl Visitor<'_> for Timestamp<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a rfc3339 timestamp string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Done<E> {
        let time: prost_types::Timestamp = text.parse().map_err(E::custom)?;
        // The years 1 to 9999, in capital letters.
        if !(-62_135_596_800..=253_402_300_799).contains(&time.seconds) || !text.contains('T') {
            return Err(E::custom("timestamp out of range"));
        }
        write_time(self.writer, time.seconds, time.nanos);
        Ok(())
    }
}

struct FieldMask<'w> {
    writer: &'w mut Writer,
}

impl Visitor<'_> for FieldMask<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field mask string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Done<E> {
        if text.contains('_') {
            return Err(E::custom("invalid field mask"));
        }
        for path in text.split(',').filter(|path| !path.is_empty()) {
            let mut snake = String::new();
            for c in path.chars() {
                if c.is_ascii_uppercase() {
                    snake.push('_');
                }
                snake.push(c.to_ascii_lowercase());
            }
            self.writer.bytes(1, snake.as_bytes());
        }
        Ok(())
    }
}
