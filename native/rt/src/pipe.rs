//! Pipes for splice(2): a few per thread, lent to a transfer and returned empty.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

use crate::Socket;

/// Bytes a pipe shall hold; the kernel refuses it to an unprivileged user with many pipes, who then gets the default.
const WANTED_CAPACITY: usize = 1 << 20;

/// A pipe with what it holds.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
    held: usize,
    lease: Option<Lease>,
}

/// A lent pipe's entry in its pool's count; it ends with the pipe, whichever way that goes.
#[derive(Debug)]
struct Lease(Rc<Cell<usize>>);

impl Lease {
    fn new(lent: &Rc<Cell<usize>>) -> Self {
        lent.set(lent.get() + 1);
        Self(Rc::clone(lent))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// The outcome of moving bytes from a socket into a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeRead {
    Moved(usize),
    /// The peer has closed its sending side.
    Eof,
    WouldBlock,
    Error(Errno),
}

/// The outcome of moving bytes from a pipe into a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeWrite {
    Moved(usize),
    WouldBlock,
    Error(Errno),
}

impl Pipe {
    fn new() -> Result<Self, Errno> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let capacity = match fcntl_setpipe_size(&write, WANTED_CAPACITY) {
            Ok(capacity) => capacity,
            Err(_) => fcntl_getpipe_size(&write)?,
        };
        Ok(Self {
            read,
            write,
            capacity,
            held: 0,
            lease: None,
        })
    }

    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes in the pipe.
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Moves up to `limit` bytes from the socket into the pipe.
    pub fn fill_from(&mut self, socket: &Socket, limit: usize) -> PipeRead {
        loop {
            match splice(
                socket,
                None,
                &self.write,
                None,
                limit,
                SpliceFlags::MOVE | SpliceFlags::NONBLOCK,
            ) {
                Ok(0) => return PipeRead::Eof,
                Ok(moved) => {
                    self.held += moved;
                    return PipeRead::Moved(moved);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return PipeRead::WouldBlock,
                Err(error) => return PipeRead::Error(error),
            }
        }
    }

    /// Moves what the pipe holds into the socket. `more`: further bytes will follow at once.
    pub fn empty_into(&mut self, socket: &Socket, more: bool) -> PipeWrite {
        if self.held == 0 {
            return PipeWrite::Moved(0);
        }
        let mut flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        if more {
            flags |= SpliceFlags::MORE;
        }
        loop {
            match splice(&self.read, None, socket, None, self.held, flags) {
                Ok(moved) => {
                    self.held = self.held.saturating_sub(moved);
                    return PipeWrite::Moved(moved);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return PipeWrite::WouldBlock,
                Err(error) => return PipeWrite::Error(error),
            }
        }
    }

    /// Reads what the pipe holds into memory: the way back from splice to buffers. Returns the bytes read.
    pub fn read_out(&mut self, into: &mut [u8]) -> Result<usize, Errno> {
        if self.held == 0 {
            return Ok(0);
        }
        loop {
            match rustix::io::read(&self.read, &mut *into) {
                Ok(count) => {
                    self.held = self.held.saturating_sub(count);
                    return Ok(count);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A thread's pipes. A pipe is taken for a transfer and given back empty; one that still holds bytes is closed.
#[derive(Debug)]
pub struct PipePool {
    free: Vec<Pipe>,
    lent: Rc<Cell<usize>>,
    limit: usize,
}

impl PipePool {
    /// `limit`: pipes that may exist at once. An unprivileged user may have 64 of 1 MiB
    /// (`/proc/sys/fs/pipe-user-pages-soft`).
    pub fn new(limit: usize) -> Self {
        Self {
            free: Vec::new(),
            lent: Rc::default(),
            limit,
        }
    }

    /// An empty pipe, or none: the limit is reached or the system is out of them. The caller then copies.
    pub fn take(&mut self) -> Option<Pipe> {
        let mut pipe = match self.free.pop() {
            Some(pipe) => pipe,
            None if self.lent.get() < self.limit => Pipe::new().ok()?,
            None => return None,
        };
        pipe.lease = Some(Lease::new(&self.lent));
        Some(pipe)
    }

    pub fn give(&mut self, mut pipe: Pipe) {
        pipe.lease = None;
        if pipe.held == 0 {
            self.free.push(pipe);
        }
    }

    /// Pipes that are lent at present.
    pub fn lent(&self) -> usize {
        self.lent.get()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;
    use crate::{ListenOptions, Listening, Poller, Token};

    fn pair() -> (Socket, TcpStream) {
        let listening =
            Listening::bind("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
        let client = TcpStream::connect(listening.local_addr().unwrap()).unwrap();
        (listening.accept().unwrap().socket, client)
    }

    fn wait_readable(socket: &Socket) {
        let mut poller = Poller::new(1).unwrap();
        let token = Token {
            index: 0,
            generation: 0,
            side: 0,
        };
        poller.add_level(socket, token, false).unwrap();
        assert_eq!(poller.wait(Some(Duration::from_secs(5))).unwrap(), 1);
    }

    #[test]
    fn the_pool_counts_lent_pipes_and_lends_no_more_than_its_limit() {
        let mut pool = PipePool::new(2);
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        assert!(pool.take().is_none());
        drop(first);
        assert_eq!(pool.lent(), 1);
        pool.give(second);
        assert_eq!(pool.lent(), 0);
        assert!(pool.take().is_some());
    }

    #[test]
    fn bytes_move_through_and_can_be_read_out() {
        let mut pool = PipePool::new(1);
        let mut pipe = pool.take().unwrap();
        let (from, mut writer) = pair();
        let (to, mut reader) = pair();
        assert_eq!(pipe.fill_from(&from, 100), PipeRead::WouldBlock);
        writer.write_all(b"hello world").unwrap();
        wait_readable(&from);
        assert_eq!(pipe.fill_from(&from, 6), PipeRead::Moved(6));
        assert_eq!(pipe.held(), 6);
        assert_eq!(pipe.empty_into(&to, false), PipeWrite::Moved(6));
        let mut got = [0; 6];
        reader.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello ");
        assert_eq!(pipe.fill_from(&from, 100), PipeRead::Moved(5));
        let mut out = [0; 16];
        assert_eq!(pipe.read_out(&mut out), Ok(5));
        assert_eq!(&out[..5], b"world");
        assert_eq!(pipe.held(), 0);
        drop(writer);
        wait_readable(&from);
        assert_eq!(pipe.fill_from(&from, 100), PipeRead::Eof);
    }
}
