//! Spans as OpenTelemetry has them, which requests its samplers let through, and how they are reported.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use tidegate_codec::h1::KnownHeader;
use tidegate_model::tracing::{Exporter, OpenTelemetry, Sampler};
use tidegate_services::trace;
use tidegate_snapshot::retry::CompiledRetryPolicy;

use super::context::Context;
use super::{Each, Kind, Record};
use crate::hcm::async_client::{self, CallRequest};
use crate::worker::Worker;

/// Of `flags`: it is known whether the parent is remote, and it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Who says all this, in Envoy's words; its version comes with it.
const SCOPE: &str = "envoy";

/// What every resource has before the configuration's own.
const SDK: [(&str, &str); 2] = [
    ("telemetry.sdk.language", "cpp"),
    ("telemetry.sdk.name", "envoy"),
];
const SDK_VERSION: &str = "telemetry.sdk.version";

/// Whether a request is sampled that may be: with a caller's span, or at the root of this trace.
pub(super) fn samples(sampler: &Sampler, parent: Option<&Context>, trace_high: u64) -> bool {
    match sampler {
        Sampler::AlwaysOn => true,
        Sampler::TraceIdRatio {
            numerator,
            denominator,
        } => {
            // The first eight bytes, read as the processors of this world do.
            let number = trace_high.swap_bytes();
            number
                .checked_rem(*denominator)
                .is_some_and(|rest| rest < *numerator)
        }
        Sampler::ParentBased(wrapped) => match parent {
            Some(parent) => parent.sampled,
            None => samples(wrapped, None, trace_high),
        },
    }
}

/// Adds a span to those that wait.
pub(super) fn write(
    out: &mut Vec<u8>,
    record: &Record<'_>,
    state: &[u8],
    remote_parent: bool,
    tags: Each<'_>,
) {
    let (context, moments) = (&record.context, &record.moments);
    let begun = moments.begun.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = |since: std::time::Duration| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let trace_id = [
        context.trace_high.to_be_bytes(),
        context.trace.to_be_bytes(),
    ];
    let parent = context.parent.map(|parent| parent.to_be_bytes().to_vec());
    let mut written = trace::Span {
        trace_id: trace_id.concat(),
        span_id: context.id.to_be_bytes().to_vec(),
        parent_span_id: parent.unwrap_or_default(),
        trace_state: String::from_utf8_lossy(state).into_owned(),
        name: String::from_utf8_lossy(record.operation).into_owned(),
        kind: match record.kind {
            Kind::Server => trace::SERVER,
            Kind::Client => trace::CLIENT,
        },
        start_time_unix_nano: nanos(begun),
        end_time_unix_nano: nanos(begun + moments.took),
        flags: u32::from(context.sampled)
            | HAS_IS_REMOTE
            | if remote_parent { IS_REMOTE } else { 0 },
        ..trace::Span::default()
    };
    tags(&mut |name, value| {
        if !name.is_empty() {
            written.set_attribute(name, value);
        }
    });
    if record.is_error {
        written.set_error();
    }
    written.write(out);
}

/// Sends spans on their way.
pub(super) fn report(
    worker: &mut Worker,
    provider: &OpenTelemetry,
    retry: Option<Arc<CompiledRetryPolicy>>,
    spans: &[u8],
) {
    let Some(exporter) = &provider.exporter else {
        return;
    };
    let version = &worker.core.shared.config.version;
    let mut resource: Vec<(&str, &str)> = SDK.to_vec();
    resource.push((SDK_VERSION, version));
    for (key, value) in &provider.resource {
        match resource.iter_mut().find(|(known, _)| *known == &**key) {
            Some((_, known)) => *known = value,
            None => resource.push((key, value)),
        }
    }
    let message = trace::request(resource.into_iter(), (SCOPE, version), spans);
    let user_agent = format!("OTel-OTLP-Exporter-Envoy/{version}");
    let mut framed = Vec::new();
    let mut call = match exporter {
        Exporter::Grpc(service) => {
            let authority = service.authority.as_ref().unwrap_or(&service.cluster);
            let mut call = CallRequest::grpc(
                &service.cluster,
                authority.as_bytes(),
                trace::EXPORT,
                &message,
                &mut framed,
            );
            for (name, value) in &service.initial_metadata {
                call.headers.add(name.as_bytes(), value.as_bytes());
            }
            call.retry = retry;
            call.internal = !service.skip_envoy_headers;
            call.forwarded_for = !service.skip_envoy_headers;
            call
        }
        Exporter::Http(service) => {
            let mut call = CallRequest::new(
                &service.cluster,
                b"POST",
                service.host.as_bytes(),
                service.path.as_bytes(),
            );
            call.headers
                .add_known(KnownHeader::ContentType, b"application/x-protobuf");
            for (name, value) in &service.headers {
                call.headers.set(name.as_bytes(), value.as_bytes());
            }
            call.timeout = Some(service.timeout).filter(|timeout| !timeout.is_zero());
            call.body = &message;
            call
        }
    };
    if !call.headers.has(KnownHeader::UserAgent) {
        call.headers
            .add_known(KnownHeader::UserAgent, user_agent.as_bytes());
    }
    // Whatever becomes of it: Envoy looks at answers for its log alone.
    async_client::start(worker, call, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers() {
        let parent = |sampled| Context {
            trace_high: 0,
            trace: 1,
            id: 1,
            parent: None,
            sampled,
        };
        let half = Sampler::TraceIdRatio {
            numerator: 50,
            denominator: 100,
        };
        assert!(samples(&half, None, 49_u64.swap_bytes()));
        assert!(!samples(&half, Some(&parent(true)), 50_u64.swap_bytes()));
        let by_parent = Sampler::ParentBased(Box::new(half));
        assert!(samples(
            &by_parent,
            Some(&parent(true)),
            50_u64.swap_bytes()
        ));
        assert!(!samples(
            &by_parent,
            Some(&parent(false)),
            49_u64.swap_bytes()
        ));
        assert!(samples(&by_parent, None, 49_u64.swap_bytes()));
        assert!(samples(&Sampler::AlwaysOn, Some(&parent(false)), 0));
    }
}
