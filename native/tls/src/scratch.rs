//! What rustls's callbacks and the session that drives rustls tell each other, for its interfaces have no room for it.
//!
//! A handshake runs on one thread and calls back from inside; a session fills this before it lets rustls work and
//! empties it afterwards.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::TlsError;
use crate::identity::Identity;
use crate::info::PeerCertificate;

/// For the handshake that is running on this thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// In: names of which the peer's certificate must have one, in place of the configured matchers.
    pub(crate) san_override: Vec<Box<str>>,
    /// Out: why the peer's certificate was refused.
    pub(crate) failure: Option<TlsError>,
    /// Out: the certificate that was refused.
    pub(crate) refused: Option<Rc<PeerCertificate>>,
    /// Out: the peer's certificate was looked at; whether it satisfied what was demanded.
    pub(crate) validated: Option<bool>,
    /// Out: the certificate that was chosen to be shown.
    pub(crate) local: Option<Arc<Identity>>,
    /// Out: the server name that the client asked for.
    pub(crate) server_name: Option<Box<str>>,
    /// Out: how the peer signed.
    pub(crate) signature: Option<rustls::SignatureScheme>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

pub(crate) fn with<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(work)
}

pub(crate) fn take() -> Scratch {
    SCRATCH.take()
}

pub(crate) fn put(scratch: Scratch) {
    SCRATCH.set(scratch);
}
