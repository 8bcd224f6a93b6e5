//! `google.protobuf.Struct` and `Value` as plain JSON values.

use prost_reflect::{DynamicMessage, Value};
use serde_json::{Map, Number, Value as Json};

/// A `Struct`; keys in alphabetical order, for protobuf's map has none.
pub(crate) fn from_struct(message: &DynamicMessage) -> Json {
    let fields = message.get_field_by_number(1);
    let map = fields.as_ref().and_then(|fields| fields.as_map());
    let mut entries: Vec<(&str, Json)> = map
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str()?, from_value(value.as_message()?))))
        .collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    Json::Object(
        entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect::<Map<_, _>>(),
    )
}

/// A `Value`; one that is not set, or not a number, is null.
pub(crate) fn from_value(message: &DynamicMessage) -> Json {
    let kind = message.fields().next().map(|(_, value)| value);
    match kind {
        Some(Value::F64(number)) => self::number(*number),
        Some(Value::String(text)) => Json::String(text.clone()),
        Some(Value::Bool(value)) => Json::Bool(*value),
        Some(Value::Message(inner)) if inner.has_field_by_name("fields") => from_struct(inner),
        Some(Value::Message(inner)) => from_struct_or_list(inner),
        _ => Json::Null,
    }
}

fn from_struct_or_list(message: &DynamicMessage) -> Json {
    match message.get_field_by_name("values") {
        Some(values) => {
            let values = values.as_list().unwrap_or_default();
            Json::Array(
                values
                    .iter()
                    .filter_map(Value::as_message)
                    .map(from_value)
                    .collect(),
            )
        }
        None => from_struct(message),
    }
}

/// Whole numbers without a fraction, as protobuf's JSON printer writes them.
pub(crate) fn number(number: f64) -> Json {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        return Json::Number(Number::from(number as i64));
    }
    Number::from_f64(number).map_or(Json::Null, Json::Number)
}
