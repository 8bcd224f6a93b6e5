//! Envoy's own validation rules (`validate.rules`, `validate.required`), read from the descriptors and checked in Envoy's words.
//!
//! They hold for a message and all that it contains, except behind an `Any`, whose payload is checked when it is unpacked. They
//! are checked before anything is decoded, as Envoy does; so a decoder may rely on them.

mod rule;

use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};

use tidegate_proto::schema::{FieldType, MessageType};

use crate::context::{self, Fault, Result};
use crate::message::{Encoded, Malformed, Value};
use rule::Rule;

/// The rules of one message type.
#[derive(Debug, Default)]
struct MessageRules {
    fields: Vec<FieldRules>,
    /// The oneofs of which one field must be set, by name and place.
    required_oneofs: Vec<(&'static str, usize)>,
}

#[derive(Debug)]
struct FieldRules {
    field: FieldType,
    rule: Option<Rule>,
}

/// The rules of a type, compiled when they are first asked for. `None`: nothing here or below is checked.
fn rules(kind: MessageType) -> Result<Option<&'static MessageRules>> {
    type Compiled = OnceLock<Result<Option<Box<MessageRules>>>>;
    static RULES: LazyLock<Vec<Compiled>> =
        LazyLock::new(|| MessageType::all().map(|_| OnceLock::new()).collect());
    let compile = || {
        // The well-known types have no rules; their contents are not Envoy's.
        if kind.is_google() || kind.is_unchecked() {
            return Ok(None);
        }
        MessageRules::of(kind).map(Box::new).map(Some)
    };
    match RULES
        .get(kind.index())
        .map(|rules| rules.get_or_init(compile))
    {
        Some(Ok(rules)) => Ok(rules.as_deref()),
        Some(Err(fault)) => Err(fault.clone()),
        None => Ok(None),
    }
}

enum Wrong {
    Bytes(Malformed),
    Rule(Fault),
}

impl From<Malformed> for Wrong {
    fn from(error: Malformed) -> Self {
        Self::Bytes(error)
    }
}

impl From<Fault> for Wrong {
    fn from(fault: Fault) -> Self {
        Self::Rule(fault)
    }
}

impl Wrong {
    fn under(self, prefix: &str) -> Self {
        match self {
            Self::Rule(fault) => Self::Rule(fault.under(prefix)),
            bytes @ Self::Bytes(_) => bytes,
        }
    }
}

/// Checks a message and all that it contains: that the bytes are such a message at all, then the rules.
pub(crate) fn check(message: &Encoded<'_>) -> Result<()> {
    let wrong = match check_message(message, 0) {
        Ok(()) => return Ok(()),
        Err(wrong) => wrong,
    };
    // Damage that lies behind the first broken rule counts before it.
    match (wrong, message.check(0)) {
        (Wrong::Bytes(error), _) | (Wrong::Rule(_), Err(error)) => {
            Err(context::unreadable(message.kind(), &error))
        }
        (Wrong::Rule(fault), Ok(())) => Err(fault),
    }
}

fn check_message(encoded: &Encoded<'_>, depth: usize) -> std::result::Result<(), Wrong> {
    let Some(rules) = rules(encoded.kind())? else {
        return Ok(encoded.check(depth)?);
    };
    let message = encoded.read_at(depth)?;
    for FieldRules { field, rule } in &rules.fields {
        let value = match message.number(field.number()) {
            Some(value) => Cow::Borrowed(value),
            None if field.has_presence() => {
                if field.oneof().is_none() && rule.as_ref().is_some_and(Rule::required) {
                    return Err(Wrong::Rule(Fault {
                        path: field.name().to_owned(),
                        reason: "value is required".to_owned(),
                    }));
                }
                continue;
            }
            None => Cow::Owned(Value::default_of(*field)),
        };
        if let Some(rule) = rule {
            rule.check(&value)
                .map_err(|fault| fault.under(field.name()))?;
        }
        if rule.as_ref().is_some_and(Rule::skips_contents) {
            value.check(depth)?;
        } else {
            check_contents(&value, depth).map_err(|wrong| wrong.under(field.name()))?;
        }
    }
    for (name, at) in &rules.required_oneofs {
        if !message
            .fields()
            .any(|(field, _)| field.oneof() == Some(*at))
        {
            return Err(Wrong::Rule(Fault {
                path: (*name).to_owned(),
                reason: "value is required".to_owned(),
            }));
        }
    }
    Ok(())
}

fn check_contents(value: &Value<'_>, depth: usize) -> std::result::Result<(), Wrong> {
    match value {
        Value::Message(message) => check_message(message, depth + 1),
        Value::List(list) => list.iter().enumerate().try_for_each(|(index, item)| {
            check_contents(item, depth).map_err(|wrong| wrong.under(&format!("[{index}]")))
        }),
        Value::Map(map) => map.iter().try_for_each(|(key, item)| {
            check_contents(item, depth).map_err(|wrong| wrong.under(&key_path(key)))
        }),
        _ => Ok(()),
    }
}

fn key_path(key: &Value<'_>) -> String {
    match key {
        Value::Str(key) => format!("[\"{key}\"]"),
        key => format!("[{key:?}]"),
    }
}

impl MessageRules {
    fn of(kind: MessageType) -> Result<Self> {
        let mut fields = Vec::new();
        for field in kind.fields() {
            let rule = Rule::of(field)?;
            // Those that contain messages are looked into in any case.
            if rule.is_some() || field.message().is_some() {
                fields.push(FieldRules { field, rule });
            }
        }
        let required_oneofs = kind
            .oneofs()
            .enumerate()
            .filter(|(_, oneof)| oneof.is_required())
            .map(|(at, oneof)| (oneof.name(), at))
            .collect();
        Ok(Self {
            fields,
            required_oneofs,
        })
    }
}
