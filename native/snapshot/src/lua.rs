//! The Lua filter, compiled: which script runs where. Its scripts have been loaded once, by `xds`.

use std::sync::Arc;

use serde_json::{Map, Value};
use tidegate_model::lua::{Lua, LuaChoice, LuaPerRoute};
use tidegate_model::{DataSource, Name};

/// A source that can be loaded. Workers tell scripts apart by where this lies.
#[derive(Debug)]
pub struct CompiledScript {
    pub source: Arc<[u8]>,
}

/// The filter.
#[derive(Debug)]
pub struct CompiledLua {
    pub default: Option<Arc<CompiledScript>>,
    named: Vec<(Name, Arc<CompiledScript>)>,
    pub clear_route_cache: bool,
}

/// What a route says to it.
#[derive(Debug)]
pub struct CompiledLuaPerRoute {
    choice: Choice,
    pub filter_context: Arc<Map<String, Value>>,
}

#[derive(Debug)]
enum Choice {
    Default,
    Disabled,
    Named(Name),
    Script(Arc<CompiledScript>),
}

impl CompiledScript {
    fn new(source: &DataSource) -> Arc<Self> {
        Arc::new(Self {
            source: Arc::clone(&source.bytes),
        })
    }
}

impl CompiledLua {
    pub fn compile(config: &Lua) -> Self {
        let named = config.sources.iter();
        Self {
            default: config.default_source.as_ref().map(CompiledScript::new),
            named: named
                .map(|(name, source)| (Name::clone(name), CompiledScript::new(source)))
                .collect(),
            clear_route_cache: config.clear_route_cache,
        }
    }

    /// The script for a request, by what its route says.
    pub fn script<'a>(
        &'a self,
        of_route: Option<&'a CompiledLuaPerRoute>,
    ) -> Option<&'a Arc<CompiledScript>> {
        match of_route.map(|of_route| &of_route.choice) {
            None | Some(Choice::Default) => self.default.as_ref(),
            Some(Choice::Disabled) => None,
            Some(Choice::Named(name)) => {
                let found = self.named.iter().find(|(known, _)| known == name);
                found.map(|(_, script)| script)
            }
            Some(Choice::Script(script)) => Some(script),
        }
    }
}

impl CompiledLuaPerRoute {
    pub fn compile(config: &LuaPerRoute) -> Self {
        Self {
            choice: match &config.choice {
                LuaChoice::Default => Choice::Default,
                LuaChoice::Disabled => Choice::Disabled,
                LuaChoice::Named(name) => Choice::Named(Name::clone(name)),
                LuaChoice::Source(source) => Choice::Script(CompiledScript::new(source)),
            },
            filter_context: Arc::clone(&config.filter_context),
        }
    }
}
