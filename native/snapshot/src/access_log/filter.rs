//! Access-log filters: which requests get a line.

use tidegate_model::access_log::{AccessLogFilter, ComparisonOp};
use tidegate_model::format::{DurationField, HeaderMap, NumberField};
use tidegate_model::{Name, RuntimeFraction};

use crate::error::CompileError;
use crate::log_context::LogContext;
use crate::matcher::CompiledHeader;
use crate::response_flags::ResponseFlags;
use crate::runtime::Runtime;

/// `config.accesslog.v3.AccessLogFilter`.
#[derive(Debug)]
pub enum CompiledLogFilter {
    StatusCode(ComparisonOp, u32),
    /// In milliseconds.
    Duration(ComparisonOp, u32),
    NotHealthCheck,
    Traceable,
    Runtime {
        fraction: RuntimeFraction,
        independent: bool,
    },
    And(Vec<CompiledLogFilter>),
    Or(Vec<CompiledLogFilter>),
    Header(CompiledHeader),
    /// Empty: any flag.
    ResponseFlag(ResponseFlags),
}

impl CompiledLogFilter {
    pub(crate) fn compile(filter: &AccessLogFilter) -> Result<Self, CompileError> {
        let all = |filters: &[AccessLogFilter]| {
            filters
                .iter()
                .map(Self::compile)
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(match filter {
            AccessLogFilter::StatusCode { op, value } => Self::StatusCode(*op, *value),
            AccessLogFilter::Duration { op, value } => Self::Duration(*op, *value),
            AccessLogFilter::NotHealthCheck => Self::NotHealthCheck,
            AccessLogFilter::Traceable => Self::Traceable,
            AccessLogFilter::Runtime {
                fraction,
                use_independent_randomness,
            } => Self::Runtime {
                fraction: fraction.clone(),
                independent: *use_independent_randomness,
            },
            AccessLogFilter::And(filters) => Self::And(all(filters)?),
            AccessLogFilter::Or(filters) => Self::Or(all(filters)?),
            AccessLogFilter::Header(matcher) => Self::Header(CompiledHeader::compile(matcher)?),
            AccessLogFilter::ResponseFlag(names) => Self::ResponseFlag(flags(names)?),
        })
    }

    /// `random` is fresh for this line; a runtime filter without independent randomness uses the request's own.
    pub fn passes(
        &self,
        context: &(impl LogContext + ?Sized),
        runtime: &Runtime,
        random: u64,
    ) -> bool {
        match self {
            Self::StatusCode(op, value) => {
                let code = context.number(NumberField::ResponseCode).unwrap_or(0);
                compare(*op, code, u64::from(*value))
            }
            Self::Duration(op, value) => match context.duration(DurationField::Total) {
                Some(duration) => compare(*op, duration.as_millis() as u64, u64::from(*value)),
                None => false,
            },
            Self::NotHealthCheck => !context.is_health_check(),
            Self::Traceable => context.is_traced(),
            Self::Runtime {
                fraction,
                independent,
            } => {
                let random = if *independent {
                    random
                } else {
                    context.request_random()
                };
                runtime.hits(fraction, random)
            }
            Self::And(filters) => filters.iter().all(|f| f.passes(context, runtime, random)),
            Self::Or(filters) => filters.iter().any(|f| f.passes(context, runtime, random)),
            Self::Header(matcher) => {
                matcher.matches_value(context.header(HeaderMap::Request, matcher.name()))
            }
            Self::ResponseFlag(wanted) => {
                let set = context.response_flags();
                if wanted.is_empty() {
                    !set.is_empty()
                } else {
                    set.intersects(*wanted)
                }
            }
        }
    }
}

fn compare(op: ComparisonOp, value: u64, wanted: u64) -> bool {
    match op {
        ComparisonOp::Eq => value == wanted,
        ComparisonOp::Ge => value >= wanted,
        ComparisonOp::Le => value <= wanted,
        ComparisonOp::Ne => value != wanted,
    }
}

fn flags(names: &[Name]) -> Result<ResponseFlags, CompileError> {
    let mut flags = ResponseFlags::NONE;
    for name in names {
        let flag = ResponseFlags::find(name).ok_or_else(|| {
            CompileError::new(
                "response_flag_filter.flags",
                format!("{name} is not a response flag"),
            )
        })?;
        flags.insert(flag);
    }
    Ok(flags)
}
