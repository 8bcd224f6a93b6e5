//! Envoy's own validation rules (`validate.rules`, `validate.required`), read from the descriptors and checked in Envoy's words.
//!
//! They hold for a message and all that it contains, except behind an `Any`, whose payload is checked when it is unpacked. They
//! are checked before anything is decoded, as Envoy does; so a decoder may rely on them.

mod rule;

use std::borrow::Cow;

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage as _, Value,
};

use crate::context::{Context, Fault, Result};
use rule::Rule;

/// The rules of one message type.
#[derive(Debug, Default)]
pub(crate) struct MessageRules {
    /// No rules here or below (`validate.ignored`, `validate.disabled`).
    skip: bool,
    fields: Vec<FieldRules>,
    /// The names of oneofs of which one field must be set, with the numbers of their fields.
    required_oneofs: Vec<(String, Vec<u32>)>,
}

#[derive(Debug)]
struct FieldRules {
    number: u32,
    name: String,
    /// Whether an absent value is to be left alone; else its default is checked.
    optional: bool,
    /// Of a oneof's fields the others are absent even where one is required.
    in_oneof: bool,
    rule: Option<Rule>,
}

/// Checks a message and all that it contains.
pub(crate) fn check(context: &Context, message: &DynamicMessage) -> Result<()> {
    let rules = context.rules(&message.descriptor())?;
    if rules.skip {
        return Ok(());
    }
    for field in &rules.fields {
        let Some(value) = message.get_field_by_number(field.number) else {
            continue;
        };
        let present = matches!(value, Cow::Borrowed(_));
        if field.optional && !present {
            if !field.in_oneof && field.rule.as_ref().is_some_and(Rule::required) {
                return Err(Fault {
                    path: field.name.clone(),
                    reason: "value is required".to_owned(),
                });
            }
            continue;
        }
        if let Some(rule) = &field.rule {
            rule.check(&value)
                .map_err(|fault| fault.under(&field.name))?;
        }
        if !field.rule.as_ref().is_some_and(Rule::skips_contents) {
            check_contents(context, &value).map_err(|fault| fault.under(&field.name))?;
        }
    }
    for (name, numbers) in &rules.required_oneofs {
        if !numbers
            .iter()
            .any(|number| message.has_field_by_number(*number))
        {
            return Err(Fault {
                path: name.clone(),
                reason: "value is required".to_owned(),
            });
        }
    }
    Ok(())
}

fn check_contents(context: &Context, value: &Value) -> Result<()> {
    match value {
        Value::Message(message) => check(context, message),
        Value::List(list) => list.iter().enumerate().try_for_each(|(index, item)| {
            check_contents(context, item).map_err(|fault| fault.under(&format!("[{index}]")))
        }),
        Value::Map(map) => map.iter().try_for_each(|(key, item)| {
            check_contents(context, item).map_err(|fault| fault.under(&key_path(key)))
        }),
        _ => Ok(()),
    }
}

fn key_path(key: &MapKey) -> String {
    key.as_str()
        .map_or_else(|| format!("[{key:?}]"), |key| format!("[\"{key}\"]"))
}

impl MessageRules {
    pub(crate) fn of(descriptor: &MessageDescriptor) -> Result<Self> {
        // The well-known types have no rules; their contents are not Envoy's.
        if descriptor.package_name() == "google.protobuf" {
            return Ok(Self {
                skip: true,
                ..Self::default()
            });
        }
        let pool = descriptor.parent_pool();
        let options = descriptor.options();
        if flag(pool, &options, "validate.ignored") || flag(pool, &options, "validate.disabled") {
            return Ok(Self {
                skip: true,
                ..Self::default()
            });
        }
        let mut fields = Vec::new();
        for field in descriptor.fields() {
            let rule = extension(pool, &field.options(), "validate.rules")
                .map(|rules| Rule::of(&rules, &field))
                .transpose()?
                .flatten();
            if rule.is_some() || contains_messages(&field) {
                fields.push(FieldRules {
                    number: field.number(),
                    name: field.name().to_owned(),
                    optional: field.supports_presence(),
                    in_oneof: field.containing_oneof().is_some(),
                    rule,
                });
            }
        }
        fields.sort_by_key(|field| field.number);
        let required_oneofs = descriptor
            .oneofs()
            .filter(|oneof| flag(pool, &oneof.options(), "validate.required"))
            .map(|oneof| {
                (
                    oneof.name().to_owned(),
                    oneof.fields().map(|field| field.number()).collect(),
                )
            })
            .collect();
        Ok(Self {
            skip: false,
            fields,
            required_oneofs,
        })
    }
}

fn contains_messages(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(message) if field.is_map() => message
            .map_entry_value_field()
            .kind()
            .as_message()
            .is_some(),
        Kind::Message(message) => message.package_name() != "google.protobuf",
        _ => false,
    }
}

fn extension(
    pool: &DescriptorPool,
    options: &DynamicMessage,
    name: &str,
) -> Option<DynamicMessage> {
    let extension = pool.get_extension_by_name(name)?;
    if !options.has_extension(&extension) {
        return None;
    }
    options.get_extension(&extension).as_message().cloned()
}

fn flag(pool: &DescriptorPool, options: &DynamicMessage, name: &str) -> bool {
    pool.get_extension_by_name(name).is_some_and(|extension| {
        options
            .get_extension(&extension)
            .as_bool()
            .unwrap_or_default()
    })
}
