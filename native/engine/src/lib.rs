//! The composition root: threads, configuration, admin, statistics, logs.
//!
//! [`Engine`] is the data plane as its owner drives it: made from a bootstrap (which validates), started, fed with discovery
//! responses, drained, shut down. Besides the workers it runs two threads of its own: `aux`, a tokio loop for the admin
//! page, DNS and the flushing of statistics, and `log_flush`, which writes access logs. Traffic waits for neither.
//!
//! This crate decides what configuration is in force and when; it must not know Python, nor how a request is handled.

mod admin;
mod aux;
mod config;
mod dns;
mod engine;
mod error;
mod events;
mod log_files;
mod matcher;
mod options;
mod server_log;
mod stats_flush;
mod time;
mod version;

pub use config::{ApplyResult, ConfigSourceKey, Delta, Subscription, UpdateFailure};
pub use engine::{BootstrapInfo, Engine, GrpcTarget};
pub use error::{ConfigError, EngineError};
pub use events::Event;
pub use matcher::{Matcher, RouteMatch, Seen};
pub use options::Options;
pub use server_log::Level;
pub use version::version;

/// What [`Matcher::route`] is asked with.
pub use tidegate_snapshot::PlainRequest;

/// In [`GrpcTarget`].
pub use tidegate_model::cluster::TcpKeepalive;
