//! Access-log files: lines from the workers onto the disk, by a thread of their own.
//!
//! A disk may block for seconds, which must stop neither traffic nor the admin page: workers put whole buffers into a queue
//! and go on. What the disk refuses is counted (`filesystem.write_failed`) and lost, as in Envoy.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tidegate_dataplane::{LogSink, ScriptLevel};
use tidegate_model::Name;
use tidegate_stats::defs::filesystem::{self, Filesystem};
use tidegate_stats::{Registry, Shared};

use crate::server_log::{Level, ServerLog};

/// Lines that wait for a disk that does not take them; beyond it, lines are dropped and counted.
const MOST_QUEUED: usize = 256 << 20;

enum Order {
    Write(Name, Vec<u8>),
    Reopen,
    Stop,
}

/// The writing end; cheap to clone.
#[derive(Clone)]
pub(crate) struct LogFiles {
    orders: Sender<Order>,
    queued: Arc<AtomicUsize>,
    stats: Shared<Filesystem>,
}

impl LogFiles {
    /// Starts the thread.
    pub(crate) fn start(registry: &Registry) -> io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = unbounded();
        let stats = registry.group::<Filesystem>("filesystem.").shared();
        let files = Self {
            orders: sender,
            queued: Arc::default(),
            stats: stats.clone(),
        };
        let mut writer = Writer {
            files: HashMap::new(),
            queued: Arc::clone(&files.queued),
            stats,
        };
        let thread = std::thread::Builder::new()
            .name("log_flush".to_owned())
            .spawn(move || writer.run(&receiver))?;
        Ok((files, thread))
    }

    pub(crate) fn reopen(&self) {
        self.send(Order::Reopen);
    }

    /// Ends the thread, after everything handed over so far.
    pub(crate) fn stop(&self) {
        self.send(Order::Stop);
    }

    fn send(&self, order: Order) {
        // Nobody reads after the end.
        let _ended = self.orders.send(order);
    }
}

/// What workers write to: the access logs, and for scripts the process's own.
pub(crate) struct Logs {
    pub(crate) files: LogFiles,
    pub(crate) server: Arc<ServerLog>,
}

impl LogSink for Logs {
    fn write(&self, path: &Name, lines: Vec<u8>) {
        self.files.write(path, lines);
    }

    fn script_log(&self, level: ScriptLevel, text: &str) {
        let level = match level {
            ScriptLevel::Trace => Level::Trace,
            ScriptLevel::Debug => Level::Debug,
            ScriptLevel::Info => Level::Info,
            ScriptLevel::Warning => Level::Warning,
            ScriptLevel::Error => Level::Error,
            ScriptLevel::Critical => Level::Critical,
        };
        self.server.write(level, "lua", ("", 0), text);
    }
}

impl LogSink for LogFiles {
    fn write(&self, path: &Name, lines: Vec<u8>) {
        let size = lines.len();
        if self.queued.load(Ordering::Relaxed) + size > MOST_QUEUED {
            self.stats.inc(filesystem::WRITE_FAILED);
            return;
        }
        self.queued.fetch_add(size, Ordering::Relaxed);
        self.stats.inc(filesystem::WRITE_BUFFERED);
        self.stats
            .gauge_add(filesystem::WRITE_TOTAL_BUFFERED, size as i64);
        self.send(Order::Write(Name::clone(path), lines));
    }
}

struct Writer {
    files: HashMap<Name, Target>,
    queued: Arc<AtomicUsize>,
    stats: Shared<Filesystem>,
}

enum Target {
    Stdout,
    Stderr,
    File(File),
}

impl Target {
    fn open(path: &str) -> io::Result<Self> {
        Ok(match path {
            // Opened by name they could not be written when they are sockets or belong to another user.
            "/dev/stdout" => Self::Stdout,
            "/dev/stderr" => Self::Stderr,
            _ => Self::File(OpenOptions::new().create(true).append(true).open(path)?),
        })
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(lines),
            Self::File(file) => file.write_all(lines),
        }
    }
}

impl Writer {
    fn run(&mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Write(path, lines) => self.write(path, &lines),
                Order::Reopen => self.reopen(),
                Order::Stop => return,
            }
        }
    }

    fn write(&mut self, path: Name, lines: &[u8]) {
        let outcome = match self.files.entry(path) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut().write(lines),
            std::collections::hash_map::Entry::Vacant(entry) => {
                Target::open(entry.key()).and_then(|target| entry.insert(target).write(lines))
            }
        };
        self.stats.inc(if outcome.is_ok() {
            filesystem::WRITE_COMPLETED
        } else {
            filesystem::WRITE_FAILED
        });
        self.queued.fetch_sub(lines.len(), Ordering::Relaxed);
        self.stats
            .gauge_add(filesystem::WRITE_TOTAL_BUFFERED, -(lines.len() as i64));
    }

    /// A file that cannot be opened anew is kept as it is.
    fn reopen(&mut self) {
        for (path, target) in &mut self.files {
            match Target::open(path) {
                Ok(new) => *target = new,
                Err(_) => self.stats.inc(filesystem::REOPEN_FAILED),
            }
        }
    }
}

/// Opens every file once, so that a path that cannot be written is an error of the configuration.
pub(crate) fn check_writable(path: &str) -> io::Result<()> {
    Target::open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> std::path::PathBuf {
        let directory =
            std::env::temp_dir().join(format!("tidegate-log-files-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory.join(name)
    }

    #[test]
    fn lines_arrive_in_order_and_a_moved_file_is_opened_anew() {
        let registry = Registry::new(1);
        let (files, thread) = LogFiles::start(&registry).unwrap();
        let (path, moved) = (scratch("access.log"), scratch("access.log.1"));
        let name = Name::from(path.to_str().unwrap());
        files.write(&name, b"one\n".to_vec());
        files.write(&name, b"two\n".to_vec());
        while std::fs::read_to_string(&path).unwrap_or_default() != "one\ntwo\n" {
            std::thread::yield_now();
        }
        std::fs::rename(&path, &moved).unwrap();
        files.reopen();
        files.write(&name, b"three\n".to_vec());
        files.stop();
        thread.join().unwrap();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(registry.value("filesystem.write_completed"), Some(3));
    }

    #[test]
    fn a_full_disk_is_counted_and_blocks_nobody() {
        let registry = Registry::new(1);
        let group = registry.group::<Filesystem>("filesystem.");
        let (files, thread) = LogFiles::start(&registry).unwrap();
        files.write(&Name::from("/dev/full"), b"lost\n".to_vec());
        files.write(&Name::from("/nonexistent/x"), b"lost\n".to_vec());
        files.stop();
        thread.join().unwrap();
        assert_eq!(group.shared().counter(filesystem::WRITE_FAILED), 2);
        assert_eq!(group.shared().gauge(filesystem::WRITE_TOTAL_BUFFERED), 0);
    }
}
