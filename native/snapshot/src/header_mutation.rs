//! The header mutation filter, compiled: changes one after the other.

use tidegate_model::header_mutation::{HeaderMutation, Mutation, Mutations, QueryMutation};
use tidegate_model::{AppendAction, Name};

use crate::error::CompileError;
use crate::format::Formatter;
use crate::headers::{HeaderEdit, HeaderOps, HeaderScratch};
use crate::log_context::LogContext;
use crate::matcher::CompiledString;

/// The filter.
#[derive(Debug)]
pub struct CompiledHeaderMutation {
    pub mutations: CompiledMutations,
    pub most_specific_wins: bool,
}

/// Of the filter or of a route.
#[derive(Debug)]
pub struct CompiledMutations {
    request: Vec<Step>,
    query: Vec<QueryStep>,
    response: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Ops(HeaderOps),
    RemoveMatching(CompiledString),
}

#[derive(Debug)]
enum QueryStep {
    Remove(Name),
    Append {
        key: Name,
        value: Formatter,
        action: AppendAction,
    },
}

impl CompiledHeaderMutation {
    pub fn compile(config: &HeaderMutation) -> Result<Self, CompileError> {
        Ok(Self {
            mutations: CompiledMutations::compile(&config.mutations)
                .map_err(|e| e.within("mutations"))?,
            most_specific_wins: config.most_specific_header_mutations_wins,
        })
    }
}

impl CompiledMutations {
    pub fn compile(config: &Mutations) -> Result<Self, CompileError> {
        Ok(Self {
            request: steps(&config.request).map_err(|e| e.within("request_mutations"))?,
            query: config
                .query_parameters
                .iter()
                .map(QueryStep::compile)
                .collect::<Result<_, _>>()
                .map_err(|e| e.within("query_parameter_mutations"))?,
            response: steps(&config.response).map_err(|e| e.within("response_mutations"))?,
        })
    }

    pub fn changes_query(&self) -> bool {
        !self.query.is_empty()
    }

    pub fn changes_response(&self) -> bool {
        !self.response.is_empty()
    }

    pub fn apply_request<T: LogContext + HeaderEdit>(
        &self,
        target: &mut T,
        scratch: &mut HeaderScratch,
    ) {
        apply(&self.request, target, scratch);
    }

    pub fn apply_response<T: LogContext + HeaderEdit>(
        &self,
        target: &mut T,
        scratch: &mut HeaderScratch,
    ) {
        apply(&self.response, target, scratch);
    }

    /// The path with its query parameters changed. They come sorted by name out of it, as Envoy has it.
    pub fn apply_query(&self, path: &[u8], context: &impl LogContext) -> Vec<u8> {
        let start = memchr::memchr(b'?', path);
        let (path, query) = match start {
            Some(start) => path.split_at(start),
            None => (path, &[][..]),
        };
        let mut parameters: Vec<(Vec<u8>, Vec<u8>)> = query
            .get(1..)
            .unwrap_or_default()
            .split(|byte| *byte == b'&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| match memchr::memchr(b'=', pair) {
                Some(equals) => {
                    let (key, value) = pair.split_at(equals);
                    (key.to_vec(), value.get(1..).unwrap_or_default().to_vec())
                }
                None => (pair.to_vec(), Vec::new()),
            })
            .collect();
        for step in &self.query {
            step.apply(&mut parameters, context);
        }
        parameters.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut out = path.to_vec();
        for (at, (key, value)) in parameters.iter().enumerate() {
            out.push(if at == 0 { b'?' } else { b'&' });
            out.extend_from_slice(key);
            out.push(b'=');
            out.extend_from_slice(value);
        }
        out
    }
}

fn steps(mutations: &[Mutation]) -> Result<Vec<Step>, CompileError> {
    let step = |(index, mutation): (usize, &Mutation)| {
        let within = |e: CompileError| e.within(&format!("[{index}]"));
        Ok(match mutation {
            Mutation::Remove(name) => {
                Step::Ops(HeaderOps::compile(&[], std::slice::from_ref(name)).map_err(within)?)
            }
            Mutation::Append(option) => {
                Step::Ops(HeaderOps::compile(std::slice::from_ref(option), &[]).map_err(within)?)
            }
            Mutation::RemoveMatching(matcher) => {
                Step::RemoveMatching(CompiledString::compile(matcher).map_err(within)?)
            }
        })
    };
    mutations.iter().enumerate().map(step).collect()
}

fn apply<T: LogContext + HeaderEdit>(steps: &[Step], target: &mut T, scratch: &mut HeaderScratch) {
    for step in steps {
        match step {
            Step::Ops(ops) => ops.apply(target, scratch),
            Step::RemoveMatching(matcher) => target.remove_matching(matcher),
        }
    }
}

impl QueryStep {
    fn compile(mutation: &QueryMutation) -> Result<Self, CompileError> {
        Ok(match mutation {
            QueryMutation::Remove(key) => Self::Remove(Name::clone(key)),
            QueryMutation::Append { key, value, action } => Self::Append {
                key: Name::clone(key),
                value: Formatter::compile_omitting_empty(value)
                    .map_err(|e| CompileError::new("append.record.value", e.reason))?,
                action: *action,
            },
        })
    }

    fn apply(&self, parameters: &mut Vec<(Vec<u8>, Vec<u8>)>, context: &impl LogContext) {
        let (key, value, action) = match self {
            Self::Remove(key) => {
                parameters.retain(|(name, _)| name != key.as_bytes());
                return;
            }
            Self::Append { key, value, action } => (key.as_bytes(), value, *action),
        };
        let mut text = Vec::new();
        value.format(context, &mut text);
        let exists = parameters.iter().any(|(name, _)| name == key);
        match action {
            AppendAction::AppendIfExistsOrAdd => {}
            AppendAction::AddIfAbsent if exists => return,
            AppendAction::OverwriteIfExists if !exists => return,
            AppendAction::AddIfAbsent => {}
            AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd => {
                parameters.retain(|(name, _)| name != key);
            }
        }
        parameters.push((key.to_vec(), text));
    }
}
