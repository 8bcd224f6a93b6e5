//! `extensions.filters.http.lua.v3`.

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use tidegate_model::lua::{Lua, LuaChoice, LuaPerRoute};
use tidegate_model::{DataSource, Name};

use crate::context::Result;
use crate::fields::Fields;
use crate::matcher::data_source;
use crate::message::Value;
use crate::value::from_struct;

pub(crate) fn filter(fields: &Fields<'_>) -> Result<Lua> {
    let old = fields.str("inline_code");
    let mut default_source = fields.opt("default_source_code", source)?;
    if !old.is_empty() {
        if default_source.is_some() {
            return Err(fields.fault(
                "inline_code",
                "Error: Only one of `inline_code` or `default_source_code` can be set for the Lua filter.",
            ));
        }
        check(old.as_bytes()).map_err(|why| fields.fault("inline_code", why))?;
        default_source = Some(DataSource {
            bytes: old.as_bytes().into(),
        });
    }
    let mut sources = Vec::new();
    fields.entries("source_codes", |name, code| {
        sources.push((Name::from(name), source(code)?));
        Ok(())
    })?;
    Ok(Lua {
        default_source,
        sources,
        stat_prefix: fields.string("stat_prefix"),
        clear_route_cache: fields.opt_bool("clear_route_cache").unwrap_or(true),
    })
}

/// A source that can be loaded: Envoy compiles and runs it, too, before it takes it.
fn source(fields: &Fields<'_>) -> Result<DataSource> {
    fields.refuse("watched_directory", "files are read once")?;
    let source = data_source(fields)?;
    check(&source.bytes).map_err(|why| fields.here(why))?;
    Ok(source)
}

fn check(source: &[u8]) -> std::result::Result<(), String> {
    tidegate_lua::check(source).map_err(|why| format!("script load error: {why}"))
}

pub(crate) fn per_route(fields: &Fields<'_>) -> Result<LuaPerRoute> {
    let choice = if fields.bool("disabled") {
        LuaChoice::Disabled
    } else if let Some(name) = fields.opt_string("name").filter(|name| !name.is_empty()) {
        LuaChoice::Named(name)
    } else if let Some(code) = fields.opt("source_code", source)? {
        LuaChoice::Source(code)
    } else {
        LuaChoice::Default
    };
    Ok(LuaPerRoute {
        choice,
        filter_context: Arc::new(structure(fields.get("filter_context"))),
    })
}

fn structure(value: Option<&Value<'_>>) -> Map<String, Json> {
    match value.and_then(Value::as_message).map(from_struct) {
        Some(Json::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// A route's `metadata`, as scripts read it. What istiod tells itself there is not kept.
pub(crate) fn route_metadata(fields: &Fields<'_>) -> Result<Option<Arc<Map<String, Json>>>> {
    const OF_ISTIOD: &str = "istio";
    let metadata = fields.opt("metadata", |metadata| {
        metadata.ignore(&["typed_filter_metadata"], "it has no reader");
        let all = metadata.get("filter_metadata").and_then(Value::as_map);
        let entries = all.unwrap_or_default().iter();
        let entries = entries.filter_map(|(name, value)| {
            let name = name.as_str().filter(|name| *name != OF_ISTIOD)?;
            Some((name.to_owned(), from_struct(value.as_message()?)))
        });
        Ok(entries.collect::<Map<_, _>>())
    })?;
    Ok(metadata.filter(|all| !all.is_empty()).map(Arc::new))
}
