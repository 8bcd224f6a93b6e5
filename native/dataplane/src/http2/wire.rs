//! The codec of one connection, on either side, and the way of its output: memory lent by the worker, one write at the end
//! of the pass. Must not know what the streams stand for.

use std::sync::Arc;

use tidegate_codec::h2::{Connection, Options, Role};
use tidegate_rt::{Errno, Sent};

use super::LazyStats;
use crate::conn::Key;
use crate::transport::Transport;
use crate::worker::Core;

/// See the module.
pub(crate) struct Wire {
    pub(crate) codec: Connection,
    /// The pass will end with a flush.
    flush_asked: bool,
    /// The socket would not take all of the output.
    blocked: bool,
    /// The output has memory of the worker's.
    lent: bool,
    /// Streams that count as active.
    streams: u32,
}

/// What a write came to.
pub(crate) struct Written {
    pub(crate) count: usize,
    pub(crate) error: Option<Errno>,
}

impl Wire {
    pub(crate) fn new(role: Role, options: &Arc<Options>) -> Self {
        Self {
            codec: Connection::new(role, Arc::clone(options)),
            flush_asked: false,
            blocked: false,
            lent: false,
            streams: 0,
        }
    }

    /// Sees to it that the output has memory.
    #[inline]
    pub(crate) fn lend_output(&mut self, core: &mut Core) {
        if !self.lent {
            self.lent = true;
            self.codec.lend_output(core.http.take_buffer());
        }
    }

    /// Takes the memory back when there is nothing to do.
    pub(crate) fn reclaim_output(&mut self, core: &mut Core) {
        if self.lent && self.codec.output().is_empty() && self.codec.active_streams() == 0 {
            self.lent = false;
            let memory = self.codec.reclaim_output();
            core.http.give_buffer(memory);
        }
    }

    /// The output leaves at the end of the pass.
    #[inline]
    pub(crate) fn flush_later(&mut self, core: &mut Core, key: Key) {
        if !self.flush_asked && !self.blocked {
            self.flush_asked = true;
            core.flush_later(key);
        }
    }

    /// Writes the output, as far as the socket takes it.
    pub(crate) fn write(&mut self, core: &mut Core, transport: &mut Transport) -> Written {
        self.flush_asked = false;
        self.blocked = false;
        let mut written = Written {
            count: 0,
            error: None,
        };
        while !self.codec.output().is_empty() {
            match transport.send(core, &[self.codec.output()]) {
                Sent::Bytes(count) => {
                    self.codec.written(count);
                    written.count += count;
                }
                Sent::WouldBlock => {
                    self.blocked = true;
                    break;
                }
                Sent::Error(error) => {
                    written.error = Some(error);
                    break;
                }
            }
        }
        written
    }

    /// Takes over what the codec has counted.
    #[inline]
    pub(crate) fn count(&mut self, stats: &LazyStats) {
        stats.count(&mut self.codec, &mut self.streams);
    }

    /// The connection is gone.
    pub(crate) fn forget(mut self, stats: &LazyStats) {
        self.count(stats);
        stats.forget(self.streams);
    }
}
