//! What happened, for the thread that drives the engine: a set of kinds and a descriptor that says it is not empty.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::sync::{Mutex, PoisonError};

use tidegate_rt::{Errno, Waker};

/// One kind of event; each is reported at most once until taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// `subscriptions()` may differ now.
    Subscriptions,
    /// Everything is warm and the workers accept.
    Initialized,
    /// The process was asked to exit.
    Shutdown,
    /// No downstream connection is left after a drain, or its time is over.
    Drained,
    /// A worker thread has died.
    Fatal,
}

impl Event {
    /// The word that Python sees.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subscriptions => "subscriptions",
            Self::Initialized => "initialized",
            Self::Shutdown => "shutdown",
            Self::Drained => "drained",
            Self::Fatal => "fatal",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Events {
    pending: Mutex<BTreeSet<Event>>,
    waker: Waker,
}

impl Events {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self {
            pending: Mutex::default(),
            waker: Waker::new()?,
        })
    }

    pub(crate) fn raise(&self, event: Event) {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(event);
        self.waker.wake();
    }

    pub(crate) fn take(&self) -> Vec<Event> {
        self.waker.drain();
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
            .into_iter()
            .collect()
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.waker.as_fd().as_raw_fd()
    }
}
