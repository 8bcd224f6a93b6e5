//! Access-log filters: which requests get a line.

use tidegate_model::access_log::{AccessLogFilter, ComparisonOp};
use tidegate_model::format::{DurationField, HeaderMap, NumberField};
use tidegate_model::{Name, RuntimeFraction};

use crate::error::CompileError;
use crate::grpc_status::{UNKNOWN, grpc_status};
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
    /// By status, a bit each.
    GrpcStatus {
        statuses: u32,
        exclude: bool,
    },
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
            AccessLogFilter::GrpcStatus { statuses, exclude } => Self::GrpcStatus {
                statuses: statuses.iter().fold(0, |set, status| {
                    set | 1_u32.checked_shl(u32::from(*status)).unwrap_or(0)
                }),
                exclude: *exclude,
            },
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
            Self::GrpcStatus { statuses, exclude } => {
                let status = grpc_status(context).unwrap_or(UNKNOWN);
                let bit = u32::try_from(status)
                    .ok()
                    .and_then(|status| 1_u32.checked_shl(status));
                (statuses & bit.unwrap_or(0) != 0) != *exclude
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::Sample;

    /// As Envoy 1.40 chose.
    #[test]
    fn by_grpc_status() {
        let passes = |statuses: &[u8], exclude, sample: &Sample| {
            let filter = AccessLogFilter::GrpcStatus {
                statuses: statuses.to_vec(),
                exclude,
            };
            CompiledLogFilter::compile(&filter)
                .unwrap()
                .passes(sample, &Runtime::default(), 0)
        };
        let mut plain = Sample::new();
        for (status, grpc_status, unknown_or_unavailable, neither_ok_nor_unknown) in [
            (200, None, true, false),
            (200, Some("0"), false, false),
            (200, Some("5"), false, true),
            (200, Some("17"), false, true),
            (200, Some("abc"), false, true),
            (503, None, true, true),
            (400, None, false, true),
            (0, None, true, false),
        ] {
            let call = Sample::call(status, grpc_status);
            let told = (passes(&[2, 14], false, &call), passes(&[0, 2], true, &call));
            let expected = (unknown_or_unavailable, neither_ok_nor_unknown);
            assert_eq!(told, expected, "{status} {grpc_status:?}");
        }
        // What is no gRPC has a status too.
        assert!(passes(&[2], false, &plain));
        plain.status = 503;
        assert!(passes(&[14], false, &plain));
        assert!(!passes(&[], false, &plain) && passes(&[], true, &plain));
    }
}
