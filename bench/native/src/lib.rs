//! What the bench's backend, forwarder and load generator share: arguments, HTTP/1 framing cheap enough not to be the
//! limit, accepting, and the process's own CPU time. Knows nothing of the proxies between them.

pub mod arguments;
pub mod certificate;
pub mod h2;
pub mod http;
pub mod load;
pub mod server;

use std::time::Duration;

/// The CPU time of this process so far.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
