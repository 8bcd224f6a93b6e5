//! Unpacking `google.protobuf.Any`: type URLs, `TypedStruct`, and the table of types that a place supports.

use tidegate_proto::schema::MessageType;

use crate::context::{Context, Fault, Result};
use crate::fields::{Fields, Path};
use crate::message::{Message, Value};
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
        let any = any.read().map_err(|error| self.fault(name, error.0))?;
        decode(self.context, &any, path, supported)
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
        let any = self.message().get(name)?.as_message()?.read().ok()?;
        let (type_url, bytes) = parts(&any);
        let found = type_name(type_url);
        if !TYPED_STRUCTS.contains(&found) {
            return Some(found.to_owned());
        }
        let wrapper = self.context.decode(found, bytes).ok()?.read().ok()?;
        let wrapped_url = wrapper.get("type_url")?;
        Some(type_name(wrapped_url.as_str()?).to_owned())
    }

    fn extension_name(&self) -> &str {
        let name = self.message().get("name").and_then(Value::as_str);
        name.unwrap_or_default()
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
    any: &Message<'_>,
    path: Path<'_>,
    supported: &[(&str, Decode<'_, T>)],
) -> Result<T> {
    let at = |fault: Fault| fault.under(&path.to_string());
    let (type_url, bytes) = parts(any);
    let mut name = type_name(type_url).to_owned();
    let mut payload = None;
    if TYPED_STRUCTS.contains(&name.as_str()) {
        let wrapper = context.decode(&name, bytes).map_err(at)?;
        let wrapper = context.read(&wrapper).map_err(at)?;
        let wrapped_url = wrapper.get("type_url").and_then(Value::as_str);
        type_name(wrapped_url.unwrap_or_default()).clone_into(&mut name);
        let contents = wrapper.get("value").and_then(Value::as_message);
        payload = Some(contents.map_or_else(
            || serde_json::Value::Object(serde_json::Map::new()),
            value::from_struct,
        ));
    }
    let Some((_, decode)) = supported.iter().find(|(known, _)| *known == name) else {
        let verdict = if MessageType::named(&name).is_some() {
            "is not supported here"
        } else {
            "is unknown"
        };
        return Err(at(Fault::whole(format!(
            "type.googleapis.com/{name} {verdict}"
        ))));
    };
    let encoded;
    let bytes = match payload {
        Some(json) => {
            encoded = json::parse(&name, &json).map_err(at)?;
            &encoded
        }
        None => bytes,
    };
    let message = context.decode(&name, bytes).map_err(at)?;
    rules::check(&message).map_err(at)?;
    Fields::at(context, &message, path, decode)
}

/// The type URL and the encoded payload.
fn parts<'a>(any: &Message<'a>) -> (&'a str, &'a [u8]) {
    let type_url = any.number(1).and_then(Value::as_str);
    let bytes = any.number(2).and_then(Value::as_bytes);
    (type_url.unwrap_or_default(), bytes.unwrap_or_default())
}
