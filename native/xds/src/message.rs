//! Encoded messages, read in place: a message is taken apart one level at a time, and what nobody looks into is never read.
//!
//! An [`Encoded`] message is bytes and a type; [`Encoded::read`] makes a [`Message`] of it, the fields that are set with their
//! values. Texts and bytes are borrowed from the input. What the wire format says about fields that occur more than once (the
//! last of scalars and of a oneof counts, messages are merged) holds here too.

use std::cell::Cell;

use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};
use tidegate_proto::schema::{FieldType, Kind, MessageType};

/// Bytes that are not the message they are said to be; the words are prost's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

impl From<prost::DecodeError> for Malformed {
    fn from(error: prost::DecodeError) -> Self {
        Self(error.to_string())
    }
}

fn malformed(reason: impl std::fmt::Display) -> Malformed {
    Malformed(format!("failed to decode Protobuf message: {reason}"))
}

/// How deep messages may be nested, as prost has it.
const MAX_DEPTH: usize = 100;

/// Two varints at their longest.
const ROOM_FOR_KEY_AND_LENGTH: usize = 20;

/// A message that has not been looked into.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Encoded<'a> {
    kind: MessageType,
    first: &'a [u8],
    /// A field that holds one message occurred again: this is to be merged.
    more: Vec<&'a [u8]>,
}

/// A message with the fields that are set, by number.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    kind: MessageType,
    set: Vec<Set<'a>>,
    unknown: Option<u32>,
}

#[derive(Debug)]
struct Set<'a> {
    field: FieldType,
    value: Value<'a>,
    taken: Cell<bool>,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Bool(bool),
    I32(i32),
    I64(i64),
    U32(u32),
    U64(u64),
    F32(f32),
    F64(f64),
    Enum(i32),
    Str(&'a str),
    Bytes(&'a [u8]),
    Message(Encoded<'a>),
    List(Vec<Value<'a>>),
    /// Keys and values, the last of each key.
    Map(Vec<(Value<'a>, Value<'a>)>),
}

impl<'a> Encoded<'a> {
    pub(crate) fn new(kind: MessageType, bytes: &'a [u8]) -> Self {
        Self {
            kind,
            first: bytes,
            more: Vec::new(),
        }
    }

    pub(crate) fn kind(&self) -> MessageType {
        self.kind
    }

    /// The encoded pieces, one after the other the whole.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &'a [u8]> {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }

    pub(crate) fn read(&self) -> Result<Message<'a>, Malformed> {
        let mut message = Message {
            kind: self.kind,
            set: Vec::new(),
            unknown: None,
        };
        for mut rest in self.pieces() {
            while !rest.is_empty() {
                message.read_field(&mut rest)?;
            }
        }
        message.set.retain_mut(|set| {
            if let Value::Map(entries) = &mut set.value {
                last_of_each_key(entries);
            }
            !set.is_default()
        });
        let number = |set: &Set<'_>| set.field.number();
        if !message.set.is_sorted_by_key(number) {
            message.set.sort_by_key(number);
        }
        Ok(message)
    }

    /// Whether all of it is well-formed, to the bottom.
    pub(crate) fn check(&self, depth: usize) -> Result<(), Malformed> {
        let message = self.read_at(depth)?;
        message
            .set
            .iter()
            .try_for_each(|set| set.value.check(depth))
    }

    /// [`Encoded::read`] on the way down from the root.
    pub(crate) fn read_at(&self, depth: usize) -> Result<Message<'a>, Malformed> {
        if depth > MAX_DEPTH {
            return Err(malformed("recursion limit reached"));
        }
        self.read()
    }

    /// Encoded anew with one field replaced, or given.
    pub(crate) fn with(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, Malformed> {
        let field = self
            .kind
            .field_named(name)
            .ok_or_else(|| malformed(format!("{:?} has no field {name}", self.kind)))?;
        let replaced = |number: u32| {
            number == field.number()
                || field.oneof().is_some()
                    && self.kind.field(number).and_then(FieldType::oneof) == field.oneof()
        };
        let size: usize = self.pieces().map(<[u8]>::len).sum();
        let mut out = Vec::with_capacity(size + value.len() + ROOM_FOR_KEY_AND_LENGTH);
        for piece in self.pieces() {
            let mut rest = piece;
            while !rest.is_empty() {
                let record = rest;
                let (number, wire_type) = decode_key(&mut rest)?;
                skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
                if !replaced(number) {
                    out.extend_from_slice(
                        record.get(..record.len() - rest.len()).unwrap_or_default(),
                    );
                }
            }
        }
        encode_key(field.number(), WireType::LengthDelimited, &mut out);
        encode_varint(value.len() as u64, &mut out);
        out.extend_from_slice(value);
        Ok(out)
    }
}

impl<'a> Message<'a> {
    pub(crate) fn kind(&self) -> MessageType {
        self.kind
    }

    /// The fields that are set, by number.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (FieldType, &Value<'a>)> {
        self.set.iter().map(|set| (set.field, &set.value))
    }

    /// The number of a field that the schema does not know.
    pub(crate) fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    pub(crate) fn number(&self, number: u32) -> Option<&Value<'a>> {
        let found = self.set.iter().find(|set| set.field.number() == number)?;
        Some(&found.value)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value<'a>> {
        let found = self.set.iter().find(|set| set.field.name() == name)?;
        Some(&found.value)
    }

    /// [`Message::get`], remembered.
    pub(crate) fn take(&self, name: &str) -> Option<&Value<'a>> {
        let found = self.set.iter().find(|set| set.field.name() == name)?;
        found.taken.set(true);
        Some(&found.value)
    }

    /// The first field that nobody took.
    pub(crate) fn left(&self) -> Option<FieldType> {
        let left = self.set.iter().find(|set| !set.taken.get());
        left.map(|set| set.field)
    }

    fn read_field(&mut self, rest: &mut &'a [u8]) -> Result<(), Malformed> {
        let (number, wire_type) = decode_key(rest)?;
        let Some(field) = self.kind.field(number) else {
            skip_field(wire_type, number, rest, DecodeContext::default())?;
            self.unknown.get_or_insert(number);
            return Ok(());
        };
        if let Some(oneof) = field.oneof() {
            self.set
                .retain(|set| set.field == field || set.field.oneof() != Some(oneof));
        }
        let known = self.set.iter().position(|set| set.field == field);
        let at = known.unwrap_or(self.set.len());
        if known.is_none() {
            let value = Value::default_of(field);
            let taken = Cell::new(false);
            self.set.push(Set {
                field,
                value,
                taken,
            });
        }
        let Some(set) = self.set.get_mut(at) else {
            return Ok(());
        };
        match &mut set.value {
            Value::List(items) => {
                // Numbers come one by one or all in one piece.
                match scalar_type(field) {
                    Some(scalar) if wire_type == WireType::LengthDelimited => {
                        let mut packed = delimited(rest)?;
                        while !packed.is_empty() {
                            items.push(Value::read(field, scalar, &mut packed)?);
                        }
                    }
                    _ => items.push(Value::read(field, wire_type, rest)?),
                }
            }
            Value::Map(entries) => {
                if let Value::Message(entry) = Value::read(field, wire_type, rest)? {
                    entries.push(entry.entry()?);
                }
            }
            old => match (Value::read(field, wire_type, rest)?, old) {
                (Value::Message(again), Value::Message(message)) if known.is_some() => {
                    message.more.push(again.first);
                }
                (value, old) => *old = value,
            },
        }
        Ok(())
    }
}

impl Set<'_> {
    /// Of a field that tells no difference between its default and nothing.
    fn is_default(&self) -> bool {
        !self.field.has_presence()
            && match &self.value {
                Value::List(items) => items.is_empty(),
                Value::Map(_) | Value::Message(_) => false,
                value => *value == Value::default_of(self.field),
            }
    }
}

impl<'a> Encoded<'a> {
    /// Key and value of the entry of a map.
    fn entry(&self) -> Result<(Value<'a>, Value<'a>), Malformed> {
        let mut entry = self.read()?;
        let mut part = |number| {
            let at = entry
                .set
                .iter()
                .position(|set| set.field.number() == number);
            match (at, self.kind.field(number)) {
                (Some(at), _) => Ok(entry.set.swap_remove(at).value),
                (None, Some(field)) => Ok(Value::default_of(field)),
                (None, None) => Err(malformed("a map entry without a key or a value")),
            }
        };
        Ok((part(1)?, part(2)?))
    }
}

/// In the order of the keys.
fn last_of_each_key(entries: &mut Vec<(Value<'_>, Value<'_>)>) {
    let order = |key: &Value<'_>| (key.as_integer(), key.as_bool());
    entries.sort_by(|(a, _), (b, _)| (a.as_str(), order(a)).cmp(&(b.as_str(), order(b))));
    entries.dedup_by(|(key, value), (kept_key, kept)| {
        let same = key == kept_key;
        if same {
            std::mem::swap(value, kept);
        }
        same
    });
}

fn delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(decode_varint(rest)?)
        .map_err(|_| malformed("length delimiter exceeds maximum usize value"))?;
    let (found, after) = rest
        .split_at_checked(length)
        .ok_or_else(|| malformed("buffer underflow"))?;
    *rest = after;
    Ok(found)
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (found, after) = rest
        .split_first_chunk()
        .ok_or_else(|| malformed("buffer underflow"))?;
    *rest = after;
    Ok(*found)
}

/// The wire type of a number; `None` for what has a length.
pub(crate) fn scalar_type(field: FieldType) -> Option<WireType> {
    match field.kind() {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Some(WireType::SixtyFourBit),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Some(WireType::ThirtyTwoBit),
        Kind::String | Kind::Bytes | Kind::Message(_) => None,
        _ => Some(WireType::Varint),
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

impl<'a> Value<'a> {
    fn read(field: FieldType, found: WireType, rest: &mut &'a [u8]) -> Result<Self, Malformed> {
        let wanted = scalar_type(field).unwrap_or(WireType::LengthDelimited);
        if found != wanted {
            return Err(malformed(format!(
                "{field:?}: invalid wire type: {found:?} (expected {wanted:?})"
            )));
        }
        Ok(match field.kind() {
            Kind::Double => Self::F64(f64::from_le_bytes(fixed(rest)?)),
            Kind::Float => Self::F32(f32::from_le_bytes(fixed(rest)?)),
            Kind::Fixed64 => Self::U64(u64::from_le_bytes(fixed(rest)?)),
            Kind::Sfixed64 => Self::I64(i64::from_le_bytes(fixed(rest)?)),
            Kind::Fixed32 => Self::U32(u32::from_le_bytes(fixed(rest)?)),
            Kind::Sfixed32 => Self::I32(i32::from_le_bytes(fixed(rest)?)),
            Kind::Int64 => Self::I64(decode_varint(rest)? as i64),
            Kind::Uint64 => Self::U64(decode_varint(rest)?),
            Kind::Int32 => Self::I32(decode_varint(rest)? as i32),
            Kind::Uint32 => Self::U32(decode_varint(rest)? as u32),
            Kind::Sint32 => Self::I32(zigzag(decode_varint(rest)?) as i32),
            Kind::Sint64 => Self::I64(zigzag(decode_varint(rest)?)),
            Kind::Bool => Self::Bool(decode_varint(rest)? != 0),
            Kind::Enum(_) => Self::Enum(decode_varint(rest)? as i32),
            Kind::String => Self::Str(std::str::from_utf8(delimited(rest)?).map_err(|_| {
                malformed(format!(
                    "{field:?}: invalid string value: data is not UTF-8 encoded"
                ))
            })?),
            Kind::Bytes => Self::Bytes(delimited(rest)?),
            Kind::Message(kind) => Self::Message(Encoded::new(kind, delimited(rest)?)),
        })
    }

    /// What a field has that is not set. A message in a map may be that.
    pub(crate) fn default_of(field: FieldType) -> Self {
        if field.is_list() {
            return Self::List(Vec::new());
        }
        if field.is_map() {
            return Self::Map(Vec::new());
        }
        match field.kind() {
            Kind::Double => Self::F64(0.0),
            Kind::Float => Self::F32(0.0),
            Kind::Int64 | Kind::Sfixed64 | Kind::Sint64 => Self::I64(0),
            Kind::Uint64 | Kind::Fixed64 => Self::U64(0),
            Kind::Int32 | Kind::Sfixed32 | Kind::Sint32 => Self::I32(0),
            Kind::Uint32 | Kind::Fixed32 => Self::U32(0),
            Kind::Bool => Self::Bool(false),
            Kind::Enum(_) => Self::Enum(0),
            Kind::String => Self::Str(""),
            Kind::Bytes => Self::Bytes(&[]),
            Kind::Message(kind) => Self::Message(Encoded::new(kind, &[])),
        }
    }

    /// Whether all messages below are well-formed.
    pub(crate) fn check(&self, depth: usize) -> Result<(), Malformed> {
        match self {
            Self::Message(message) => message.check(depth + 1),
            Self::List(items) => items.iter().try_for_each(|item| item.check(depth)),
            Self::Map(entries) => entries.iter().try_for_each(|(_, value)| value.check(depth)),
            _ => Ok(()),
        }
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// An integer of any width.
    pub(crate) fn as_integer(&self) -> Option<i128> {
        match self {
            Self::I32(value) => Some(i128::from(*value)),
            Self::I64(value) => Some(i128::from(*value)),
            Self::U32(value) => Some(i128::from(*value)),
            Self::U64(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    pub(crate) fn as_u64(&self) -> Option<u64> {
        u64::try_from(self.as_integer()?).ok()
    }

    /// A number with a fraction, of any width.
    pub(crate) fn as_float(&self) -> Option<f64> {
        match self {
            Self::F64(value) => Some(*value),
            Self::F32(value) => Some(f64::from(*value)),
            _ => None,
        }
    }

    pub(crate) fn as_enum(&self) -> Option<i32> {
        match self {
            Self::Enum(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&'a str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn as_message(&self) -> Option<&Encoded<'a>> {
        match self {
            Self::Message(message) => Some(message),
            _ => None,
        }
    }

    pub(crate) fn as_list(&self) -> Option<&[Value<'a>]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn as_map(&self) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self {
            Self::Map(entries) => Some(entries),
            _ => None,
        }
    }
}
