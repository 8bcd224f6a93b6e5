//! The way to and from a peer: a socket as it is, or TLS over one.
//!
//! Drivers read and write plaintext through a [`Transport`] and need not know which it is. What they must know: a read may
//! come to nothing although the socket had bytes (a record that is not all there, a handshake), TLS takes what it is given
//! to send as a whole and keeps what the socket would not take ([`Transport::backlog`]), and it reads into no less than
//! [`Transport::room`]. A plain transport costs one test of a null pointer.
//!
//! This module must not know HTTP, clusters or listeners.

mod stats;
mod tls;

use std::io::IoSlice;
use std::rc::Rc;

use tidegate_buf::OutBuf;
use tidegate_rt::{Errno, Received, Sent, ShutdownSide, Socket};
use tidegate_tls::{Session, TlsInfo};

pub(crate) use self::stats::{SslStats, TlsStats};
use self::tls::Tls;
use crate::worker::Core;

/// The most pieces that are sent at once.
const PIECES: usize = 64;

/// What a request wants of the TLS of its upstream connection; connections that differ in it are not shared.
#[derive(Debug, Default)]
pub(crate) struct TlsOptions {
    /// Takes the place of the configured `sni`.
    pub(crate) server_name: Option<Box<str>>,
    /// The name that the certificate must have, in place of the configured matchers.
    pub(crate) subject_alt_name: Option<Box<str>>,
    /// Takes the place of the configured `alpn_protocols`, where it is not empty.
    pub(crate) alpn: Vec<Box<[u8]>>,
}

/// The outcome of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// Bytes at the front of the buffer, possibly none. `more`: the socket may have more to read.
    Data {
        count: usize,
        more: bool,
    },
    /// The peer sends no more.
    Eof,
    WouldBlock,
    /// The socket has failed, or what came over it was wrong ([`Transport::failure`]).
    Error(Errno),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: Socket,
    tls: Option<Box<Tls>>,
}

impl Transport {
    #[inline]
    pub(crate) const fn plain(socket: Socket) -> Self {
        Self { socket, tls: None }
    }

    /// TLS over a socket that is, or will be, connected. A client's handshake begins with [`Transport::start`].
    pub(crate) fn tls(socket: Socket, session: Session, stats: Rc<TlsStats>) -> Self {
        let tls = Some(Box::new(Tls::new(session, stats)));
        Self { socket, tls }
    }

    /// The socket, for all that is not reading and writing.
    #[inline]
    pub(crate) const fn socket(&self) -> &Socket {
        &self.socket
    }

    #[inline]
    pub(crate) const fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    /// The peers have not agreed on keys yet. Nothing can be sent meanwhile.
    #[inline]
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// What the handshake has told, when it is done.
    #[inline]
    pub(crate) fn info(&self) -> Option<&Rc<TlsInfo>> {
        self.tls.as_ref()?.info()
    }

    /// What is known of a handshake that is over without having been done.
    pub(crate) fn failed_info(&mut self) -> Option<Rc<TlsInfo>> {
        self.tls.as_mut()?.failed_info()
    }

    /// Why TLS has failed, in the words of the access log.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.tls.as_ref()?.failure()
    }

    /// How much of a buffer a driver that wants to read `wanted` bytes must lend.
    #[inline]
    pub(crate) fn room(&self, wanted: usize) -> usize {
        match self.tls {
            None => wanted,
            Some(_) => wanted.max(tls::LEAST_ROOM),
        }
    }

    /// Reads once into `buf`, decrypting in place.
    #[inline]
    pub(crate) fn recv(&mut self, core: &mut Core, buf: &mut [u8]) -> Input {
        match &mut self.tls {
            None => match self.socket.recv(buf) {
                Received::Data(count) => Input::Data {
                    count,
                    more: count == buf.len(),
                },
                Received::Eof => Input::Eof,
                Received::WouldBlock => Input::WouldBlock,
                Received::Error(error) => Input::Error(error),
            },
            Some(tls) => tls.recv(&self.socket, core, buf),
        }
    }

    /// Sends pieces with one system call. TLS takes all or nothing.
    #[inline]
    pub(crate) fn send(&mut self, core: &mut Core, pieces: &[&[u8]]) -> Sent {
        if let Some(tls) = &mut self.tls {
            return tls.send(&self.socket, core, pieces);
        }
        let mut slices = [IoSlice::new(&[]); 4];
        let mut used = 0;
        for (slice, piece) in slices
            .iter_mut()
            .zip(pieces.iter().filter(|piece| !piece.is_empty()))
        {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        match slices.get(..used) {
            Some([only]) => self.socket.send(only),
            Some(several) => self.socket.send_vectored(several),
            None => Sent::WouldBlock,
        }
    }

    /// Sends from the front of what is queued, which the caller then takes out.
    #[inline]
    pub(crate) fn send_queued(&mut self, core: &mut Core, queued: &OutBuf) -> Sent {
        let mut slices = [IoSlice::new(&[]); PIECES];
        let used = queued.slices(&mut slices);
        let slices = slices.get(..used).unwrap_or_default();
        match &mut self.tls {
            None => self.socket.send_vectored(slices),
            Some(tls) => {
                let mut pieces = [&[][..]; PIECES];
                for (piece, slice) in pieces.iter_mut().zip(slices) {
                    *piece = slice;
                }
                tls.send(&self.socket, core, pieces.get(..used).unwrap_or_default())
            }
        }
    }

    /// Ciphertext that waits for the socket.
    #[inline]
    pub(crate) fn backlog(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.backlog())
    }

    /// Writes what waits for the socket.
    #[inline]
    pub(crate) fn flush(&mut self, core: &mut Core) -> Result<(), Errno> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => tls.flush(&self.socket, core),
        }
    }

    /// Begins a client's handshake.
    pub(crate) fn start(&mut self, core: &mut Core) -> Result<(), Errno> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => tls.start(&self.socket, core),
        }
    }

    /// Tells the peer that nothing more will be sent. Over TLS the socket stays open both ways, as in Envoy.
    pub(crate) fn shutdown_write(&mut self, core: &mut Core) {
        match &mut self.tls {
            // The peer may be gone already, which its own events will tell.
            None => {
                let _gone = self.socket.shutdown(ShutdownSide::Write);
            }
            Some(tls) => tls.close_notify(&self.socket, core),
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.say_goodbye(&self.socket);
        }
    }
}
