//! The messages that have a JSON of their own: `Any`, `Struct` and its parts, durations, timestamps, field masks.

use std::collections::HashSet;
use std::fmt;

use prost::encoding::WireType;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use tidegate_proto::schema::MessageType;

use super::scalar::Done;
use super::writer::{Number, Step, Writer};
use super::{Contents, Fields, NO_SUCH_FIELD, is_well_known};
use crate::any::type_name;

pub(super) struct Any<'w> {
    pub(super) writer: &'w mut Writer,
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

pub(super) fn write_null(writer: &mut Writer) {
    writer.key(NULL_VALUE, WireType::Varint);
    writer.number(Number::Varint(0));
}

pub(super) struct Struct<'w> {
    pub(super) writer: &'w mut Writer,
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

pub(super) struct ListValue<'w> {
    pub(super) writer: &'w mut Writer,
}

/// An element of a `ListValue`, with its key.
pub(super) struct Element<'w> {
    pub(super) writer: &'w mut Writer,
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

pub(super) struct AnyValue<'w> {
    pub(super) writer: &'w mut Writer,
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

/// Some 10,000 years, the protocol's limit.
const MOST_SECONDS: i64 = 315_576_000_000;

/// A message that is a string in JSON.
pub(super) struct Text<'w> {
    writer: &'w mut Writer,
    expected: &'static str,
    write: fn(&mut Writer, &str) -> Result<(), String>,
}

impl<'w> Text<'w> {
    pub(super) fn duration(writer: &'w mut Writer) -> Self {
        Self {
            writer,
            expected: "a duration string",
            write: write_duration,
        }
    }

    pub(super) fn timestamp(writer: &'w mut Writer) -> Self {
        Self {
            writer,
            expected: "a rfc3339 timestamp string",
            write: write_timestamp,
        }
    }

    pub(super) fn field_mask(writer: &'w mut Writer) -> Self {
        Self {
            writer,
            expected: "a field mask string",
            write: write_field_mask,
        }
    }
}

impl Visitor<'_> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Done<E> {
        (self.write)(self.writer, text).map_err(E::custom)
    }
}

fn write_duration(writer: &mut Writer, text: &str) -> Result<(), String> {
    let duration: prost_types::Duration = text
        .parse()
        .map_err(|error: prost_types::DurationError| error.to_string())?;
    if duration.seconds.abs() > MOST_SECONDS {
        return Err("duration out of range".to_owned());
    }
    write_time(writer, duration.seconds, duration.nanos);
    Ok(())
}

fn write_timestamp(writer: &mut Writer, text: &str) -> Result<(), String> {
    let time: prost_types::Timestamp = text
        .parse()
        .map_err(|error: prost_types::TimestampError| error.to_string())?;
    // The years 1 to 9999, in capital letters.
    if !(-62_135_596_800..=253_402_300_799).contains(&time.seconds) || !text.contains('T') {
        return Err("timestamp out of range".to_owned());
    }
    write_time(writer, time.seconds, time.nanos);
    Ok(())
}

fn write_field_mask(writer: &mut Writer, text: &str) -> Result<(), String> {
    if text.contains('_') {
        return Err("invalid field mask".to_owned());
    }
    for path in text.split(',').filter(|path| !path.is_empty()) {
        let mut snake = String::new();
        for c in path.chars() {
            if c.is_ascii_uppercase() {
                snake.push('_');
            }
            snake.push(c.to_ascii_lowercase());
        }
        writer.bytes(1, snake.as_bytes());
    }
    Ok(())
}
