//! Pages that make the process do something.

use tidegate_dataplane::DrainScope;

use super::{Asked, Page};
use crate::aux::Order;
use crate::engine::Core;
use crate::events::Event;
use crate::version;

pub(super) fn contention(_: &Core, _: &Asked) -> Page {
    Page::text(
        "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.",
    )
}

pub(super) fn health_check_fail(core: &Core, _: &Asked) -> Page {
    core.set_health_check_failed(true);
    Page::text("OK\n")
}

pub(super) fn health_check_ok(core: &Core, _: &Asked) -> Page {
    core.set_health_check_failed(false);
    Page::text("OK\n")
}

pub(super) fn hot_restart_version(_: &Core, _: &Asked) -> Page {
    Page::text(version::HOT_RESTART)
}

pub(super) fn quit(core: &Core, _: &Asked) -> Page {
    core.events.raise(Event::Shutdown);
    Page::text("OK\n")
}

pub(super) fn reopen_logs(core: &Core, _: &Asked) -> Page {
    core.reopen_logs();
    Page::text("OK\n")
}

/// `graceful`: the sockets close only after the drain time; `skip_exit`: never.
pub(super) fn drain_listeners(core: &Core, asked: &Asked) -> Page {
    let scope = if asked.has("inboundonly") {
        DrainScope::InboundOnly
    } else {
        DrainScope::All
    };
    let (graceful, skip_exit) = (asked.has("graceful"), asked.has("skip_exit"));
    core.drain_listeners(scope, !graceful && !skip_exit);
    if graceful && !skip_exit {
        core.order(Order::StopListenersAfter(core.options.drain_time, scope));
    }
    Page::text("OK\n")
}
