//! The L4 data plane on real sockets: proxying, half-closes, resets, back-pressure, splice, limits, drains, reloads.

mod balancing;
mod lifecycle;
mod proxying;
mod support;
