//! Reading a message field by field, with the path to each, and refusing what nobody read.
//!
//! A decoder gets a [`Fields`] and asks for fields by name. When it is done, every field that is set in the message must have
//! been asked for (or passed over on purpose, see [`Fields::ignore`]); the first that was not is a [`Fault`] with its
//! path. Asking for a field that the message type does not have is a mistake in the decoder and fails in debug builds.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use tidegate_model::Name;
use tidegate_proto::schema::{FieldType, Kind};

use crate::context::{Context, Fault, Result, Warning};
use crate::message::{Encoded, Message, Value};

/// Where a message stands in its resource. Built on the stack, turned into text only for a fault.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, &'a str, usize),
    Key(&'a Path<'a>, &'a str, &'a str),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = match self {
            Path::Root => return Ok(()),
            Path::Field(parent, _) | Path::Index(parent, _, _) | Path::Key(parent, _, _) => parent,
        };
        parent.fmt(f)?;
        if !matches!(parent, Path::Root) {
            f.write_str(".")?;
        }
        match self {
            Path::Root => Ok(()),
            Path::Field(_, name) => f.write_str(name),
            Path::Index(_, name, index) => write!(f, "{name}[{index}]"),
            Path::Key(_, name, key) => write!(f, "{name}[\"{key}\"]"),
        }
    }
}

/// A message being read.
pub(crate) struct Fields<'a> {
    pub(crate) context: &'a Context,
    message: &'a Message<'a>,
    path: Path<'a>,
}

impl<'a> Fields<'a> {
    /// Reads the message at the root of a resource.
    pub(crate) fn root<T>(
        context: &Context,
        message: &Encoded<'_>,
        decode: impl FnOnce(&Fields<'_>) -> Result<T>,
    ) -> Result<T> {
        Fields::at(context, message, Path::Root, decode)
    }

    /// Reads a message that stands at `path`, and checks afterwards that all of it was read.
    pub(crate) fn at<T>(
        context: &Context,
        message: &Encoded<'_>,
        path: Path<'_>,
        decode: impl FnOnce(&Fields<'_>) -> Result<T>,
    ) -> Result<T> {
        let message = message.read().map_err(|error| Fault {
            path: path.to_string(),
            reason: error.0,
        })?;
        let fields = Fields {
            context,
            message: &message,
            path,
        };
        let decoded = decode(&fields)?;
        fields.finish()?;
        Ok(decoded)
    }

    fn finish(&self) -> Result<()> {
        if let Some(field) = self.message.left() {
            return Err(self.fault(field.name(), "is not supported"));
        }
        if let Some(unknown) = self.message.unknown() {
            let name = self.message.kind().full_name();
            return Err(self.here(format!("unknown field {unknown} of {name}")));
        }
        Ok(())
    }

    pub(crate) fn message(&self) -> &'a Message<'a> {
        self.message
    }

    pub(crate) fn path(&self) -> &Path<'a> {
        &self.path
    }

    /// A fault of one of this message's fields.
    pub(crate) fn fault(&self, field: &str, reason: impl Into<String>) -> Fault {
        Fault {
            path: Path::Field(&self.path, field).to_string(),
            reason: reason.into(),
        }
    }

    /// A fault of the message as a whole.
    pub(crate) fn here(&self, reason: impl Into<String>) -> Fault {
        Fault {
            path: self.path.to_string(),
            reason: reason.into(),
        }
    }

    /// A decoder that asks for a field that the type does not have is mistaken.
    fn exists(&self, name: &str) {
        debug_assert!(
            self.message.kind().field_named(name).is_some(),
            "{:?} has no field {name}",
            self.message.kind()
        );
    }

    /// The value of a field that is set; the field counts as read either way.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value<'a>> {
        self.exists(name);
        self.message.take(name)
    }

    /// Whether a field is set; does not count as reading it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.exists(name);
        self.message.get(name).is_some()
    }

    /// The fields of a kind that Envoy honours and that change nothing here: a warning each, where they are set.
    pub(crate) fn ignore(&self, names: &[&str], reason: &'static str) {
        for name in names {
            if self.get(name).is_some() {
                self.context.warn(Warning {
                    resource: String::new(),
                    message: self.message.kind().full_name().to_owned(),
                    field_path: Path::Field(&self.path, name).to_string(),
                    reason,
                });
            }
        }
    }

    /// Refuses a field in words of its own.
    pub(crate) fn refuse(&self, name: &str, reason: impl Into<String>) -> Result<()> {
        if self.has(name) {
            Err(self.fault(name, reason))
        } else {
            Ok(())
        }
    }

    /// A boolean that may be set, but only to the one value that is supported.
    pub(crate) fn expect_bool(&self, name: &str, only: bool) -> Result<()> {
        match self.opt_bool(name) {
            Some(value) if value != only => {
                Err(self.fault(name, format!("{value} is not supported")))
            }
            _ => Ok(()),
        }
    }

    /// A string, empty when not set.
    pub(crate) fn string(&self, name: &str) -> Name {
        match self.str(name) {
            "" => Name::default(),
            text => Name::from(text),
        }
    }

    pub(crate) fn str(&self, name: &str) -> &'a str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A string, `None` when not set or empty.
    pub(crate) fn opt_string(&self, name: &str) -> Option<Name> {
        Some(self.str(name))
            .filter(|text| !text.is_empty())
            .map(Name::from)
    }

    pub(crate) fn strings(&self, name: &str) -> Vec<Name> {
        let list = self.get(name).and_then(Value::as_list).unwrap_or_default();
        let mut strings = Vec::with_capacity(list.len());
        strings.extend(list.iter().filter_map(Value::as_str).map(Name::from));
        strings
    }

    /// A repeated unsigned integer.
    pub(crate) fn uints(&self, name: &str) -> Vec<u64> {
        let list = self.get(name).and_then(Value::as_list).unwrap_or_default();
        list.iter().filter_map(Value::as_u64).collect()
    }

    pub(crate) fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        self.get(name).and_then(Value::as_bytes)
    }

    /// A `bool` or a `BoolValue`, `None` when not set.
    pub(crate) fn opt_bool(&self, name: &str) -> Option<bool> {
        wrapped(self.get(name)?, false, Value::as_bool)
    }

    pub(crate) fn bool(&self, name: &str) -> bool {
        self.opt_bool(name).unwrap_or_default()
    }

    /// An unsigned integer of any width or a wrapper of one, `None` when not set.
    pub(crate) fn opt_uint(&self, name: &str) -> Option<u64> {
        wrapped(self.get(name)?, 0, Value::as_u64)
    }

    pub(crate) fn opt_u32(&self, name: &str) -> Option<u32> {
        self.opt_uint(name)
            .map(|value| u32::try_from(value).unwrap_or(u32::MAX))
    }

    pub(crate) fn u32(&self, name: &str) -> u32 {
        self.opt_u32(name).unwrap_or_default()
    }

    pub(crate) fn int(&self, name: &str) -> i64 {
        self.get(name)
            .and_then(Value::as_integer)
            .and_then(|value| i64::try_from(value).ok())
            .unwrap_or_default()
    }

    pub(crate) fn opt_double(&self, name: &str) -> Option<f64> {
        wrapped(self.get(name)?, 0.0, Value::as_float)
    }

    /// An enum value out of those that are supported. A field that is not set has the enum's zero value.
    pub(crate) fn choice<T: Copy>(&self, name: &str, supported: &[(&str, T)]) -> Result<T> {
        let value = self.enum_name(name);
        supported
            .iter()
            .find(|(known, _)| *known == value)
            .map(|(_, result)| *result)
            .ok_or_else(|| self.fault(name, format!("{value} is not supported")))
    }

    /// The number of an enum value.
    pub(crate) fn enum_number(&self, name: &str) -> i32 {
        let value = self.get(name).and_then(Value::as_enum);
        value.unwrap_or_default()
    }

    /// A map from strings to strings, in the order of the keys.
    pub(crate) fn text_entries(&self, name: &str) -> Vec<(Name, Name)> {
        let map = self.get(name).and_then(Value::as_map).unwrap_or_default();
        let text = |value: &Value<'_>| value.as_str().map(Name::from);
        map.iter()
            .filter_map(|(key, value)| Some((text(key)?, text(value)?)))
            .collect()
    }

    /// The name of an enum value, its number when the value has no name.
    pub(crate) fn enum_name(&self, name: &str) -> Cow<'static, str> {
        let value = self.get(name).and_then(Value::as_enum);
        let number = value.unwrap_or_default();
        let kind = self.message.kind().field_named(name).map(FieldType::kind);
        let known = match kind {
            Some(Kind::Enum(kind)) => kind.name_of(number),
            _ => None,
        };
        known.map_or_else(|| Cow::Owned(number.to_string()), Cow::Borrowed)
    }

    /// A `google.protobuf.Duration`; negative and malformed ones are refused.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>> {
        let Some(message) = self.get(name).and_then(Value::as_message) else {
            return Ok(None);
        };
        let (seconds, nanos) = duration_parts(message);
        match (u64::try_from(seconds), u32::try_from(nanos)) {
            // The limit is the protocol's own: some 10,000 years.
            (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 && seconds <= 315_576_000_000 => {
                Ok(Some(Duration::new(seconds, nanos)))
            }
            _ => Err(self.fault(
                name,
                format!("Invalid duration: Expected positive duration: seconds: {seconds} nanos: {nanos}"),
            )),
        }
    }

    /// A duration where zero means "off" and absence means `default`.
    pub(crate) fn timeout(
        &self,
        name: &str,
        default: Option<Duration>,
    ) -> Result<Option<Duration>> {
        Ok(match self.duration(name)? {
            None => default,
            Some(duration) => (!duration.is_zero()).then_some(duration),
        })
    }

    /// A duration where zero means "off", and whether it was set at all.
    #[allow(
        clippy::option_option,
        reason = "not set, off, and a duration are three things, in the model too"
    )]
    pub(crate) fn opt_timeout(&self, name: &str) -> Result<Option<Option<Duration>>> {
        let duration = self.duration(name)?;
        Ok(duration.map(|duration| (!duration.is_zero()).then_some(duration)))
    }

    /// A nested message, when set.
    pub(crate) fn opt<T>(
        &self,
        name: &str,
        decode: impl FnOnce(&Fields<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some(message) = self.get(name).and_then(Value::as_message) else {
            return Ok(None);
        };
        Fields::at(self.context, message, Path::Field(&self.path, name), decode).map(Some)
    }

    /// A nested message that must be set.
    pub(crate) fn need<T>(
        &self,
        name: &str,
        decode: impl FnOnce(&Fields<'_>) -> Result<T>,
    ) -> Result<T> {
        self.opt(name, decode)?
            .ok_or_else(|| self.fault(name, "value is required"))
    }

    /// A nested message, its default when not set.
    pub(crate) fn or_default<T: Default>(
        &self,
        name: &str,
        decode: impl FnOnce(&Fields<'_>) -> Result<T>,
    ) -> Result<T> {
        self.opt(name, decode).map(Option::unwrap_or_default)
    }

    /// A repeated message.
    pub(crate) fn each<T>(
        &self,
        name: &str,
        mut decode: impl FnMut(&Fields<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let list = self.get(name).and_then(Value::as_list).unwrap_or_default();
        // Of just the size that is needed: most lists have one element, and models live long.
        let mut decoded = Vec::with_capacity(list.len());
        for (index, message) in list.iter().filter_map(Value::as_message).enumerate() {
            let path = Path::Index(&self.path, name, index);
            decoded.push(Fields::at(self.context, message, path, &mut decode)?);
        }
        Ok(decoded)
    }

    /// A map from strings to messages, in the order of the keys.
    pub(crate) fn entries<T>(
        &self,
        name: &str,
        mut decode: impl FnMut(&str, &Fields<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let Some(map) = self.get(name).and_then(Value::as_map) else {
            return Ok(Vec::new());
        };
        map.iter()
            .filter_map(|(key, value)| Some((key.as_str()?, value.as_message()?)))
            .map(|(key, message)| {
                let path = Path::Key(&self.path, name, key);
                Fields::at(self.context, message, path, |fields| decode(key, fields))
            })
            .collect()
    }
}

/// A scalar, or the `value` of a `google.protobuf` wrapper of it, which has its default when the wrapper is empty.
fn wrapped<'v, T>(
    value: &Value<'v>,
    default: T,
    read: impl Fn(&Value<'v>) -> Option<T>,
) -> Option<T> {
    match value.as_message() {
        None => read(value),
        Some(wrapper) => {
            let wrapper = wrapper.read().ok();
            let inner = wrapper.as_ref().and_then(|wrapper| wrapper.number(1));
            Some(inner.and_then(read).unwrap_or(default))
        }
    }
}

/// Seconds and nanoseconds of a `google.protobuf.Duration`.
pub(crate) fn duration_parts(message: &Encoded<'_>) -> (i128, i128) {
    let message = message.read().ok();
    let part = |number| {
        let part = message.as_ref().and_then(|message| message.number(number));
        part.and_then(Value::as_integer).unwrap_or_default()
    };
    (part(1), part(2))
}
