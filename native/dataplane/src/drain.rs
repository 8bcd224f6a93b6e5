//! Draining: which connections a drain concerns, and when an HTTP connection is asked to close.
//!
//! A drain begins when a listener is removed, when a filter chain is gone after an update, or when the whole process
//! drains. Connections get `Event::Drain` then, and `Event::DrainDeadline` when the drain time is over. TCP proxy
//! connections stay until then; HTTP connections close with their next response, see [`asks_to_close`].

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_rt::{Moment, Rng};
use tidegate_snapshot::Chain;

use crate::conn::Conn;
use crate::listener::ListenerRuntime;
use crate::worker::Core;

/// The listener of a downstream connection, and its chain if it has one already; nothing for other occupants.
pub(crate) fn drains(conn: &Conn) -> Option<(&Rc<ListenerRuntime>, Option<&Arc<Chain>>)> {
    match conn {
        Conn::Http(conn) => Some((conn.listener(), Some(conn.chain()))),
        Conn::TcpProxy(session) => Some((session.listener(), Some(session.chain()))),
        Conn::Waiting(waiting) => Some((waiting.listener(), None)),
        Conn::Acceptor(_) | Conn::Upstream(_) | Conn::Call(_) | Conn::Statsd(_) => None,
    }
}

/// Envoy's `DrainDecision` for an HTTP connection: whether it should be asked to close now, because health checks are being
/// failed (but for listeners that drain on modification only), or because the connection or its listener is draining.
pub fn asks_to_close(
    core: &mut Core,
    listener: &ListenerRuntime,
    draining: Option<Moment>,
) -> bool {
    if core.shared.health_check_failed() && !listener.compiled.config.drain_type_modify_only {
        return true;
    }
    let since = draining.or(listener.draining_since());
    let now = core.now();
    let (drain_time, gradually) = (
        core.shared.config.drain_time,
        core.shared.config.drain_gradually,
    );
    drain_close(since, now, drain_time, gradually, &mut core.rng)
}

/// Whether a connection that has been draining since `since` is asked to close now. With the
/// gradual strategy the probability grows with time and reaches one at the end of the drain time.
pub fn drain_close(
    since: Option<Moment>,
    now: Moment,
    drain_time: Duration,
    gradually: bool,
    rng: &mut Rng,
) -> bool {
    let Some(since) = since else {
        return false;
    };
    let total = drain_time.as_millis() as u64;
    let elapsed = now.since(since).as_millis() as u64;
    if !gradually || total == 0 || elapsed >= total {
        return true;
    }
    rng.below(total) < elapsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradual_strategy_closes_more_and_more() {
        let mut rng = Rng::with_seed(1);
        let start = Moment::default();
        let total = Duration::from_secs(100);
        let mut closed_at = |seconds| {
            let now = start + Duration::from_secs(seconds);
            (0..1000)
                .filter(|_| drain_close(Some(start), now, total, true, &mut rng))
                .count()
        };
        assert_eq!(closed_at(0), 0);
        assert!(closed_at(30).abs_diff(300) < 60);
        assert_eq!(closed_at(100), 1000);
        assert!(!drain_close(None, start, total, false, &mut rng));
        assert!(drain_close(Some(start), start, total, false, &mut rng));
    }
}
