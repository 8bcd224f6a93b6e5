//! Tracing of a connection manager and of routes, compiled: names that are looked up are in the form of the lookup.

use tidegate_model::Name;
use tidegate_model::tracing::{CustomTag, CustomTagValue, RouteTracing, Sampling, Tracing};

use crate::header_name::HeaderName;

/// See the module.
#[derive(Debug)]
pub struct CompiledTracing {
    pub config: Tracing,
    pub custom_tags: Vec<CompiledTag>,
}

/// A tag that every span of a connection manager, or of a route, has.
#[derive(Debug, Clone)]
pub struct CompiledTag {
    pub name: Name,
    pub value: TagValue,
}

#[derive(Debug, Clone)]
pub enum TagValue {
    Literal(Name),
    RequestHeader {
        name: HeaderName,
        default: Name,
    },
    RequestMetadata {
        filter: Name,
        path: Vec<Name>,
        default: Name,
    },
}

impl CompiledTracing {
    pub fn compile(config: &Tracing) -> Self {
        Self {
            config: config.clone(),
            custom_tags: compile_tags(&config.custom_tags),
        }
    }
}

/// What a route says over it.
#[derive(Debug)]
pub struct CompiledRouteTracing {
    pub sampling: Sampling,
    pub custom_tags: Vec<CompiledTag>,
}

impl CompiledRouteTracing {
    pub(crate) fn compile(config: &RouteTracing) -> Self {
        Self {
            sampling: config.sampling,
            custom_tags: compile_tags(&config.custom_tags),
        }
    }
}

/// The tags of one level.
fn compile_tags(tags: &[CustomTag]) -> Vec<CompiledTag> {
    tags.iter()
        .map(|tag| CompiledTag {
            name: tag.name.clone(),
            value: match &tag.value {
                CustomTagValue::Literal(text) => TagValue::Literal(text.clone()),
                CustomTagValue::RequestHeader { name, default } => TagValue::RequestHeader {
                    name: HeaderName::new(name),
                    default: default.clone(),
                },
                CustomTagValue::RequestMetadata {
                    filter,
                    path,
                    default,
                } => TagValue::RequestMetadata {
                    filter: filter.clone(),
                    path: path.clone(),
                    default: default.clone(),
                },
            },
        })
        .collect()
}
