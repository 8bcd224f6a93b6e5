//! Messages, fields and enums by name and number, as tables in the binary.

use crate::FileId;

mod tables {
    #![allow(
        clippy::unreadable_literal,
        reason = "generated: places in texts and tables"
    )]
    use super::{EnumRow, FieldRow, MessageRow, OneofRow, Span, ValueRow};

    include!(concat!(env!("OUT_DIR"), "/schema.rs"));
}
use tables::{ENUMS, FIELDS, MESSAGES, NAMES, ONEOFS, RULES, VALUES};

/// Start and length.
#[derive(Clone, Copy)]
struct Span(u32, u16);

impl Span {
    fn of<T>(self, table: &[T]) -> &[T] {
        let start = self.0 as usize;
        table
            .get(start..start + usize::from(self.1))
            .unwrap_or_default()
    }

    fn text(self) -> &'static str {
        let start = self.0 as usize;
        NAMES
            .get(start..start + usize::from(self.1))
            .unwrap_or_default()
    }
}

struct MessageRow {
    name: Span,
    fields: Span,
    oneofs: Span,
    file: u16,
    unchecked: bool,
}

struct FieldRow {
    name: Span,
    json_name: Span,
    rules: Span,
    number: u32,
    /// `FieldDescriptorProto.Type`.
    kind: u8,
    /// The message or the enum.
    of: u16,
    /// Its place among the message's; 255: in none.
    oneof: u8,
    list: bool,
    map: bool,
    presence: bool,
}

struct OneofRow {
    name: Span,
    required: bool,
}

struct EnumRow {
    name: Span,
    values: Span,
}

struct ValueRow {
    name: Span,
    number: i32,
}

/// A message type.
#[derive(Clone, Copy)]
pub struct MessageType(&'static MessageRow);

/// A field of a message type.
#[derive(Clone, Copy)]
pub struct FieldType(&'static FieldRow);

/// An enum.
#[derive(Clone, Copy)]
pub struct EnumType(&'static EnumRow);

/// A oneof of a message type.
#[derive(Clone, Copy)]
pub struct Oneof(&'static OneofRow);

/// What a field's values are. Of a map field: its entries.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Message(MessageType),
    Bytes,
    Uint32,
    Enum(EnumType),
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
}

impl std::fmt::Debug for MessageType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.full_name())
    }
}

impl std::fmt::Debug for FieldType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::fmt::Debug for EnumType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.full_name())
    }
}

impl PartialEq for MessageType {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl PartialEq for FieldType {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl MessageType {
    /// By full name: `envoy.config.cluster.v3.Cluster`.
    pub fn named(full_name: &str) -> Option<Self> {
        let at = MESSAGES
            .binary_search_by(|row| row.name.text().cmp(full_name))
            .ok()?;
        MESSAGES.get(at).map(Self)
    }

    /// All there are, in the order of [`MessageType::index`].
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        MESSAGES.iter().map(Self)
    }

    /// Its place in a table of all message types.
    pub fn index(self) -> usize {
        (std::ptr::from_ref(self.0).addr() - MESSAGES.as_ptr().addr()) / size_of::<MessageRow>()
    }

    pub fn full_name(self) -> &'static str {
        self.0.name.text()
    }

    pub fn file(self) -> FileId {
        FileId(self.0.file)
    }

    /// Sorted by number.
    pub fn fields(self) -> impl ExactSizeIterator<Item = FieldType> {
        self.0.fields.of(FIELDS).iter().map(FieldType)
    }

    pub fn field(self, number: u32) -> Option<FieldType> {
        let fields = self.0.fields.of(FIELDS);
        // Most fields stand at the place of their number.
        if let Some(row) = fields
            .get((number as usize).wrapping_sub(1))
            .filter(|row| row.number == number)
        {
            return Some(FieldType(row));
        }
        let at = fields
            .binary_search_by_key(&number, |row| row.number)
            .ok()?;
        fields.get(at).map(FieldType)
    }

    pub fn field_named(self, name: &str) -> Option<FieldType> {
        let fields = self.0.fields.of(FIELDS).iter();
        fields
            .map(FieldType)
            .find(|field| usize::from(field.0.name.1) == name.len() && field.name() == name)
    }

    /// By either of a field's names, `route_config` or `routeConfig`.
    pub fn field_with_json_name(self, name: &str) -> Option<FieldType> {
        let json_named = || {
            let fields = self.0.fields.of(FIELDS).iter();
            fields.map(FieldType).find(|field| {
                usize::from(field.0.json_name.1) == name.len() && field.json_name() == name
            })
        };
        self.field_named(name).or_else(json_named)
    }

    pub fn oneofs(self) -> impl ExactSizeIterator<Item = Oneof> {
        self.0.oneofs.of(ONEOFS).iter().map(Oneof)
    }

    /// No validation rules here or below (`validate.ignored`, `validate.disabled`).
    pub fn is_unchecked(self) -> bool {
        self.0.unchecked
    }

    /// A type of protobuf itself, of which JSON has an idea of its own.
    pub fn is_google(self) -> bool {
        self.full_name().starts_with("google.protobuf.")
    }
}

impl FieldType {
    pub fn name(self) -> &'static str {
        self.0.name.text()
    }

    /// In camel case.
    pub fn json_name(self) -> &'static str {
        self.0.json_name.text()
    }

    pub fn number(self) -> u32 {
        self.0.number
    }

    pub fn is_list(self) -> bool {
        self.0.list
    }

    pub fn is_map(self) -> bool {
        self.0.map
    }

    /// Whether "not set" differs from the default.
    pub fn has_presence(self) -> bool {
        self.0.presence
    }

    /// The place of the oneof that it is in among its message's.
    pub fn oneof(self) -> Option<usize> {
        (self.0.oneof != u8::MAX).then_some(usize::from(self.0.oneof))
    }

    /// An encoded `validate.FieldRules`, empty when there are none.
    pub fn rules(self) -> &'static [u8] {
        self.0.rules.of(RULES)
    }

    pub fn kind(self) -> Kind {
        let of = usize::from(self.0.of);
        match self.0.kind {
            1 => Kind::Double,
            2 => Kind::Float,
            3 => Kind::Int64,
            4 => Kind::Uint64,
            5 => Kind::Int32,
            6 => Kind::Fixed64,
            7 => Kind::Fixed32,
            8 => Kind::Bool,
            9 => Kind::String,
            13 => Kind::Uint32,
            15 => Kind::Sfixed32,
            16 => Kind::Sfixed64,
            17 => Kind::Sint32,
            18 => Kind::Sint64,
            // The generator has looked it up.
            11 => MESSAGES
                .get(of)
                .map_or(Kind::Bytes, |row| Kind::Message(MessageType(row))),
            14 => ENUMS
                .get(of)
                .map_or(Kind::Bytes, |row| Kind::Enum(EnumType(row))),
            _ => Kind::Bytes,
        }
    }

    pub fn message(self) -> Option<MessageType> {
        match self.kind() {
            Kind::Message(message) => Some(message),
            _ => None,
        }
    }
}

impl EnumType {
    pub fn full_name(self) -> &'static str {
        self.0.name.text()
    }

    pub fn name_of(self, number: i32) -> Option<&'static str> {
        let mut values = self.0.values.of(VALUES).iter();
        values
            .find(|row| row.number == number)
            .map(|row| row.name.text())
    }

    pub fn number_of(self, name: &str) -> Option<i32> {
        let mut values = self.0.values.of(VALUES).iter();
        values
            .find(|row| row.name.text() == name)
            .map(|row| row.number)
    }
}

impl Oneof {
    pub fn name(self) -> &'static str {
        self.0.name.text()
    }

    /// One of its fields must be set (`validate.required`).
    pub fn is_required(self) -> bool {
        self.0.required
    }
}
