//! Pipes for splice(2): a few per thread, lent to a transfer and returned empty.

use std::os::fd::OwnedFd;

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
    lent: usize,
    limit: usize,
}

impl PipePool {
    /// `limit`: pipes that may exist at once. An unprivileged user may have 64 of 1 MiB
    /// (`/proc/sys/fs/pipe-user-pages-soft`).
    pub const fn new(limit: usize) -> Self {
        Self {
            free: Vec::new(),
            lent: 0,
            limit,
        }
    }

    /// An empty pipe, or none: the limit is reached or the system is out of them. The caller then copies.
    pub fn take(&mut self) -> Option<Pipe> {
        let pipe = match self.free.pop() {
            Some(pipe) => pipe,
            None if self.lent < self.limit => Pipe::new().ok()?,
            None => return None,
        };
        self.lent += 1;
        Some(pipe)
    }

    pub fn give(&mut self, pipe: Pipe) {
        self.lent = self.lent.saturating_sub(1);
        if pipe.held == 0 {
            self.free.push(pipe);
        }
    }

    pub const fn lent(&self) -> usize {
        self.lent
    }
}
