//! Waking a worker from another thread: an eventfd in its poller.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, read, write};

/// Wakes the loop that polls it. Clones wake the same loop.
#[derive(Debug, Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    pub fn new() -> Result<Self, Errno> {
        Ok(Self(Arc::new(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?)))
    }

    /// Makes the descriptor readable. A counter at its maximum is readable already, so failure is success.
    pub fn wake(&self) {
        let _full = write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Resets the descriptor; called by the loop that was woken.
    pub fn drain(&self) {
        let mut count = [0u8; 8];
        let _empty = read(&*self.0, &mut count);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
