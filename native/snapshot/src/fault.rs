//! The fault filter's decisions: whether and how long to delay, whether and how to abort.
//!
//! A function of configuration, request and random numbers; running timers and counting active faults is the filter's job.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tidegate_model::Fraction;
use tidegate_model::hcm::{Fault, FaultAbortKind, FaultDelayKind, FaultRateLimitKind};

use crate::error::CompileError;
use crate::header_name::HeaderName;
use crate::matcher::CompiledHeader;
use crate::request::RequestView;

/// `HTTPFault`, with what it is limited to.
#[derive(Debug)]
pub struct CompiledFault {
    pub config: Arc<Fault>,
    headers: Vec<CompiledHeader>,
}

/// The request headers that steer faults where the configuration lets them.
struct FaultHeaders {
    delay: HeaderName,
    delay_percentage: HeaderName,
    abort: HeaderName,
    abort_grpc: HeaderName,
    abort_percentage: HeaderName,
    throughput: HeaderName,
    throughput_percentage: HeaderName,
    downstream_node: HeaderName,
}

static NAMES: LazyLock<FaultHeaders> = LazyLock::new(|| FaultHeaders {
    delay: HeaderName::new("x-envoy-fault-delay-request"),
    delay_percentage: HeaderName::new("x-envoy-fault-delay-request-percentage"),
    abort: HeaderName::new("x-envoy-fault-abort-request"),
    abort_grpc: HeaderName::new("x-envoy-fault-abort-grpc-request"),
    abort_percentage: HeaderName::new("x-envoy-fault-abort-request-percentage"),
    throughput: HeaderName::new("x-envoy-fault-throughput-response"),
    throughput_percentage: HeaderName::new("x-envoy-fault-throughput-response-percentage"),
    downstream_node: HeaderName::new("x-envoy-downstream-service-node"),
});

/// What an aborted request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    HttpStatus(u16),
    GrpcStatus(u32),
}

impl CompiledFault {
    pub(crate) fn compile(config: &Arc<Fault>) -> Result<Self, CompileError> {
        Ok(Self {
            headers: CompiledHeader::compile_all(&config.headers)?,
            config: Arc::clone(config),
        })
    }

    /// Whether the filter looks at this request at all: upstream cluster, headers, downstream node.
    /// `cluster` is the name of the cluster the route chose, if it chose one.
    pub fn applies(&self, request: &impl RequestView, cluster: Option<&str>) -> bool {
        if let Some(wanted) = &self.config.upstream_cluster
            && !wanted.is_empty()
            && cluster != Some(&**wanted)
        {
            return false;
        }
        if !self.headers.iter().all(|header| header.matches(request)) {
            return false;
        }
        self.config.downstream_nodes.is_empty()
            || request.header(&NAMES.downstream_node).is_some_and(|node| {
                self.config
                    .downstream_nodes
                    .iter()
                    .any(|wanted| wanted.as_bytes() == node)
            })
    }

    /// How long to hold the request, by a random number of its own.
    pub fn delay(&self, request: &impl RequestView, random: u64) -> Option<Duration> {
        let delay = self.config.delay.as_ref()?;
        let (duration, fraction) = match &delay.kind {
            FaultDelayKind::Fixed(duration) => (*duration, delay.percentage),
            FaultDelayKind::Header => (
                Duration::from_millis(number(request, &NAMES.delay)?),
                self.lowered(request, &NAMES.delay_percentage, delay.percentage),
            ),
        };
        (fraction.hits(random) && !duration.is_zero()).then_some(duration)
    }

    /// How to answer instead of forwarding, by a random number of its own.
    pub fn abort(&self, request: &impl RequestView, random: u64) -> Option<Abort> {
        let abort = self.config.abort.as_ref()?;
        let (answer, fraction) = match &abort.kind {
            FaultAbortKind::HttpStatus(status) => (Abort::HttpStatus(*status), abort.percentage),
            FaultAbortKind::GrpcStatus(status) => (Abort::GrpcStatus(*status), abort.percentage),
            FaultAbortKind::Header => {
                let http = number(request, &NAMES.abort)
                    .filter(|status| (200..600).contains(status))
                    .map(|status| Abort::HttpStatus(status as u16));
                let grpc = || {
                    number(request, &NAMES.abort_grpc)
                        .map(|status| Abort::GrpcStatus(status as u32))
                };
                (
                    http.or_else(grpc)?,
                    self.lowered(request, &NAMES.abort_percentage, abort.percentage),
                )
            }
        };
        fraction.hits(random).then_some(answer)
    }

    /// The response rate limit in KiB/s, by a random number of its own.
    pub fn response_rate_limit(&self, request: &impl RequestView, random: u64) -> Option<u64> {
        let limit = self.config.response_rate_limit.as_ref()?;
        let (kbps, fraction) = match &limit.kind {
            FaultRateLimitKind::FixedKbps(kbps) => (*kbps, limit.percentage),
            FaultRateLimitKind::Header => (
                number(request, &NAMES.throughput).filter(|kbps| *kbps > 0)?,
                self.lowered(request, &NAMES.throughput_percentage, limit.percentage),
            ),
        };
        fraction.hits(random).then_some(kbps)
    }

    /// A request may lower the configured share (numerator of the same denominator), never raise it.
    fn lowered(
        &self,
        request: &impl RequestView,
        header: &HeaderName,
        configured: Fraction,
    ) -> Fraction {
        match number(request, header) {
            Some(percent) => Fraction {
                per_million: configured
                    .per_million
                    .min((percent.min(100) * 10_000) as u32),
            },
            None => configured,
        }
    }
}

fn number(request: &impl RequestView, name: &HeaderName) -> Option<u64> {
    std::str::from_utf8(request.header(name)?)
        .ok()?
        .parse()
        .ok()
}
