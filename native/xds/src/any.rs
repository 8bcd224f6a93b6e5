//! Unpacking `google.protobuf.Any`: type URLs, `TypedStruct`, and the table of types that a place supports.

use prost_reflect::{DynamicMessage, Value};

use crate::context::{Context, Fault, Result};
use crate::fields::{Fields, Path};
use crate::{json, rules, value};

/// The message's full name: what follows the last slash of a type URL.
pub(crate) fn type_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

const TYPED_STRUCTS: &[&str] = &["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

/// A decoder of one of the types that may stand in an `Any`.
pub(crate) type Decode<'d, T> = &'d dyn Fn(&Fields<'_>) -> Result<T>;

impl Fields<'_> {
    /// The payload of an `Any` field, by the decoder for its type; `None` when the field is not set. A type that is not in the
    /// table is refused by its type URL.
    pub(crate) fn any<T>(
        &self,
        name: &str,
        supported: &[(&str, Decode<'_, T>)],
    ) -> Result<Option<T>> {
        let Some(any) = self.get(name).and_then(Value::as_message) else {
            return Ok(None);
        };
        let path = Path::Field(self.path(), name);
        decode(self.context, any, path, supported)
            .map(Some)
            .map_err(|fault| {
                if fault.path.is_empty() {
                    Fault {
                        path: path.to_string(),
                        ..fault
                    }
                } else {
                    fault
                }
            })
    }

    /// [`Fields::any`] for a field that must be set: an extension without a configuration has no type.
    pub(crate) fn need_any<T>(&self, name: &str, supported: &[(&str, Decode<'_, T>)]) -> Result<T> {
        self.any(name, supported)?.ok_or_else(|| {
            let extension = self.extension_name();
            self.fault(
                name,
                format!(
                    "Didn't find a registered implementation for '{extension}' with type URL: ''"
                ),
            )
        })
    }

    /// The message name in an `Any` field, a `TypedStruct` looked through; does not count as reading it.
    pub(crate) fn any_type(&self, name: &str) -> Option<String> {
        if !self.has(name) {
            return None;
        }
        let any = self.message().get_field_by_name(name)?;
        let (type_url, bytes) = parts(any.as_message()?);
        let found = type_name(&type_url);
        if !TYPED_STRUCTS.contains(&found) {
            return Some(found.to_owned());
        }
        let wrapper = self.context.decode(found, &bytes).ok()?;
        let wrapped_url = wrapper.get_field_by_name("type_url")?;
        Some(type_name(wrapped_url.as_str()?).to_owned())
    }

    fn extension_name(&self) -> String {
        let name = self.message().get_field_by_name("name");
        name.and_then(|name| name.as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// This message, an `Any` itself (an entry of a map), by the decoder for its type.
    pub(crate) fn unpack<T>(&self, supported: &[(&str, Decode<'_, T>)]) -> Result<T> {
        self.get("type_url");
        self.get("value");
        decode(self.context, self.message(), *self.path(), supported).map_err(|fault| {
            if fault.path.is_empty() {
                Fault {
                    path: self.path().to_string(),
                    ..fault
                }
            } else {
                fault
            }
        })
    }
}

fn decode<T>(
    context: &Context,
    any: &DynamicMessage,
    path: Path<'_>,
    supported: &[(&str, Decode<'_, T>)],
) -> Result<T> {
    let at = |fault: Fault| fault.under(&path.to_string());
    let (type_url, bytes) = parts(any);
    let mut name = type_name(&type_url).to_owned();
    let mut message = None;
    if TYPED_STRUCTS.contains(&name.as_str()) {
        let wrapper = context.decode(&name, &bytes).map_err(at)?;
        let wrapped_url = wrapper.get_field_by_name("type_url");
        type_name(
            wrapped_url
                .as_ref()
                .and_then(|url| url.as_str())
                .unwrap_or_default(),
        )
        .clone_into(&mut name);
        let contents = wrapper.get_field_by_name("value");
        let contents = contents
            .as_ref()
            .and_then(|value| value.as_message())
            .map(value::from_struct);
        message =
            Some(contents.unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new())));
    }
    let Some((_, decode)) = supported.iter().find(|(known, _)| *known == name) else {
        let known = tidegate_proto::file_of_message(&name).is_some();
        let verdict = if known {
            "is not supported here"
        } else {
            "is unknown"
        };
        return Err(at(Fault::whole(format!(
            "type.googleapis.com/{name} {verdict}"
        ))));
    };
    let message = match message {
        Some(json) => json::parse(context, &name, &json),
        None => context.decode(&name, &bytes),
    }
    .map_err(at)?;
    rules::check(context, &message).map_err(at)?;
    Fields::at(context, &message, path, decode)
}

/// The type URL and the encoded payload.
pub(crate) fn parts(any: &DynamicMessage) -> (String, Vec<u8>) {
    let type_url = any
        .get_field_by_number(1)
        .and_then(|url| url.as_str().map(str::to_owned));
    let bytes = any
        .get_field_by_number(2)
        .and_then(|value| value.as_bytes().map(|bytes| bytes.to_vec()));
    (type_url.unwrap_or_default(), bytes.unwrap_or_default())
}
