//! Values that are no messages, in all forms that proto-JSON gives them.

use std::fmt;

use base64::Engine as _;
use prost::encoding::WireType;
use serde::de::{Error, Unexpected, Visitor};
use tidegate_proto::schema::{FieldType, Kind};

use super::writer::{Number, Writer};
use crate::message::scalar_type;

/// A value that is no message, with its key; nothing for a default that is as good as nothing.
pub(super) struct Scalar<'w> {
    pub(super) writer: &'w mut Writer,
    pub(super) field: FieldType,
}

pub(super) type Done<E> = std::result::Result<(), E>;

impl Scalar<'_> {
    /// Whether a default must be written.
    pub(super) fn keeps_default(&self) -> bool {
        self.field.has_presence() || self.field.is_list()
    }

    pub(super) fn write<E>(self, number: Number) -> Done<E> {
        if self.keeps_default() || !number.is_zero() {
            let wire_type = scalar_type(self.field).unwrap_or(WireType::Varint);
            self.writer.key(self.field.number(), wire_type);
            self.writer.number(number);
        }
        Ok(())
    }

    pub(super) fn bytes<E>(self, bytes: &[u8]) -> Done<E> {
        if self.keeps_default() || !bytes.is_empty() {
            self.writer.bytes(self.field.number(), bytes);
        }
        Ok(())
    }

    pub(super) fn integer<E: Error>(self, value: i128, given: Unexpected<'_>) -> Done<E> {
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

    pub(super) fn float<E: Error>(self, value: f64) -> Done<E> {
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
    pub(super) fn key<E: Error>(self, key: &str) -> Done<E> {
        match self.field.kind() {
            Kind::Bool => {
                let value: bool = key.parse().map_err(E::custom)?;
                self.write(Number::Varint(u64::from(value)))
            }
            _ => self.visit_str(key),
        }
    }
}

pub(super) fn zigzag(value: i64) -> Number {
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
pub(super) fn base64(text: &str) -> std::result::Result<Vec<u8>, base64::DecodeError> {
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
