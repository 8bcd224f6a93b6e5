//! Moving bytes one way between two sockets: read and write for messages, splice(2) for bulk.
//!
//! A [`Flow`] is one direction of a TCP proxy connection. Small messages cost one receive and one send through the
//! worker's read buffer and leave nothing behind. After [`BULK_READS`] full reads in a row the flow borrows a pipe and lets the
//! kernel move pages; it gives the pipe back as soon as the transfer pauses, for pipes are few. What a full socket does not
//! take waits here, and nothing more is read until it is gone: the buffer limit bounds it, and TCP tells the sender.
//!
//! This module must not know clusters, listeners or logs.

use tidegate_buf::OutBuf;
use tidegate_rt::{Errno, Pipe, PipeRead, PipeWrite, Sent};

use crate::transport::{Input, Transport};
use crate::worker::Core;

/// A read of this size is part of a bulk transfer.
const BULK_READ: usize = 64 * 1024;
/// So many in a row and the flow splices.
const BULK_READS: u8 = 2;
/// So many spliced moves in a row below a read buffer's worth, and the flow reads and writes again.
const SMALL_MOVES: u8 = 4;
const SMALL_MOVE: usize = 16 * 1024;
/// Moves per event; then others get their turn.
const MOVES_PER_EVENT: usize = 32;

/// A socket with what the poller last said about it. Edge-triggered: "ready" holds until the kernel says otherwise.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) transport: Transport,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer's end, or an error, is queued behind what is still to be read: read until it shows.
    pub(crate) closing: bool,
    /// The TLS handshake has ended, and nobody has taken notice yet.
    pub(crate) established: bool,
}

impl End {
    pub(crate) const fn new(transport: Transport) -> Self {
        Self {
            transport,
            readable: false,
            writable: true,
            closing: false,
            established: false,
        }
    }

    pub(crate) const fn ready(&mut self, ready: tidegate_rt::Readiness) {
        if ready.readable() {
            self.readable = true;
        }
        if ready.writable() {
            self.writable = true;
        }
        if ready.read_closed() || ready.hung_up() {
            self.closing = true;
        }
    }
}

/// Why a flow stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// It waits for one of its sockets.
    Waiting,
    /// It could go on, but others shall have their turn: nudge it.
    Yielded,
    /// Reading failed: the source was reset.
    SourceError(Errno),
    /// Writing failed: the destination was reset or has gone.
    SinkError(Errno),
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pending: OutBuf,
    pipe: Option<Pipe>,
    /// Bytes read and written so far.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// The source has ended.
    pub(crate) eof: bool,
    /// The end was passed on to the destination.
    pub(crate) shut: bool,
    bulk_reads: u8,
    small_moves: u8,
    /// Times that reading stopped because the destination was full, and went on.
    pub(crate) paused: u64,
    is_paused: bool,
}

impl Flow {
    /// All bytes and the end have been passed on.
    pub(crate) const fn is_done(&self) -> bool {
        self.shut
    }

    /// Bytes that wait for the destination.
    pub(crate) fn buffered(&self) -> usize {
        self.pending.len() + self.pipe.as_ref().map_or(0, Pipe::held)
    }

    /// Holds one of the worker's pipes, with bytes in it.
    pub(crate) const fn holds_pipe(&self) -> bool {
        self.pipe.is_some()
    }

    /// Moves bytes until a socket would block. `limit`: the destination's buffer limit. `last`: the other direction is done,
    /// so the connection will be closed after this one's end, which says as much as a shutdown.
    #[inline]
    pub(crate) fn pump(
        &mut self,
        core: &mut Core,
        source: &mut End,
        sink: &mut End,
        limit: u32,
        last: bool,
    ) -> Pumped {
        for _ in 0..MOVES_PER_EVENT {
            if self.buffered() > 0 || sink.transport.backlog() > 0 {
                if let Some(stop) = self.flush(core, sink) {
                    return stop;
                }
                self.is_paused = false;
            }
            if self.eof {
                if !self.shut {
                    self.shut = true;
                    self.release_pipe(core);
                    if !last {
                        sink.transport.shutdown_write(core);
                    }
                }
                return Pumped::Waiting;
            }
            if !source.readable {
                self.release_pipe(core);
                return Pumped::Waiting;
            }
            let stop = if self.bulk_reads >= BULK_READS
                && source.transport.is_plain()
                && sink.transport.is_plain()
            {
                self.splice(core, source, sink, limit)
            } else {
                self.copy(core, source, sink, limit)
            };
            if let Some(stop) = stop {
                return stop;
            }
        }
        Pumped::Yielded
    }

    /// Writes what is queued and reads nothing.
    pub(crate) fn pump_out(&mut self, core: &mut Core, sink: &mut End) -> Pumped {
        self.flush(core, sink).unwrap_or(Pumped::Waiting)
    }

    /// Reads once and writes through.
    #[inline]
    fn copy(
        &mut self,
        core: &mut Core,
        source: &mut End,
        sink: &mut End,
        limit: u32,
    ) -> Option<Pumped> {
        let mut buf = core.lend_read_buf();
        let size = if limit == 0 {
            buf.len()
        } else {
            buf.len().min(source.transport.room(limit as usize))
        };
        let stop = self.copy_through(core, source, sink, buf.get_mut(..size).unwrap_or_default());
        core.return_read_buf(buf);
        stop
    }

    #[inline]
    fn copy_through(
        &mut self,
        core: &mut Core,
        source: &mut End,
        sink: &mut End,
        buf: &mut [u8],
    ) -> Option<Pumped> {
        let count = match self.receive(core, source, buf) {
            Ok(0) => return None,
            Ok(count) => count,
            Err(error) => return Some(Pumped::SourceError(error)),
        };
        if count >= BULK_READ {
            self.bulk_reads = self.bulk_reads.saturating_add(1);
        } else {
            self.bulk_reads = 0;
        }
        let read = buf.get(..count).unwrap_or_default();
        let mut written = 0;
        if sink.writable {
            match sink.transport.send(core, &[read]) {
                Sent::Bytes(sent) => {
                    written = sent;
                    self.bytes_out += sent as u64;
                    if sink.transport.backlog() > 0 {
                        sink.writable = false;
                        self.pause();
                    }
                }
                Sent::WouldBlock => sink.writable = false,
                Sent::Error(error) => return Some(Pumped::SinkError(error)),
            }
        }
        if written < count {
            self.pending
                .push(&mut core.segments, read.get(written..).unwrap_or_default());
            self.pause();
        }
        None
    }

    /// Reads once. 0: there is nothing (now, or with `eof` ever).
    #[inline]
    pub(crate) fn receive(
        &mut self,
        core: &mut Core,
        source: &mut End,
        buf: &mut [u8],
    ) -> Result<usize, Errno> {
        let was_handshaking = source.transport.is_handshaking();
        let received = source.transport.recv(core, buf);
        if was_handshaking && !source.transport.is_handshaking() {
            // Nothing could be sent before.
            source.writable = true;
            source.established = true;
        }
        match received {
            Input::Data { count, more } => {
                self.bytes_in += count as u64;
                if !more && !source.closing {
                    // A short read has emptied the socket; more will be a new event.
                    source.readable = false;
                }
                return Ok(count);
            }
            Input::Eof => self.eof = true,
            Input::WouldBlock => self.bulk_reads = 0,
            Input::Error(error) => return Err(error),
        }
        source.readable = false;
        Ok(0)
    }

    /// Queues bytes that did not come from the source as they are: what network filters have let through or say themselves.
    pub(crate) fn queue(&mut self, core: &mut Core, bytes: &[u8]) {
        self.pending.push(&mut core.segments, bytes);
    }

    /// Queues bytes ahead of those that are queued already.
    pub(crate) fn queue_ahead(&mut self, core: &mut Core, bytes: &[u8]) {
        let behind = self.take_behind(core, 0);
        self.pending.push(&mut core.segments, bytes);
        self.pending.push(&mut core.segments, &behind);
    }

    /// Takes what is queued behind the first `keep` bytes.
    pub(crate) fn take_behind(&mut self, core: &mut Core, keep: usize) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.pending.len());
        while !self.pending.is_empty() {
            let mut slices = [std::io::IoSlice::new(&[]); 1];
            self.pending.slices(&mut slices);
            let [first] = &slices;
            all.extend_from_slice(first);
            let count = first.len();
            self.pending.consume(&mut core.segments, count);
        }
        let behind = all.split_off(keep.min(all.len()));
        self.pending.push(&mut core.segments, &all);
        behind
    }

    /// Moves one pipeful.
    fn splice(
        &mut self,
        core: &mut Core,
        source: &mut End,
        sink: &mut End,
        limit: u32,
    ) -> Option<Pumped> {
        if self.pipe.is_none() {
            self.pipe = core.pipes.take();
        }
        let Some(pipe) = &mut self.pipe else {
            // No pipe to be had: copy, and ask again after as many full reads.
            self.bulk_reads = 0;
            return self.copy(core, source, sink, limit);
        };
        let capacity = pipe.capacity();
        let size = if limit == 0 {
            capacity
        } else {
            capacity.min(limit as usize)
        };
        let moved = match pipe.fill_from(source.transport.socket(), size) {
            PipeRead::Moved(count) => count,
            PipeRead::Eof => {
                source.readable = false;
                self.eof = true;
                return None;
            }
            PipeRead::WouldBlock => {
                source.readable = false;
                return None;
            }
            PipeRead::Error(error) => return Some(Pumped::SourceError(error)),
        };
        self.bytes_in += moved as u64;
        if moved < SMALL_MOVE {
            self.small_moves += 1;
            if self.small_moves >= SMALL_MOVES {
                self.small_moves = 0;
                self.bulk_reads = 0;
            }
        } else {
            self.small_moves = 0;
        }
        let stop = self.flush(core, sink);
        if stop.is_some() {
            self.pause();
        }
        if self.bulk_reads == 0 && self.buffered() == 0 {
            self.release_pipe(core);
        }
        stop
    }

    /// Writes what waits; `Some`: not all of it could be.
    fn flush(&mut self, core: &mut Core, sink: &mut End) -> Option<Pumped> {
        loop {
            if self.buffered() == 0 && sink.transport.backlog() == 0 {
                return None;
            }
            if !sink.writable {
                return Some(Pumped::Waiting);
            }
            if sink.transport.backlog() > 0 {
                if let Err(error) = sink.transport.flush(core) {
                    return Some(Pumped::SinkError(error));
                }
                sink.writable = sink.transport.backlog() == 0;
                continue;
            }
            if !self.pending.is_empty() {
                match sink.transport.send_queued(core, &self.pending) {
                    Sent::Bytes(sent) => {
                        self.bytes_out += sent as u64;
                        self.pending.consume(&mut core.segments, sent);
                    }
                    Sent::WouldBlock => sink.writable = false,
                    Sent::Error(error) => return Some(Pumped::SinkError(error)),
                }
            } else if let Some(pipe) = &mut self.pipe {
                match pipe.empty_into(sink.transport.socket(), false) {
                    PipeWrite::Moved(0) | PipeWrite::WouldBlock => sink.writable = false,
                    PipeWrite::Moved(sent) => self.bytes_out += sent as u64,
                    PipeWrite::Error(error) => return Some(Pumped::SinkError(error)),
                }
            }
        }
    }

    const fn pause(&mut self) {
        if !self.is_paused {
            self.is_paused = true;
            self.paused += 1;
        }
    }

    /// Gives an empty pipe back.
    fn release_pipe(&mut self, core: &mut Core) {
        if let Some(pipe) = self.pipe.take_if(|pipe| pipe.held() == 0) {
            core.pipes.give(pipe);
        }
    }

    /// The destination has been full for long: the pipe's bytes move to memory and the pipe goes back to the others.
    pub(crate) fn spill_pipe(&mut self, core: &mut Core) {
        let Some(mut pipe) = self.pipe.take() else {
            return;
        };
        let mut buf = core.lend_read_buf();
        // Bytes in the pipe are younger than bytes in memory: they were read after those had been written.
        while pipe.held() > 0 {
            match pipe.read_out(&mut buf) {
                Ok(0) | Err(_) => break,
                Ok(count) => self
                    .pending
                    .push(&mut core.segments, buf.get(..count).unwrap_or_default()),
            }
        }
        core.return_read_buf(buf);
        core.pipes.give(pipe);
        self.bulk_reads = 0;
    }

    /// Gives everything back at the end of the connection.
    pub(crate) fn close(&mut self, core: &mut Core) {
        self.pending.clear(&mut core.segments);
        if let Some(pipe) = self.pipe.take() {
            core.pipes.give(pipe);
        }
    }
}
