//! The process's own log: levels per component, Envoy's line format, to standard error or a file.
//!
//! Not the access log. Lines come from the engine's own threads and from Python, and of what concerns requests only those that
//! a Lua script writes.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::options::Options;
use crate::time::Utc;

/// Envoy's levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Critical,
    Off,
}

const LEVELS: [(Level, &str); 7] = [
    (Level::Trace, "trace"),
    (Level::Debug, "debug"),
    (Level::Info, "info"),
    (Level::Warning, "warning"),
    (Level::Error, "error"),
    (Level::Critical, "critical"),
    (Level::Off, "off"),
];

impl Level {
    pub fn parse(text: &str) -> Option<Self> {
        let text = if text == "warn" { "warning" } else { text };
        LEVELS
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(level, _)| *level)
    }

    pub fn name(self) -> &'static str {
        LEVELS
            .iter()
            .find(|(level, _)| *level == self)
            .map_or("off", |(_, name)| name)
    }

    fn from_u8(value: u8) -> Self {
        LEVELS
            .get(usize::from(value))
            .map_or(Self::Off, |(level, _)| *level)
    }
}

/// The loggers, by Envoy's names, as far as there is something of that name here.
pub(crate) const COMPONENTS: [&str; 27] = [
    "admin",
    "assert",
    "client",
    "config",
    "connection",
    "conn_handler",
    "dns",
    "envoy_bug",
    "file",
    "filter",
    "grpc",
    "hc",
    "health_checker",
    "http",
    "init",
    "io",
    "lua",
    "main",
    "matcher",
    "misc",
    "pool",
    "rds",
    "router",
    "runtime",
    "stats",
    "tracing",
    "upstream",
];

/// Envoy's default format.
pub(crate) const DEFAULT_FORMAT: &str = "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v";

/// The process's log.
pub(crate) struct ServerLog {
    format: String,
    escaped: bool,
    path: String,
    file: Mutex<Option<File>>,
    levels: [AtomicU8; COMPONENTS.len()],
}

impl ServerLog {
    /// Opens the log file, if there is one.
    pub(crate) fn new(options: &Options) -> io::Result<Self> {
        let default = Level::parse(&options.log_level).unwrap_or(Level::Info);
        let log = Self {
            format: if options.log_format.is_empty() {
                DEFAULT_FORMAT.to_owned()
            } else {
                options.log_format.clone()
            },
            escaped: options.log_format_escaped,
            path: options.log_path.clone(),
            file: Mutex::new(None),
            levels: [const { AtomicU8::new(0) }; COMPONENTS.len()],
        };
        log.set_all(default);
        for (component, level) in pairs(&options.component_log_level) {
            if let Some(level) = Level::parse(level) {
                // Envoy has components that are not here; a level for one of them says nothing.
                let _unknown = log.set(component, level);
            }
        }
        log.reopen()?;
        Ok(log)
    }

    pub(crate) fn reopen(&self) -> io::Result<()> {
        if self.path.is_empty() {
            return Ok(());
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    pub(crate) fn set_all(&self, level: Level) {
        for cell in &self.levels {
            cell.store(level as u8, Ordering::Relaxed);
        }
    }

    /// False when there is no such component.
    pub(crate) fn set(&self, component: &str, level: Level) -> bool {
        let Some(cell) = self.cell(component) else {
            return false;
        };
        cell.store(level as u8, Ordering::Relaxed);
        true
    }

    fn cell(&self, component: &str) -> Option<&AtomicU8> {
        let index = COMPONENTS.iter().position(|known| *known == component)?;
        self.levels.get(index)
    }

    /// Every component with its level.
    pub(crate) fn levels(&self) -> impl Iterator<Item = (&'static str, Level)> {
        COMPONENTS
            .iter()
            .zip(&self.levels)
            .map(|(name, cell)| (*name, Level::from_u8(cell.load(Ordering::Relaxed))))
    }

    pub(crate) fn enabled(&self, component: &str, level: Level) -> bool {
        let cell = self.cell(component).or_else(|| self.cell("misc"));
        cell.is_some_and(|cell| level as u8 >= cell.load(Ordering::Relaxed)) && level != Level::Off
    }

    /// One line. `source` is the file that it comes from, with its line number; both may be empty.
    pub(crate) fn write(&self, level: Level, component: &str, source: (&str, u32), message: &str) {
        if !self.enabled(component, level) {
            return;
        }
        let message = if self.escaped {
            message.escape_default().to_string()
        } else {
            message.to_owned()
        };
        let line = render(&self.format, level, component, source, &message);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // There is nowhere to report that the log cannot be written.
        let _lost = match file.as_mut() {
            Some(file) => file.write_all(line.as_bytes()),
            None => io::stderr().lock().write_all(line.as_bytes()),
        };
    }
}

/// `a:debug,b:info`.
pub(crate) fn pairs(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.split(',')
        .filter_map(|pair| pair.split_once(':'))
        .map(|(name, level)| (name.trim(), level.trim()))
}

/// spdlog's pattern, the flags that Envoy documents.
fn render(
    format: &str,
    level: Level,
    component: &str,
    (file, line): (&str, u32),
    message: &str,
) -> String {
    let now = SystemTime::now();
    let utc = Utc::of(now);
    let mut out = String::with_capacity(format.len() + message.len() + 48);
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let Some(flag) = characters.next() else {
            out.push('%');
            break;
        };
        // Writing to a string cannot fail.
        let _ = match flag {
            'v' | '_' => write!(out, "{message}"),
            'j' => write!(out, "{}", message.escape_default()),
            'Y' => write!(out, "{:04}", utc.year),
            'm' => write!(out, "{:02}", utc.month),
            'd' => write!(out, "{:02}", utc.day),
            'H' => write!(out, "{:02}", utc.hour),
            'M' => write!(out, "{:02}", utc.minute),
            'S' => write!(out, "{:02}", utc.second),
            'T' | 'X' => write!(out, "{:02}:{:02}:{:02}", utc.hour, utc.minute, utc.second),
            'e' => write!(out, "{:03}", utc.nanosecond / 1_000_000),
            'f' => write!(out, "{:06}", utc.nanosecond / 1000),
            'F' => write!(out, "{:09}", utc.nanosecond),
            'E' => write!(out, "{}", crate::time::unix_millis(now) / 1000),
            'z' => write!(out, "+00:00"),
            't' => write!(out, "{}", thread_id()),
            'P' => write!(out, "{}", std::process::id()),
            'l' => write!(out, "{}", level.name()),
            'L' => write!(
                out,
                "{}",
                level
                    .name()
                    .chars()
                    .next()
                    .unwrap_or('?')
                    .to_ascii_uppercase()
            ),
            'n' => write!(out, "{component}"),
            'g' | 's' => write!(out, "{file}"),
            '#' => write!(out, "{line}"),
            '@' => write!(out, "{file}:{line}"),
            '%' => write!(out, "%"),
            other => write!(out, "%{other}"),
        };
    }
    out.push('\n');
    out
}

/// The kernel's number of this thread.
fn thread_id() -> u32 {
    std::fs::read_link("/proc/thread-self")
        .ok()
        .and_then(|link| link.file_name()?.to_str()?.parse().ok())
        .unwrap_or_else(std::process::id)
}

/// Writes a line if its level is on, with where it comes from.
macro_rules! server_log {
    ($log:expr, $level:ident, $component:literal, $($message:tt)+) => {{
        let log: &$crate::server_log::ServerLog = &$log;
        if log.enabled($component, $crate::server_log::Level::$level) {
            log.write($crate::server_log::Level::$level, $component, (file!(), line!()), &format!($($message)+));
        }
    }};
}

pub(crate) use server_log;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_format_is_envoys() {
        let line = render(
            DEFAULT_FORMAT,
            Level::Warning,
            "main",
            ("server.rs", 7),
            "hello",
        );
        assert!(
            line.ends_with("[warning][main] [server.rs:7] hello\n"),
            "{line}"
        );
        assert_eq!(line.find("]["), Some("[2026-11-24 04:03:45.123".len()));
    }

    #[test]
    fn components_have_levels_of_their_own() {
        let log = ServerLog::new(&Options {
            log_level: "warn".to_owned(),
            component_log_level: "upstream:debug,nosuch:trace".to_owned(),
            ..Options::default()
        })
        .unwrap();
        assert!(log.enabled("upstream", Level::Debug) && !log.enabled("main", Level::Info));
        assert!(log.set("main", Level::Off) && !log.enabled("main", Level::Critical));
        assert!(!log.set("nosuch", Level::Info));
    }
}
