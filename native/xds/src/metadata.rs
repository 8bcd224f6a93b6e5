//! `type.matcher.v3.MetadataMatcher` and what it consists of.

use tidegate_model::matcher::{DoubleMatcher, MetadataMatcher, ValueMatcher};

use crate::context::Result;
use crate::fields::Fields;
use crate::matcher;

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
