//! TLS over a socket: a sans-IO session, the ciphertext that waits, and what is counted.

use std::rc::Rc;

use tidegate_buf::OutBuf;
use tidegate_rt::{Errno, Received, Sent, Socket};
use tidegate_tls::{Session, TlsError, TlsInfo};

use super::{Input, PIECES, TlsStats};
use crate::worker::Core;

/// A read buffer must have room for a record that came in part before and the rest of it.
pub(super) const LEAST_ROOM: usize = 64 * 1024;

/// A call at the end of a connection may say this much for the kernel to take it.
const GOODBYE: usize = 64;

pub(super) struct Tls {
    session: Session,
    stats: Rc<TlsStats>,
    /// Ciphertext that the socket would not take.
    backlog: OutBuf,
    /// The handshake is done, and counted.
    established: bool,
    /// The peer has said that it sends no more.
    ended: bool,
    /// We have.
    closed: bool,
    failure: Option<Box<str>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("established", &self.established)
            .finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) const fn new(session: Session, stats: Rc<TlsStats>) -> Self {
        Self {
            session,
            stats,
            backlog: OutBuf::new(),
            established: false,
            ended: false,
            closed: false,
            failure: None,
        }
    }

    pub(super) const fn is_handshaking(&self) -> bool {
        !self.established
    }

    pub(super) fn info(&self) -> Option<&Rc<TlsInfo>> {
        self.session.info()
    }

    pub(super) fn failed_info(&mut self) -> Option<Rc<TlsInfo>> {
        self.session.failed_info()
    }

    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    pub(super) const fn backlog(&self) -> usize {
        self.backlog.len()
    }

    pub(super) fn recv(&mut self, socket: &Socket, core: &mut Core, buf: &mut [u8]) -> Input {
        if self.ended {
            return Input::Eof;
        }
        if self.failure.is_some() {
            return Input::Error(Errno::PROTO);
        }
        // Behind what is left of the last read, which goes to the front if there is more of it.
        let held = self.session.held();
        let room = buf.get_mut(held..).unwrap_or_default();
        let wanted = room.len();
        let count = match socket.recv(room) {
            Received::Data(count) => count,
            Received::Eof => {
                // Without `close_notify`, which Envoy takes for an end as well.
                self.ended = true;
                return Input::Eof;
            }
            Received::WouldBlock => return Input::WouldBlock,
            Received::Error(error) => return Input::Error(error),
        };
        self.session.restore(buf);
        let mut out = std::mem::take(&mut core.tls_out);
        out.clear();
        let received = self.session.receive(buf, held + count, &mut out);
        let written = self.write(socket, core, &out);
        core.tls_out = out;
        match received {
            Ok(received) => {
                if !self.established && !self.session.is_handshaking() {
                    self.established = true;
                    if let Some(info) = self.session.info() {
                        self.stats.established(info);
                    }
                }
                self.ended = received.closed;
                if let Err(error) = written
                    && received.plaintext == 0
                {
                    return Input::Error(error);
                }
                Input::Data {
                    count: received.plaintext,
                    more: self.ended || count == wanted,
                }
            }
            Err(error) => {
                self.fail(&error);
                Input::Error(Errno::PROTO)
            }
        }
    }

    fn fail(&mut self, error: &TlsError) {
        self.stats.failed(error);
        self.failure = Some(error.reason.as_str().into());
    }

    pub(super) fn send(&mut self, socket: &Socket, core: &mut Core, pieces: &[&[u8]]) -> Sent {
        if !self.established {
            return Sent::WouldBlock;
        }
        if self.closed {
            return Sent::Error(Errno::PIPE);
        }
        if let Err(error) = self.flush(socket, core) {
            return Sent::Error(error);
        }
        if !self.backlog.is_empty() {
            return Sent::WouldBlock;
        }
        let mut out = std::mem::take(&mut core.tls_out);
        out.clear();
        let sealed = self.session.send(pieces, &mut out);
        let written = self.write(socket, core, &out);
        core.tls_out = out;
        if let Err(error) = sealed {
            self.fail(&error);
            return Sent::Error(Errno::PROTO);
        }
        match written {
            Ok(()) => Sent::Bytes(pieces.iter().map(|piece| piece.len()).sum()),
            Err(error) => Sent::Error(error),
        }
    }

    pub(super) fn start(&mut self, socket: &Socket, core: &mut Core) -> Result<(), Errno> {
        let mut out = std::mem::take(&mut core.tls_out);
        out.clear();
        let started = self.session.start(&mut out);
        let written = self.write(socket, core, &out);
        core.tls_out = out;
        if let Err(error) = started {
            self.fail(&error);
            return Err(Errno::PROTO);
        }
        written
    }

    /// Ciphertext on its way, behind what waits already.
    fn write(&mut self, socket: &Socket, core: &mut Core, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        let sent = if self.backlog.is_empty() {
            match socket.send(bytes) {
                Sent::Bytes(count) => count,
                Sent::WouldBlock => 0,
                Sent::Error(error) => return Err(error),
            }
        } else {
            0
        };
        let rest = bytes.get(sent..).unwrap_or_default();
        self.backlog.push(&mut core.segments, rest);
        Ok(())
    }

    pub(super) fn flush(&mut self, socket: &Socket, core: &mut Core) -> Result<(), Errno> {
        while !self.backlog.is_empty() {
            let mut slices = [std::io::IoSlice::new(&[]); PIECES];
            let used = self.backlog.slices(&mut slices);
            match socket.send_vectored(slices.get(..used).unwrap_or_default()) {
                Sent::Bytes(count) => self.backlog.consume(&mut core.segments, count),
                Sent::WouldBlock => break,
                Sent::Error(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn close_notify(&mut self, socket: &Socket, core: &mut Core) {
        if std::mem::replace(&mut self.closed, true) || self.failure.is_some() {
            return;
        }
        let mut out = std::mem::take(&mut core.tls_out);
        out.clear();
        self.session.close_notify(&mut out);
        let _gone = self.write(socket, core, &out);
        core.tls_out = out;
    }

    /// The connection is being dropped: `close_notify`, if there is room for it.
    pub(super) fn say_goodbye(&mut self, socket: &Socket) {
        if self.closed || self.failure.is_some() || !self.backlog.is_empty() {
            return;
        }
        let mut out = Vec::with_capacity(GOODBYE);
        self.session.close_notify(&mut out);
        if !out.is_empty() {
            let _gone = socket.send(&out);
        }
    }
}
