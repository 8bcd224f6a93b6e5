//! Validated plain configuration types: what a worker needs to know, in Envoy's words.
//!
//! `xds` produces these from protobuf, `snapshot` compiles them into match tables, `dataplane` runs the tables.
//! This crate must not know protobuf, I/O, clocks or serialisation. Values are already validated: a regular
//! expression held here compiles, a weight sum is not zero, "0 means off" has become `None`.

pub mod access_log;
pub mod bootstrap;
pub mod cluster;
pub mod ext_authz;
pub mod format;
pub mod hcm;
pub mod header_mutation;
pub mod http2;
pub mod jwt;
pub mod compressor;
pub mod istio;
pub mod listener;
pub mod local_ratelimit;
pub mod lua;
pub mod matcher;
pub mod rbac;
pub mod retry;
pub mod route;
pub mod tls;
pub mod tracing;

use std::sync::Arc;

/// A resource name, shared by everything that refers to it.
pub type Name = Arc<str>;

/// A share of traffic in millionths, Envoy's `FractionalPercent` normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fraction {
    /// 0 to 1,000,000.
    pub per_million: u32,
}

impl Fraction {
    pub const ALWAYS: Self = Self {
        per_million: 1_000_000,
    };
    pub const NEVER: Self = Self { per_million: 0 };

    /// Whether a uniformly random number selects this share.
    #[inline]
    pub const fn hits(self, random: u64) -> bool {
        (random % 1_000_000) < self.per_million as u64
    }
}

/// A fraction that a runtime key may override (`RuntimeFractionalPercent`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeFraction {
    pub default: Fraction,
    pub runtime_key: Option<Name>,
}

/// A switch that a runtime key may override (`RuntimeFeatureFlag`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeFlag {
    pub default: bool,
    pub runtime_key: Option<Name>,
}

/// A header to add, and what to do where it is present (`HeaderValueOption`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderValueOption {
    /// Lower case.
    pub name: Name,
    /// Literal text with access-log operators (`%DOWNSTREAM_REMOTE_ADDRESS%`); `%%` is a percent sign.
    pub value: Name,
    pub append_action: AppendAction,
    pub keep_empty_value: bool,
}

/// `HeaderValueOption.append_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAction {
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}

/// The header changes of one level (route, virtual host, route configuration, weighted cluster).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderMutations {
    pub request_add: Vec<HeaderValueOption>,
    /// Lower case.
    pub request_remove: Vec<Name>,
    pub response_add: Vec<HeaderValueOption>,
    /// Lower case.
    pub response_remove: Vec<Name>,
}

impl HeaderMutations {
    pub fn is_empty(&self) -> bool {
        self.request_add.is_empty()
            && self.request_remove.is_empty()
            && self.response_add.is_empty()
            && self.response_remove.is_empty()
    }
}

/// Where a body or text comes from; files have been read by the decoder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DataSource {
    pub bytes: Arc<[u8]>,
}
