//! Spans of tries: one for each time that a request is sent towards an upstream (`spawn_upstream_span`).
//!
//! They are kept with the request's span and written when it is over. What happens to a try is noted here by those who
//! know; for requests without such spans that is a look.

use std::rc::Rc;

use tidegate_rt::Moment;
use tidegate_snapshot::ResponseFlags;

use super::context::Context;
use crate::cluster::{ClusterRuntime, HostRuntime};
use crate::hcm::stream::Stream;
use crate::pool::PoolFailure;
use crate::worker::Core;

/// See the module.
pub(crate) struct Tried {
    pub(super) context: Context,
    pub(super) begun: Moment,
    /// `None`: under way.
    pub(super) over: Option<Moment>,
    pub(super) cluster: Rc<ClusterRuntime>,
    pub(super) host: Rc<HostRuntime>,
    /// Which one it is, beginning with 0.
    pub(super) retry: u32,
    /// Of the upstream's answer; 0: none.
    pub(super) status: u16,
    /// `None`: there was no connection.
    pub(super) protocol: Option<&'static str>,
    pub(super) canceled: bool,
    /// Why it was reset.
    pub(super) reset: Option<&'static str>,
    pub(super) flags: ResponseFlags,
}

/// A host has been chosen: the upstream is told of the try's span.
pub(in crate::hcm) fn begin(
    stream: &mut Stream,
    core: &mut Core,
    cluster: &Rc<ClusterRuntime>,
    host: &Rc<HostRuntime>,
) {
    if !stream.span.as_ref().is_some_and(|span| span.spawns) {
        return;
    }
    let now = core.now();
    end(stream, now);
    let retry = stream.attempts.saturating_sub(1);
    let Some(span) = &mut stream.span else { return };
    let context = span.context.child(&mut core.rng);
    span.carried.inject(&context, &mut stream.request.headers);
    if !context.sampled {
        return;
    }
    span.tries.push(Tried {
        context,
        begun: now,
        over: None,
        cluster: Rc::clone(cluster),
        host: Rc::clone(host),
        retry,
        status: 0,
        protocol: None,
        canceled: false,
        reset: None,
        flags: ResponseFlags::default(),
    });
}

/// The try at hand, if it has a span.
fn current(stream: &mut Stream) -> Option<&mut Tried> {
    let tried = stream.span.as_mut()?.tries.last_mut()?;
    tried.over.is_none().then_some(tried)
}

/// The upstream has answered.
pub(in crate::hcm) fn answered(stream: &mut Stream, status: u16) {
    if let Some(tried) = current(stream) {
        tried.status = status;
    }
}

/// We have given it up before it was over.
pub(in crate::hcm) fn canceled(stream: &mut Stream) {
    if let Some(tried) = current(stream) {
        tried.canceled = true;
    }
}

/// The one that was given up for the next was not over.
pub(in crate::hcm) fn last_canceled(stream: &mut Stream) {
    let span = stream.span.as_mut();
    if let Some(tried) = span.and_then(|span| span.tries.last_mut()) {
        tried.canceled = true;
    }
}

/// It has taken too long.
pub(in crate::hcm) fn flagged(stream: &mut Stream, flag: ResponseFlags) {
    if let Some(tried) = current(stream) {
        tried.flags.insert(flag);
    }
}

/// The upstream is gone.
pub(in crate::hcm) fn reset(stream: &mut Stream, reason: &'static str, flag: ResponseFlags) {
    if let Some(tried) = current(stream) {
        tried.reset = Some(reason);
        tried.flags.insert(flag);
    }
}

/// There was no connection for it.
pub(in crate::hcm) fn not_connected(stream: &mut Stream, failure: &PoolFailure) {
    if stream.span.is_none() {
        return;
    }
    let (reason, flag) = match failure {
        PoolFailure::Overflow | PoolFailure::RequestOverflow => {
            ("overflow", ResponseFlags::UPSTREAM_OVERFLOW)
        }
        PoolFailure::Bind(..) | PoolFailure::Local(_) | PoolFailure::LocalTls(_) => (
            "local connection failure",
            ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
        ),
        PoolFailure::Remote(_) | PoolFailure::Tls(_) => (
            "remote connection failure",
            ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
        ),
        PoolFailure::Timeout => (
            "connection timeout",
            ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
        ),
    };
    reset(stream, reason, flag);
}

/// The try at hand is over.
pub(in crate::hcm) fn end(stream: &mut Stream, now: Moment) {
    let protocol = stream.times.upstream_tx_begin.map(|_| {
        if stream.upstream_http2 {
            "HTTP/2"
        } else {
            "HTTP/1.1"
        }
    });
    if let Some(tried) = current(stream) {
        tried.protocol = protocol;
        tried.over = Some(now);
    }
}
