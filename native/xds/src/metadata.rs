//! `core.v3.Metadata` where something reads it, `type.matcher.v3.MetadataMatcher` and what it consists of.

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use tidegate_model::Name;
use tidegate_model::cluster::{LbMetadata, LbValue};
use tidegate_model::matcher::{DoubleMatcher, MetadataMatcher, ValueMatcher};

use crate::context::Result;
use crate::fields::Fields;
use crate::matcher;
use crate::message::Value;
use crate::value::from_struct;

/// The namespace in the metadata of endpoints that balancing goes by.
pub(crate) const LB: &str = "envoy.lb";

/// What is under a name in a field that is a `core.v3.Metadata`, sorted by key.
pub(crate) fn entry(fields: &Fields<'_>, field: &str, name: &str) -> Option<Map<String, Json>> {
    let metadata = fields.get(field)?.as_message()?.read().ok()?;
    let entries = metadata.get("filter_metadata").and_then(Value::as_map)?;
    let (_, found) = entries.iter().find(|(key, _)| key.as_str() == Some(name))?;
    match from_struct(found.as_message()?) {
        Json::Object(entries) => Some(entries),
        _ => None,
    }
}

/// `envoy.lb` of an endpoint.
pub(crate) fn lb(fields: &Fields<'_>) -> Option<Arc<LbMetadata>> {
    let entries = entry(fields, "metadata", LB)?;
    let text = |value: &Json| Name::from(value.to_string());
    Some(Arc::new(LbMetadata {
        canary: entries.get("canary") == Some(&Json::Bool(true)),
        entries: entries
            .iter()
            .map(|(key, value)| {
                let value = match value {
                    Json::Array(values) => LbValue::Any(values.iter().map(text).collect()),
                    value => LbValue::One(text(value)),
                };
                (Name::from(key.as_str()), value)
            })
            .collect(),
    }))
}

/// `envoy.lb` of a `core.v3.Metadata` that hosts are compared with; values as compact JSON.
pub(crate) fn lb_criteria(fields: &Fields<'_>, field: &str) -> Vec<(Name, Name)> {
    entry(fields, field, LB)
        .unwrap_or_default()
        .iter()
        .map(|(key, value)| (Name::from(key.as_str()), Name::from(value.to_string())))
        .collect()
}

pub(crate) fn matcher(fields: &Fields<'_>) -> Result<MetadataMatcher> {
    Ok(MetadataMatcher {
        filter: fields.string("filter"),
        path: fields.each("path", |segment| Ok(segment.string("key")))?,
        value: fields.need("value", value)?,
        invert: fields.bool("invert"),
    })
}

/// `type.matcher.v3.ValueMatcher`.
pub(crate) fn value(fields: &Fields<'_>) -> Result<ValueMatcher> {
    if fields.opt("null_match", |_| Ok(()))?.is_some() {
        return Ok(ValueMatcher::Null);
    }
    if let Some(double) = fields.opt("double_match", double)? {
        return Ok(ValueMatcher::Double(double));
    }
    if let Some(string) = fields.opt("string_match", matcher::string)? {
        return Ok(ValueMatcher::String(string));
    }
    if let Some(value) = fields.opt_bool("bool_match") {
        return Ok(ValueMatcher::Bool(value));
    }
    if let Some(present) = fields.opt_bool("present_match") {
        return Ok(ValueMatcher::Present(present));
    }
    let one_of = fields.opt("list_match", |list| list.need("one_of", value))?;
    if let Some(one_of) = one_of {
        return Ok(ValueMatcher::OneOf(Box::new(one_of)));
    }
    fields.need("or_match", |or| {
        Ok(ValueMatcher::Or(or.each("value_matchers", value)?))
    })
}

fn double(fields: &Fields<'_>) -> Result<DoubleMatcher> {
    let range = fields.opt("range", |range| {
        Ok(DoubleMatcher::Range {
            start: range.opt_double("start").unwrap_or_default(),
            end: range.opt_double("end").unwrap_or_default(),
        })
    })?;
    Ok(range
        .unwrap_or_else(|| DoubleMatcher::Exact(fields.opt_double("exact").unwrap_or_default())))
}
