//! One rule: a constraint on one value, compiled from a `validate.FieldRules`, and its check.

use std::fmt::Display;

use regex::Regex;
use tidegate_proto::schema::FieldType;

use super::key_path;
use crate::context::{self, Fault, Result};
use crate::fields::duration_parts;
use crate::message::{Encoded, Message, Value};

#[derive(Debug)]
pub(super) enum Rule {
    Required,
    Int {
        bounds: Bounds<i128>,
        ignore_empty: bool,
    },
    Float {
        bounds: Bounds<f64>,
        ignore_empty: bool,
    },
    Bool(bool),
    Text(Box<TextRule>),
    Enum {
        defined_only: bool,
        is_in: Vec<i32>,
        not_in: Vec<i32>,
    },
    Repeated {
        min: u64,
        max: u64,
        unique: bool,
        ignore_empty: bool,
        items: Option<Box<Rule>>,
        skip_items: bool,
    },
    Map {
        min: u64,
        max: u64,
        ignore_empty: bool,
        keys: Option<Box<Rule>>,
        values: Option<Box<Rule>>,
    },
    Duration {
        required: bool,
        bounds: Bounds<Nanos>,
    },
    /// `skip`, or `required` as well as a rule for the value in a wrapper.
    Message {
        required: bool,
        skip: bool,
        value: Option<Box<Rule>>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Nanos(i128);

impl Display for Nanos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, nanos) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if seconds == 0 && nanos != 0 && nanos % 1_000_000 == 0 {
            return write!(f, "{}ms", nanos / 1_000_000);
        }
        if nanos == 0 {
            write!(f, "{seconds}s")
        } else {
            write!(f, "{seconds}.{nanos:09}s")
        }
    }
}

#[derive(Debug)]
pub(super) struct Bounds<T> {
    lt: Option<T>,
    lte: Option<T>,
    gt: Option<T>,
    gte: Option<T>,
    is_in: Vec<T>,
    not_in: Vec<T>,
    equal: Option<T>,
}

#[derive(Debug, Default)]
pub(super) struct TextRule {
    ignore_empty: bool,
    equal: Option<String>,
    min_len: u64,
    max_len: Option<u64>,
    min_bytes: u64,
    max_bytes: Option<u64>,
    prefix: String,
    suffix: String,
    contains: String,
    pattern: Option<Regex>,
    /// The characters that may not be in a header's name or value.
    banned: Option<(&'static str, &'static str)>,
    is_in: Vec<String>,
    not_in: Vec<String>,
    uri: bool,
}

const RULES: &str = "validate.FieldRules";

/// A field of a rules message, `None` when it is not set.
fn get<'v, T>(
    rules: &Message<'v>,
    name: &str,
    read: impl Fn(&Value<'v>) -> Option<T>,
) -> Option<T> {
    rules.get(name).and_then(read)
}

fn get_list<'v, T>(
    rules: &Message<'v>,
    name: &str,
    read: impl Fn(&Value<'v>) -> Option<T>,
) -> Vec<T> {
    let list = rules.get(name).and_then(Value::as_list).unwrap_or_default();
    list.iter().filter_map(read).collect()
}

/// The message in a field of a rules message.
fn inner<'a>(rules: &Message<'a>, name: &str) -> Result<Option<Message<'a>>> {
    let Some(message) = rules.get(name).and_then(Value::as_message) else {
        return Ok(None);
    };
    read(message).map(Some)
}

fn read<'a>(message: &Encoded<'a>) -> Result<Message<'a>> {
    message
        .read()
        .map_err(|error| context::unreadable(message.kind(), &error))
}

fn nanos(value: &Value<'_>) -> Option<Nanos> {
    let (seconds, nanos) = duration_parts(value.as_message()?);
    Some(Nanos(seconds * 1_000_000_000 + nanos))
}

impl Rule {
    /// The rule that the descriptors have for a field.
    pub(super) fn of(field: FieldType) -> Result<Option<Self>> {
        if field.rules().is_empty() {
            return Ok(None);
        }
        let rules = Encoded::new(context::message_type(RULES)?, field.rules());
        let rules = read(&rules)?;
        let message = inner(&rules, "message")?;
        let flag = |name| {
            let flag = message.as_ref().and_then(|m| get(m, name, Value::as_bool));
            flag == Some(true)
        };
        let (required, skip) = (flag("required"), flag("skip"));
        let value = Self::of_value(&rules)?;
        if (required || skip) && !field.is_list() && !field.is_map() {
            return Ok(Some(Self::Message {
                required,
                skip,
                value: value.map(Box::new),
            }));
        }
        Ok(value)
    }

    /// The rule in the oneof `type`.
    fn of_value(rules: &Message<'_>) -> Result<Option<Self>> {
        let set = rules.fields().find(|(field, _)| field.oneof().is_some());
        let Some((kind, Value::Message(rule))) = set else {
            return Ok(None);
        };
        let rule = &read(rule)?;
        let ignore_empty = get(rule, "ignore_empty", Value::as_bool) == Some(true);
        let nested = |name: &str| -> Result<Option<Box<Self>>> {
            let Some(inner) = inner(rule, name)? else {
                return Ok(None);
            };
            Ok(Self::of_value(&inner)?.map(Box::new))
        };
        Ok(Some(match kind.name() {
            "float" | "double" => Self::Float {
                bounds: Bounds::of(rule, Value::as_float),
                ignore_empty,
            },
            "bool" => match get(rule, "const", Value::as_bool) {
                Some(equal) => Self::Bool(equal),
                None => return Ok(None),
            },
            "string" => Self::Text(Box::new(TextRule::of_string(rule, ignore_empty)?)),
            "bytes" => Self::Text(Box::new(TextRule::of_bytes(rule, ignore_empty))),
            "enum" => Self::Enum {
                defined_only: get(rule, "defined_only", Value::as_bool).unwrap_or_default(),
                is_in: get_list(rule, "in", enum_number),
                not_in: get_list(rule, "not_in", enum_number),
            },
            "repeated" => {
                let items = inner(rule, "items")?;
                let message = items.as_ref().map(|items| inner(items, "message"));
                let message = message.transpose()?.flatten();
                let skip_items =
                    message.and_then(|m| get(&m, "skip", Value::as_bool)) == Some(true);
                Self::Repeated {
                    min: get(rule, "min_items", Value::as_u64).unwrap_or_default(),
                    max: get(rule, "max_items", Value::as_u64).unwrap_or(u64::MAX),
                    unique: get(rule, "unique", Value::as_bool).unwrap_or_default(),
                    ignore_empty,
                    items: nested("items")?,
                    skip_items,
                }
            }
            "map" => Self::Map {
                min: get(rule, "min_pairs", Value::as_u64).unwrap_or_default(),
                max: get(rule, "max_pairs", Value::as_u64).unwrap_or(u64::MAX),
                ignore_empty,
                keys: nested("keys")?,
                values: nested("values")?,
            },
            "any" if get(rule, "required", Value::as_bool) == Some(true) => Self::Required,
            "any" => return Ok(None),
            "timestamp" => return Ok(None),
            "duration" => Self::Duration {
                required: get(rule, "required", Value::as_bool).unwrap_or_default(),
                bounds: Bounds::of(rule, nanos),
            },
            _ => Self::Int {
                bounds: Bounds::of(rule, Value::as_integer),
                ignore_empty,
            },
        }))
    }

    pub(super) fn required(&self) -> bool {
        match self {
            Self::Required => true,
            Self::Duration { required, .. } | Self::Message { required, .. } => *required,
            _ => false,
        }
    }

    pub(super) fn skips_contents(&self) -> bool {
        match self {
            Self::Message { skip, .. } => *skip,
            Self::Repeated { skip_items, .. } => *skip_items,
            _ => false,
        }
    }

    pub(super) fn check(&self, value: &Value<'_>) -> Result<()> {
        match self {
            Self::Required => Ok(()),
            Self::Message { value: rule, .. } => {
                rule.as_ref().map_or(Ok(()), |rule| rule.check(value))
            }
            Self::Int {
                bounds,
                ignore_empty,
            } => match unwrapped(value, Value::as_integer) {
                Some(0) if *ignore_empty => Ok(()),
                Some(number) => bounds.check(&number),
                None => Ok(()),
            },
            Self::Float {
                bounds,
                ignore_empty,
            } => match unwrapped(value, Value::as_float) {
                Some(0.0) if *ignore_empty => Ok(()),
                Some(number) => bounds.check(&number),
                None => Ok(()),
            },
            Self::Bool(equal) if unwrapped(value, Value::as_bool) != Some(*equal) => {
                Err(Fault::whole(format!("value must equal {equal}")))
            }
            Self::Bool(_) => Ok(()),
            Self::Text(rule) => unwrapped(value, |value| Some(rule.check(value))).unwrap_or(Ok(())),
            Self::Enum {
                defined_only,
                is_in,
                not_in,
            } => {
                let Some(number) = value.as_enum() else {
                    return Ok(());
                };
                // Whether a number is defined is for the decoders: they refuse what they do not know, defined or not.
                let _ = defined_only;
                if !is_in.is_empty() && !is_in.contains(&number) {
                    return Err(Fault::whole(format!("value must be in list {is_in:?}")));
                }
                if not_in.contains(&number) {
                    return Err(Fault::whole(format!(
                        "value must not be in list {not_in:?}"
                    )));
                }
                Ok(())
            }
            Self::Repeated {
                min,
                max,
                unique,
                ignore_empty,
                items,
                ..
            } => {
                let list = value.as_list().unwrap_or_default();
                if list.is_empty() && *ignore_empty {
                    return Ok(());
                }
                check_count(list.len(), *min, *max, "item(s)")?;
                if *unique
                    && list
                        .iter()
                        .enumerate()
                        .any(|(at, item)| list.iter().take(at).any(|other| other == item))
                {
                    return Err(Fault::whole("repeated value must contain unique items"));
                }
                let Some(rule) = items else {
                    return Ok(());
                };
                list.iter().enumerate().try_for_each(|(index, item)| {
                    rule.check(item)
                        .map_err(|fault| fault.under(&format!("[{index}]")))
                })
            }
            Self::Map {
                min,
                max,
                ignore_empty,
                keys,
                values,
            } => {
                let Some(map) = value.as_map() else {
                    return Ok(());
                };
                if map.is_empty() && *ignore_empty {
                    return Ok(());
                }
                check_count(map.len(), *min, *max, "pair(s)")?;
                map.iter().try_for_each(|(key, item)| {
                    let checked = match keys {
                        Some(rule) => rule.check(key),
                        None => Ok(()),
                    };
                    let checked = checked
                        .and_then(|()| values.as_ref().map_or(Ok(()), |rule| rule.check(item)));
                    checked.map_err(|fault| fault.under(&key_path(key)))
                })
            }
            Self::Duration { bounds, .. } => {
                nanos(value).map_or(Ok(()), |duration| bounds.check(&duration))
            }
        }
    }
}

/// Of a wrapper's value, or of the value itself. An empty wrapper holds its default.
fn unwrapped<'v, T>(value: &Value<'v>, read: impl Fn(&Value<'v>) -> Option<T>) -> Option<T> {
    let Some(wrapper) = value.as_message() else {
        return read(value);
    };
    let message = wrapper.read().ok()?;
    match (message.number(1), wrapper.kind().field(1)) {
        (Some(value), _) => read(value),
        (None, Some(field)) => read(&Value::default_of(field)),
        (None, None) => None,
    }
}

fn enum_number(value: &Value<'_>) -> Option<i32> {
    value.as_integer().and_then(|value| value.try_into().ok())
}

fn check_count(count: usize, min: u64, max: u64, what: &str) -> Result<()> {
    if (count as u64) < min {
        return Err(Fault::whole(format!(
            "value must contain at least {min} {what}"
        )));
    }
    if (count as u64) > max {
        return Err(Fault::whole(format!(
            "value must contain no more than {max} {what}"
        )));
    }
    Ok(())
}

impl<T: PartialOrd + Display + std::fmt::Debug> Bounds<T> {
    fn of<'v>(rule: &Message<'v>, read: impl Fn(&Value<'v>) -> Option<T> + Copy) -> Self {
        Self {
            lt: get(rule, "lt", read),
            lte: get(rule, "lte", read),
            gt: get(rule, "gt", read),
            gte: get(rule, "gte", read),
            is_in: get_list(rule, "in", read),
            not_in: get_list(rule, "not_in", read),
            equal: get(rule, "const", read),
        }
    }

    fn check(&self, value: &T) -> Result<()> {
        let low = self.gt.as_ref().is_some_and(|bound| value <= bound)
            || self.gte.as_ref().is_some_and(|bound| value < bound);
        let high = self.lt.as_ref().is_some_and(|bound| value >= bound)
            || self.lte.as_ref().is_some_and(|bound| value > bound);
        if low || high {
            return Err(Fault::whole(self.words(low)));
        }
        if let Some(equal) = self.equal.as_ref().filter(|equal| *equal != value) {
            return Err(Fault::whole(format!("value must equal {equal}")));
        }
        let list = |values: &[T]| {
            values
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        if !self.is_in.is_empty() && !self.is_in.contains(value) {
            return Err(Fault::whole(format!(
                "value must be in list [{}]",
                list(&self.is_in)
            )));
        }
        if self.not_in.contains(value) {
            return Err(Fault::whole(format!(
                "value must not be in list [{}]",
                list(&self.not_in)
            )));
        }
        Ok(())
    }

    fn words(&self, low: bool) -> String {
        let lower = self
            .gt
            .as_ref()
            .map(|bound| ('(', bound))
            .or(self.gte.as_ref().map(|bound| ('[', bound)));
        let upper = self
            .lt
            .as_ref()
            .map(|bound| (')', bound))
            .or(self.lte.as_ref().map(|bound| (']', bound)));
        match (lower, upper) {
            (Some((open, from)), Some((close, to))) => {
                format!("value must be inside range {open}{from}, {to}{close}")
            }
            (Some(('(', bound)), None) if low => format!("value must be greater than {bound}"),
            (Some((_, bound)), None) => format!("value must be greater than or equal to {bound}"),
            (None, Some((')', bound))) => format!("value must be less than {bound}"),
            (None, Some((_, bound))) => format!("value must be less than or equal to {bound}"),
            (None, None) => String::new(),
        }
    }
}

impl TextRule {
    fn of_string(rule: &Message<'_>, ignore_empty: bool) -> Result<Self> {
        let text = |name| get(rule, name, |value| value.as_str().map(str::to_owned));
        let number = |name| get(rule, name, Value::as_u64);
        let texts = |name| get_list(rule, name, |value| value.as_str().map(str::to_owned));
        let pattern = text("pattern")
            .map(|pattern| Regex::new(&pattern))
            .transpose();
        let header = get(rule, "well_known_regex", Value::as_enum).unwrap_or_default();
        let strict = get(rule, "strict", Value::as_bool).unwrap_or(true);
        Ok(Self {
            ignore_empty,
            equal: text("const"),
            min_len: number("len").or(number("min_len")).unwrap_or_default(),
            max_len: number("len").or(number("max_len")),
            min_bytes: number("len_bytes")
                .or(number("min_bytes"))
                .unwrap_or_default(),
            max_bytes: number("len_bytes").or(number("max_bytes")),
            prefix: text("prefix").unwrap_or_default(),
            suffix: text("suffix").unwrap_or_default(),
            contains: text("contains").unwrap_or_default(),
            pattern: pattern.map_err(|error| Fault::whole(format!("validate.rules: {error}")))?,
            banned: match (header, strict) {
                (1, true) => Some((STRICT_NAME, "")),
                (2, true) => Some(("", CONTROL)),
                (1 | 2, false) => Some(("", "\0\r\n")),
                _ => None,
            },
            is_in: texts("in"),
            not_in: texts("not_in"),
            uri: get(rule, "uri", Value::as_bool).unwrap_or_default(),
        })
    }

    fn of_bytes(rule: &Message<'_>, ignore_empty: bool) -> Self {
        let number = |name| get(rule, name, Value::as_u64);
        Self {
            ignore_empty,
            min_bytes: number("len").or(number("min_len")).unwrap_or_default(),
            max_bytes: number("len").or(number("max_len")),
            ..Self::default()
        }
    }

    fn check(&self, value: &Value<'_>) -> Result<()> {
        if let Some(bytes) = value.as_bytes() {
            return if bytes.is_empty() && self.ignore_empty {
                Ok(())
            } else {
                self.check_length(bytes.len() as u64, self.min_bytes, self.max_bytes, "bytes")
            };
        }
        let Some(text) = value.as_str() else {
            return Ok(());
        };
        if text.is_empty() && self.ignore_empty {
            return Ok(());
        }
        let fail = |reason: String| Err(Fault::whole(reason));
        if let Some(equal) = self.equal.as_ref().filter(|equal| *equal != text) {
            return fail(format!("value must equal {equal}"));
        }
        self.check_length(
            text.chars().count() as u64,
            self.min_len,
            self.max_len,
            "characters",
        )?;
        self.check_length(text.len() as u64, self.min_bytes, self.max_bytes, "bytes")?;
        if !text.starts_with(&self.prefix) {
            return fail(format!("value does not have prefix \"{}\"", self.prefix));
        }
        if !text.ends_with(&self.suffix) {
            return fail(format!("value does not have suffix \"{}\"", self.suffix));
        }
        if !text.contains(&self.contains) {
            return fail(format!(
                "value does not contain substring \"{}\"",
                self.contains
            ));
        }
        if let Some(pattern) = self
            .pattern
            .as_ref()
            .filter(|pattern| !pattern.is_match(text))
        {
            return fail(format!("value does not match regex pattern \"{pattern}\""));
        }
        if let Some((allowed, banned)) = self.banned {
            let name = text.strip_prefix(':').unwrap_or(text);
            let bad = |c: char| {
                banned.contains(c)
                    || !allowed.is_empty() && !c.is_ascii_alphanumeric() && !allowed.contains(c)
            };
            if name.contains(bad) || !allowed.is_empty() && name.is_empty() {
                return fail("value is not a valid HTTP header name or value".to_owned());
            }
        }
        if !self.is_in.is_empty() && !self.is_in.iter().any(|known| known == text) {
            return fail(format!("value must be in list [{}]", self.is_in.join(", ")));
        }
        if self.not_in.iter().any(|banned| banned == text) {
            return fail(format!(
                "value must not be in list [{}]",
                self.not_in.join(", ")
            ));
        }
        if self.uri && !text.contains(':') {
            return fail("value must be a valid URI".to_owned());
        }
        Ok(())
    }

    fn check_length(&self, length: u64, min: u64, max: Option<u64>, unit: &str) -> Result<()> {
        let ok = length >= min && max.is_none_or(|max| length <= max);
        if ok {
            return Ok(());
        }
        Err(Fault::whole(match max {
            Some(max) if max == min => format!("value length must be {min} {unit}"),
            Some(max) if min > 0 => {
                format!("value length must be between {min} and {max} {unit}, inclusive")
            }
            Some(max) => format!("value length must be at most {max} {unit}"),
            None => format!("value length must be at least {min} {unit}"),
        }))
    }
}

/// Besides letters and digits, in a strict header name.
const STRICT_NAME: &str = "!#$%&'*+-.^_|~`";
/// Control characters a strict header value may not have: all but the tab.
const CONTROL: &str = "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f";
