//! One connection: ciphertext in, plaintext out, and the other way. No sockets and no clock, and no buffer while idle.
//!
//! The handshake is rustls's, over its unbuffered interface; then rustls hands the keys over and the connection is an
//! [`Established`]. What has come of a record that is not whole is the only thing kept between two calls.

use std::rc::Rc;
use std::sync::Arc;

use crate::context::{ClientContext, ServerContext};
use crate::error::TlsError;
use crate::established::Established;
use crate::handshake::{Handshake, Progress};
use crate::info::TlsInfo;

/// A TLS connection, of either side.
pub struct Session {
    stage: Stage,
    /// Ciphertext of a record that is not whole yet.
    held: Vec<u8>,
    /// The peer has said that nothing more will come.
    closed: bool,
    closing: bool,
    info: Option<Rc<TlsInfo>>,
    failed: Option<Rc<TlsInfo>>,
}

enum Stage {
    Handshaking(Box<Handshake>),
    Established(Box<Established>),
    Failed(TlsError),
}

/// What [`Session::receive`] has made of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// So many bytes of plaintext stand at the front of the buffer.
    pub plaintext: usize,
    /// The peer has said that this is all (`close_notify`).
    pub closed: bool,
}

/// What a client's connection has of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientOptions<'a> {
    /// Takes the place of the configured `sni`.
    pub server_name: Option<&'a str>,
    /// The host's name, for `auto_host_sni`.
    pub hostname: &'a str,
    /// Takes the place of the configured `alpn_protocols`, where it is not empty.
    pub alpn: &'a [&'a [u8]],
    /// Used where neither the configuration nor `alpn` has any.
    pub alpn_fallback: &'a [&'a [u8]],
    /// Names of which the peer's certificate must have one, in place of the configured matchers.
    pub subject_alt_names: &'a [&'a str],
}

impl Session {
    /// The accepting side.
    pub fn server(context: &Arc<ServerContext>) -> Self {
        Self::of(Handshake::server(Arc::clone(context)))
    }

    /// The connecting side; [`Session::start`] makes it speak.
    ///
    /// # Errors
    /// None in practice: the context has been checked.
    pub fn client(
        context: &Arc<ClientContext>,
        options: &ClientOptions<'_>,
    ) -> Result<Self, TlsError> {
        Handshake::client(context, options).map(Self::of)
    }

    fn of(handshake: Handshake) -> Self {
        Self {
            stage: Stage::Handshaking(Box::new(handshake)),
            held: Vec::new(),
            closed: false,
            closing: false,
            info: None,
            failed: None,
        }
    }

    /// The first bytes that a client sends; a server has none.
    ///
    /// # Errors
    /// As [`Session::receive`].
    pub fn start(&mut self, out: &mut Vec<u8>) -> Result<(), TlsError> {
        match self.receive(&mut [], 0, out) {
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The bytes of a record that is not whole, which [`Session::restore`] puts back.
    #[inline]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Puts what was held at the front of the read buffer; the caller receives behind it. The buffer must have room
    /// for it.
    #[inline]
    pub fn restore(&mut self, buf: &mut [u8]) {
        if self.held.is_empty() {
            return;
        }
        if let Some(front) = buf.get_mut(..self.held.len()) {
            front.copy_from_slice(&self.held);
            self.held.clear();
        }
    }

    /// Decrypts `buf[..filled]` in place and moves the plaintext to the front. What is to be sent (handshake, alerts)
    /// is appended to `out`, also where this fails.
    ///
    /// # Errors
    /// The connection is over: it must be closed once `out` has been sent.
    pub fn receive(
        &mut self,
        buf: &mut [u8],
        filled: usize,
        out: &mut Vec<u8>,
    ) -> Result<Received, TlsError> {
        let bytes = buf.get_mut(..filled).unwrap_or_default();
        match self.advance(bytes, out) {
            Ok(plaintext) => {
                if self.held.is_empty() {
                    // Nothing is kept by a connection that is idle.
                    self.held = Vec::new();
                }
                Ok(Received {
                    plaintext,
                    closed: self.closed,
                })
            }
            Err(error) => {
                self.held = Vec::new();
                if let Stage::Handshaking(handshake) = &mut self.stage {
                    self.failed = Some(Rc::new(handshake.failed()));
                }
                self.stage = Stage::Failed(error.clone());
                Err(error)
            }
        }
    }

    fn advance(&mut self, mut bytes: &mut [u8], out: &mut Vec<u8>) -> Result<usize, TlsError> {
        let mut skipped = 0;
        if let Stage::Handshaking(handshake) = &mut self.stage {
            match handshake.receive(bytes, out)? {
                Progress::Blocked { consumed } => {
                    let kept = bytes.get(consumed..).unwrap_or_default();
                    self.held.extend_from_slice(kept);
                    return Ok(0);
                }
                Progress::Done {
                    consumed,
                    established,
                    info,
                } => {
                    self.stage = Stage::Established(established);
                    self.info = Some(info);
                    skipped = consumed;
                }
                Progress::Closed => {
                    self.closed = true;
                    return Ok(0);
                }
            }
        }
        let established = match &mut self.stage {
            Stage::Established(established) => established,
            Stage::Failed(error) => return Err(error.clone()),
            Stage::Handshaking(_) => return Ok(0),
        };
        if self.closed {
            // What follows a close_notify is ignored.
            return Ok(0);
        }
        let received = established.receive(bytes, skipped, out)?;
        bytes = bytes.get_mut(received.consumed..).unwrap_or_default();
        self.closed = received.closed;
        if !self.closed {
            self.held.extend_from_slice(bytes);
        }
        Ok(received.plaintext)
    }

    /// Appends `pieces` as records; the handshake must be done.
    ///
    /// # Errors
    /// The connection is over, or not open yet.
    pub fn send(&mut self, pieces: &[&[u8]], out: &mut Vec<u8>) -> Result<(), TlsError> {
        match &mut self.stage {
            Stage::Established(established) => established.send(pieces, out),
            Stage::Handshaking(_) => Err(TlsError::internal("handshake is not done")),
            Stage::Failed(error) => Err(error.clone()),
        }
    }

    /// Says that nothing more will be sent; once, and nothing during a handshake or after an error.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) {
        if let Stage::Established(established) = &mut self.stage
            && !self.closing
        {
            self.closing = true;
            // If the key is used up, there is nothing left to say.
            let _ = established.alert([1, 0], out);
        }
    }

    #[inline]
    pub fn is_handshaking(&self) -> bool {
        matches!(self.stage, Stage::Handshaking(_))
    }

    /// What was agreed on, once the handshake is done.
    #[inline]
    pub fn info(&self) -> Option<&Rc<TlsInfo>> {
        self.info.as_ref()
    }
}

impl Session {
    /// What is known of a connection that is over before its handshake was done, the certificate that was refused
    /// included; logs show it. `None`: the handshake was done.
    pub fn failed_info(&mut self) -> Option<Rc<TlsInfo>> {
        if let Stage::Handshaking(handshake) = &mut self.stage {
            self.failed = Some(Rc::new(handshake.failed()));
        }
        self.failed.clone()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("handshaking", &self.is_handshaking())
            .field("held", &self.held.len())
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}
