//! Access-log lines on their way off the hot path: collected per file, handed over in large pieces.
//!
//! A line is never lost to load: a full buffer is handed to the sink, which queues it; a quiet worker hands over what it
//! has when the flush interval ends.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
pub use tidegate_lua::Level as ScriptLevel;
use tidegate_model::Name;
use tidegate_rt::{Moment, TimerWheel};

use super::own_timer;
use crate::conn::{Key, TimerKey};

/// Takes finished lines off a worker. The engine implements it with a queue to its aux thread; it must not block.
pub trait LogSink: Send + Sync {
    /// `lines`: whole lines for the file at `path` (`/dev/stdout` and `/dev/stderr` included).
    fn write(&self, path: &Name, lines: Vec<u8>);

    /// A line for the process's own log, of a script or about one.
    fn script_log(&self, _level: ScriptLevel, _text: &str) {}
}

/// Handed over at this size; Envoy's file flush threshold.
const FLUSH_AT: usize = 64 * 1024;

/// A worker's unfinished pieces, one per file.
pub struct LogBuffers {
    sink: Arc<dyn LogSink>,
    interval: Duration,
    files: FxHashMap<Name, Vec<u8>>,
    timer_armed: bool,
}

impl LogBuffers {
    pub(crate) fn new(sink: Arc<dyn LogSink>, interval: Duration) -> Self {
        Self {
            sink,
            interval,
            files: FxHashMap::default(),
            timer_armed: false,
        }
    }

    /// Appends one line (or several) for a file: `write` gets the file's buffer.
    pub fn append(
        &mut self,
        timers: &mut TimerWheel<TimerKey>,
        now: Moment,
        path: &Name,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let buffer = if let Some(buffer) = self.files.get_mut(path) {
            buffer
        } else {
            self.files.entry(Name::clone(path)).or_default()
        };
        write(buffer);
        if buffer.len() >= FLUSH_AT {
            let lines = std::mem::replace(buffer, Vec::with_capacity(FLUSH_AT + FLUSH_AT / 4));
            self.sink.write(path, lines);
        } else if !self.timer_armed {
            self.timer_armed = true;
            timers.arm(
                now + self.interval,
                TimerKey {
                    key: Key::NONE,
                    kind: own_timer::FLUSH_LOGS,
                },
            );
        }
    }

    pub(crate) fn on_timer(&mut self) {
        self.timer_armed = false;
        self.flush_all();
    }

    pub(crate) fn flush_all(&mut self) {
        for (path, buffer) in &mut self.files {
            if !buffer.is_empty() {
                self.sink.write(path, std::mem::take(buffer));
            }
        }
    }
}
