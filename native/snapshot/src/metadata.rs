//! Dynamic metadata: what filters tell each other about a request, by namespace, and matchers of it.
//!
//! Values are JSON's, which are those of a `Struct`; integers compare as doubles. Knows no filter.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};
use tidegate_model::Name;
use tidegate_model::matcher::{DoubleMatcher, MetadataMatcher, ValueMatcher};

use crate::error::CompileError;
use crate::matcher::CompiledString;

/// The metadata of one request. What filters say lies in layers, the later ones above: saying what a configuration has ready
/// copies nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DynamicMetadata(Vec<(Name, Arc<Map<String, Value>>)>);

impl DynamicMetadata {
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// All that filters have said under a namespace.
    pub fn namespace(&self, filter: &str) -> Option<Cow<'_, Map<String, Value>>> {
        let mut layers = self.0.iter().filter(|(name, _)| &**name == filter);
        let (_, first) = layers.next()?;
        let mut all = Cow::Borrowed(&**first);
        for (_, layer) in layers {
            let above = layer
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()));
            all.to_mut().extend(above);
        }
        Some(all)
    }

    /// The value at a path below a namespace; without a path there is none.
    pub fn value(&self, filter: &str, path: &[Name]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        let mut layers = self.0.iter().rev().filter(|(name, _)| &**name == filter);
        let mut value = layers.find_map(|(_, layer)| layer.get(&**first))?;
        for key in rest {
            value = value.as_object()?.get(&**key)?;
        }
        Some(value)
    }

    /// Adds to what is there; a key that is there already gets the new value (Envoy's `setDynamicMetadata`).
    pub fn merge(&mut self, filter: &str, fields: Map<String, Value>) {
        match self.0.last_mut().filter(|(name, _)| &**name == filter) {
            Some((_, known)) => Arc::make_mut(known).extend(fields),
            None => self.0.push((Name::from(filter), Arc::new(fields))),
        }
    }

    /// As [`Self::merge`], of what is ready.
    pub fn merge_shared(&mut self, filter: &Name, fields: &Arc<Map<String, Value>>) {
        self.0.push((Name::clone(filter), Arc::clone(fields)));
    }

    pub fn set(&mut self, filter: &str, key: &str, value: Value) {
        self.merge(filter, Map::from_iter([(key.to_owned(), value)]));
    }

    /// The namespaces, each once, with all that was said under it.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, Cow<'_, Map<String, Value>>)> {
        let first = |at: &usize| {
            let name = self.0.get(*at).map(|(name, _)| name);
            !self
                .0
                .iter()
                .take(*at)
                .any(|(other, _)| Some(other) == name)
        };
        (0..self.0.len()).filter(first).filter_map(|at| {
            let (name, _) = self.0.get(at)?;
            Some((name, self.namespace(name)?))
        })
    }
}

/// `type.matcher.v3.MetadataMatcher`, compiled.
#[derive(Debug, Clone)]
pub struct CompiledMetadata {
    filter: Name,
    path: Vec<Name>,
    value: CompiledValue,
    invert: bool,
}

/// `type.matcher.v3.ValueMatcher`, compiled.
#[derive(Debug, Clone)]
pub enum CompiledValue {
    Null,
    Double(DoubleMatcher),
    String(CompiledString),
    Bool(bool),
    Present(bool),
    OneOf(Box<CompiledValue>),
    Or(Vec<CompiledValue>),
}

impl CompiledMetadata {
    pub fn compile(matcher: &MetadataMatcher) -> Result<Self, CompileError> {
        Ok(Self {
            filter: Name::clone(&matcher.filter),
            path: matcher.path.clone(),
            value: CompiledValue::compile(&matcher.value)?,
            invert: matcher.invert,
        })
    }

    pub fn matches(&self, metadata: &DynamicMetadata) -> bool {
        self.value.matches(metadata.value(&self.filter, &self.path)) != self.invert
    }
}

impl CompiledValue {
    pub fn compile(matcher: &ValueMatcher) -> Result<Self, CompileError> {
        Ok(match matcher {
            ValueMatcher::Null => Self::Null,
            ValueMatcher::Double(double) => Self::Double(*double),
            ValueMatcher::String(string) => Self::String(CompiledString::compile(string)?),
            ValueMatcher::Bool(value) => Self::Bool(*value),
            ValueMatcher::Present(value) => Self::Present(*value),
            ValueMatcher::OneOf(one) => Self::OneOf(Box::new(Self::compile(one)?)),
            ValueMatcher::Or(all) => {
                Self::Or(all.iter().map(Self::compile).collect::<Result<_, _>>()?)
            }
        })
    }

    /// `None`: there is no such value.
    pub fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Or(all), value) => all.iter().any(|one| one.matches(value)),
            (Self::Present(present), value) => value.is_some() == *present,
            (Self::Null, Some(Value::Null)) => true,
            (Self::Bool(wanted), Some(Value::Bool(value))) => wanted == value,
            (Self::String(string), Some(Value::String(value))) => string.matches(value.as_bytes()),
            (Self::Double(double), Some(Value::Number(value))) => {
                let value = value.as_f64().unwrap_or(f64::NAN);
                match *double {
                    // As Envoy compares.
                    DoubleMatcher::Exact(exact) => (exact - value).abs() <= f64::EPSILON,
                    DoubleMatcher::Range { start, end } => start <= value && value < end,
                }
            }
            (Self::OneOf(one), Some(Value::Array(values))) => {
                values.iter().any(|value| one.matches(Some(value)))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidegate_model::matcher::{StringMatcher, StringPattern};

    #[test]
    fn values_are_found_by_their_path() {
        let mut metadata = DynamicMetadata::default();
        metadata.set("a", "x", json!({"y": ["p", "q"]}));
        metadata.set("a", "z", json!(1));
        let exact = |text: &str| {
            ValueMatcher::String(StringMatcher {
                pattern: StringPattern::Exact(text.into()),
                ignore_case: false,
            })
        };
        let matches = |path: &[&str], value: ValueMatcher| {
            let matcher = MetadataMatcher {
                filter: "a".into(),
                path: path.iter().map(|key| Name::from(*key)).collect(),
                value,
                invert: false,
            };
            CompiledMetadata::compile(&matcher)
                .unwrap()
                .matches(&metadata)
        };
        assert!(matches(
            &["x", "y"],
            ValueMatcher::OneOf(Box::new(exact("q")))
        ));
        assert!(!matches(
            &["x", "y"],
            ValueMatcher::OneOf(Box::new(exact("r")))
        ));
        assert!(matches(
            &["z"],
            ValueMatcher::Double(DoubleMatcher::Exact(1.0))
        ));
        assert!(matches(&["w"], ValueMatcher::Present(false)));
        assert!(!matches(&["w"], exact("")));
    }
}
