//! `google.protobuf.Struct` and `Value` as plain JSON values.

use serde_json::{Map, Number, Value as Json};

use crate::message::{Encoded, Value};

/// A `Struct`; keys in alphabetical order, for protobuf's map has none.
pub(crate) fn from_struct(message: &Encoded<'_>) -> Json {
    let message = message.read().ok();
    let fields = message.as_ref().and_then(|message| message.number(1));
    let entries = fields.and_then(Value::as_map).unwrap_or_default().iter();
    Json::Object(
        entries
            .filter_map(|(key, value)| {
                Some((key.as_str()?.to_owned(), from_value(value.as_message()?)))
            })
            .collect::<Map<_, _>>(),
    )
}

/// A `Value`; one that is not set, or not a number, is null.
fn from_value(message: &Encoded<'_>) -> Json {
    let message = message.read().ok();
    let kind = message.as_ref().and_then(|message| message.fields().next());
    match kind.map(|(_, value)| value) {
        Some(Value::F64(number)) => self::number(*number),
        Some(Value::Str(text)) => Json::String((*text).to_owned()),
        Some(Value::Bool(value)) => Json::Bool(*value),
        Some(Value::Message(inner)) if inner.kind().full_name().ends_with(".Struct") => {
            from_struct(inner)
        }
        Some(Value::Message(inner)) => from_list(inner),
        _ => Json::Null,
    }
}

fn from_list(message: &Encoded<'_>) -> Json {
    let message = message.read().ok();
    let values = message.as_ref().and_then(|message| message.number(1));
    let values = values.and_then(Value::as_list).unwrap_or_default().iter();
    Json::Array(
        values
            .filter_map(Value::as_message)
            .map(from_value)
            .collect(),
    )
}

/// Whole numbers without a fraction, as protobuf's JSON printer writes them.
pub(crate) fn number(number: f64) -> Json {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        return Json::Number(Number::from(number as i64));
    }
    Number::from_f64(number).map_or(Json::Null, Json::Number)
}
