//! Header changes of one level (`request_headers_to_add` and its siblings), compiled, and the order of levels.

use tidegate_model::{AppendAction, HeaderMutations, HeaderValueOption, Name};

use crate::error::CompileError;
use crate::format::Formatter;
use crate::header_name::HeaderName;
use crate::log_context::LogContext;
use crate::matcher::CompiledString;

/// A header map that can be changed. Implemented by the connection manager for request and for response headers.
pub trait HeaderEdit {
    fn contains(&self, name: &HeaderName) -> bool;

    /// Removes every value.
    fn remove(&mut self, name: &HeaderName);

    /// Removes every header whose name matches.
    fn remove_matching(&mut self, names: &CompiledString);

    /// Adds a value after those present (where Envoy joins values of a header it knows, so does the implementer).
    fn append(&mut self, name: &HeaderName, value: &[u8]);

    /// Replaces all values by this one. Envoy removes the header and adds it at the end, unless it is one that it keeps a
    /// fixed place for.
    fn set(&mut self, name: &HeaderName, value: &[u8]);
}

/// The header changes of one level. One word when there are none, as on most routes: what a request touches of its route
/// and virtual host is to be few cache lines.
#[derive(Debug, Default)]
pub struct HeaderMutator(Option<Box<Changes>>);

#[derive(Debug)]
struct Changes {
    request: HeaderOps,
    response: HeaderOps,
}

/// Removals, then additions.
#[derive(Debug, Default)]
pub struct HeaderOps {
    remove: Vec<HeaderName>,
    add: Vec<HeaderAdd>,
}

#[derive(Debug)]
struct HeaderAdd {
    name: HeaderName,
    value: Value,
    action: AppendAction,
    keep_empty_value: bool,
}

#[derive(Debug)]
enum Value {
    Literal(Name),
    Format(Formatter),
}

impl HeaderMutator {
    pub(crate) fn compile(config: &HeaderMutations) -> Result<Self, CompileError> {
        let changes = Changes {
            request: HeaderOps::compile(&config.request_add, &config.request_remove)
                .map_err(|e| e.within("request_headers_to_add"))?,
            response: HeaderOps::compile(&config.response_add, &config.response_remove)
                .map_err(|e| e.within("response_headers_to_add"))?,
        };
        let some = !(changes.request.is_empty() && changes.response.is_empty());
        Ok(Self(some.then(|| Box::new(changes))))
    }

    #[inline]
    fn request(&self) -> Option<&HeaderOps> {
        self.0.as_deref().map(|changes| &changes.request)
    }

    #[inline]
    fn response(&self) -> Option<&HeaderOps> {
        self.0.as_deref().map(|changes| &changes.response)
    }
}

/// Room for evaluating header values, kept by the worker from request to request.
#[derive(Debug, Default)]
pub struct HeaderScratch {
    values: Vec<u8>,
    /// Where each value ends, and what is to be done with it.
    steps: Vec<(usize, Step)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Skip,
    Overwrite,
    Append,
}

impl HeaderOps {
    pub(crate) fn compile(
        add: &[HeaderValueOption],
        remove: &[Name],
    ) -> Result<Self, CompileError> {
        let mut compiled = Vec::with_capacity(add.len());
        for (index, option) in add.iter().enumerate() {
            let format = Formatter::compile_omitting_empty(&option.value)
                .map_err(|e| CompileError::new(format!("[{index}].header.value"), e.reason))?;
            compiled.push(HeaderAdd {
                name: HeaderName::from(&option.name),
                value: match format.literal() {
                    Some(text) => Value::Literal(text),
                    None => Value::Format(format),
                },
                action: option.append_action,
                keep_empty_value: option.keep_empty_value,
            });
        }
        Ok(Self {
            remove: remove.iter().map(HeaderName::from).collect(),
            add: compiled,
        })
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Applies this level: removals first. Then all values are computed, and what exists is looked up, before anything is
    /// put in: overwrites, then additions.
    pub fn apply<T: LogContext + HeaderEdit>(&self, target: &mut T, scratch: &mut HeaderScratch) {
        for name in &self.remove {
            target.remove(name);
        }
        if self.add.is_empty() {
            return;
        }
        scratch.values.clear();
        scratch.steps.clear();
        for add in &self.add {
            let start = scratch.values.len();
            match &add.value {
                Value::Literal(text) => scratch.values.extend_from_slice(text.as_bytes()),
                Value::Format(format) => format.format(&*target, &mut scratch.values),
            }
            let empty = scratch.values.len() == start;
            let step = match add.action {
                _ if empty && !add.keep_empty_value => Step::Skip,
                AppendAction::OverwriteIfExistsOrAdd => Step::Overwrite,
                AppendAction::OverwriteIfExists if target.contains(&add.name) => Step::Overwrite,
                AppendAction::AddIfAbsent if !target.contains(&add.name) => Step::Append,
                AppendAction::AppendIfExistsOrAdd => Step::Append,
                AppendAction::OverwriteIfExists | AppendAction::AddIfAbsent => Step::Skip,
            };
            scratch.steps.push((scratch.values.len(), step));
        }
        for turn in [Step::Overwrite, Step::Append] {
            let mut start = 0;
            for (add, (end, step)) in self.add.iter().zip(&scratch.steps) {
                let value = scratch.values.get(start..*end).unwrap_or_default();
                start = *end;
                match step {
                    _ if *step != turn => {}
                    Step::Overwrite => target.set(&add.name, value),
                    Step::Append => target.append(&add.name, value),
                    Step::Skip => {}
                }
            }
        }
    }
}

/// The levels of header changes that apply to a request.
#[derive(Debug, Clone, Copy)]
pub struct HeaderLevels<'a> {
    pub weighted_cluster: Option<&'a HeaderMutator>,
    pub route: &'a HeaderMutator,
    pub virtual_host: &'a HeaderMutator,
    pub route_configuration: &'a HeaderMutator,
    /// `RouteConfiguration.most_specific_header_mutations_wins`.
    pub most_specific_wins: bool,
}

impl<'a> HeaderLevels<'a> {
    /// In Envoy's order of evaluation: the weighted cluster always first; then route, virtual host, route configuration, or
    /// the other way round when the most specific is to win.
    fn in_order(&self) -> [Option<&'a HeaderMutator>; 4] {
        let (first, last) = if self.most_specific_wins {
            (self.route_configuration, self.route)
        } else {
            (self.route, self.route_configuration)
        };
        [
            self.weighted_cluster,
            Some(first),
            Some(self.virtual_host),
            Some(last),
        ]
    }

    pub fn has_request_changes(&self) -> bool {
        self.in_order()
            .iter()
            .flatten()
            .filter_map(|level| level.request())
            .any(|ops| !ops.is_empty())
    }

    pub fn has_response_changes(&self) -> bool {
        self.in_order()
            .iter()
            .flatten()
            .filter_map(|level| level.response())
            .any(|ops| !ops.is_empty())
    }

    pub fn apply_request<T: LogContext + HeaderEdit>(
        &self,
        target: &mut T,
        scratch: &mut HeaderScratch,
    ) {
        let levels = self.in_order().into_iter().flatten();
        for ops in levels.filter_map(HeaderMutator::request) {
            ops.apply(target, scratch);
        }
    }

    pub fn apply_response<T: LogContext + HeaderEdit>(
        &self,
        target: &mut T,
        scratch: &mut HeaderScratch,
    ) {
        let levels = self.in_order().into_iter().flatten();
        for ops in levels.filter_map(HeaderMutator::response) {
            ops.apply(target, scratch);
        }
    }
}

#[cfg(test)]
mod tests;
