//! `extensions.filters.http.lua.v3`: scripts that see and change requests and responses.

use std::sync::Arc;

use crate::{DataSource, Name};

/// The filter.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lua {
    /// `default_source_code`, or `inline_code` of old.
    pub default_source: Option<DataSource>,
    /// Those that routes may name.
    pub sources: Vec<(Name, DataSource)>,
    pub stat_prefix: Name,
    /// A script that has changed headers has the route found anew.
    pub clear_route_cache: bool,
}

/// What a route says to it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LuaPerRoute {
    pub choice: LuaChoice,
    /// For scripts to read.
    pub filter_context: Arc<serde_json::Map<String, serde_json::Value>>,
}

/// Which script runs on a route.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum LuaChoice {
    #[default]
    Default,
    Disabled,
    /// One of [`Lua::sources`]; none, if there is none of that name.
    Named(Name),
    Source(DataSource),
}
