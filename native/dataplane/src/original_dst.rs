//! Where a redirected connection was headed, and which listener it is therefore handed to.
//!
//! The lookup costs a system call and is made only where the listener asks for it (`envoy.filters.listener.original_dst`
//! or the deprecated `use_original_dst`, which implies it).

use std::rc::Rc;

use tidegate_model::listener::Listener;
use tidegate_rt::Socket;

use crate::accept::ConnectionInfo;
use crate::listener::ListenerRuntime;
use crate::worker::Core;

/// Makes the original destination the local address, where the listener wants that and the kernel knows one.
pub(crate) fn restore(config: &Listener, socket: &Socket, info: &mut ConnectionInfo) {
    if !(config.original_dst_filter || config.use_original_dst) {
        return;
    }
    match socket.original_dst(info.direct_local) {
        // A connection that was not redirected has its own address as original destination. Restoring that, as Envoy does,
        // would let an ORIGINAL_DST cluster connect to its own listener, for ever.
        Ok(original) if original == info.direct_local => {}
        Ok(original) => {
            info.local = original;
            info.local_restored = true;
        }
        // TPROXY changes no address: the socket's own is the original one.
        Err(_) if config.transparent => info.local_restored = true,
        Err(_) => {}
    }
}

/// The listener that serves the connection: with `use_original_dst`, the one of the restored address (exact IP and port,
/// else the wildcard IP with that port), else the one that accepted it. A connection is handed on once.
pub(crate) fn hand_off(
    core: &Core,
    accepted_by: &Rc<ListenerRuntime>,
    socket: &Socket,
    info: &mut ConnectionInfo,
) -> Rc<ListenerRuntime> {
    if accepted_by.compiled.config.use_original_dst
        && info.local_restored
        && let Some(target) = core.snapshot.listener_table().find(info.local)
        && let Some(target) = core.listeners.get(target.id())
    {
        if !Rc::ptr_eq(target, accepted_by) {
            restore(&target.compiled.config, socket, info);
        }
        return Rc::clone(target);
    }
    Rc::clone(accepted_by)
}
