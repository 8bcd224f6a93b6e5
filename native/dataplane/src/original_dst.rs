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

/// Makes the original destination the local address, where the kernel knows one.
pub(crate) fn restore(config: &Listener, socket: &Socket, info: &mut ConnectionInfo) {
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

/// With `use_original_dst`, the other listener that serves the connection: the one of the restored address (exact IP and
/// port, else the wildcard IP with that port). `None`: the one that accepted it.
pub(crate) fn target(
    core: &Core,
    accepted_by: &Rc<ListenerRuntime>,
    info: &ConnectionInfo,
) -> Option<Rc<ListenerRuntime>> {
    if !info.local_restored {
        return None;
    }
    let target = core.snapshot.listener_table().find(info.local)?;
    let target = core.listeners.get(target.id())?;
    (!Rc::ptr_eq(target, accepted_by)).then(|| Rc::clone(target))
}
