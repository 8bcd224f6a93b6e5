//! What is remembered of every resource besides its meaning: bytes, version and time, for comparison and `/config_dump`.

use std::time::SystemTime;

use bytes::Bytes;
use tidegate_model::Name;

/// An accepted resource as it came.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    /// Encoded; decoded again only when someone asks for a dump.
    pub(crate) raw: Bytes,
    pub(crate) version: Name,
    pub(crate) updated: SystemTime,
}

impl Resource {
    pub(crate) fn new(raw: Bytes, version: &Name) -> Self {
        Self {
            raw,
            version: Name::clone(version),
            updated: SystemTime::now(),
        }
    }
}

/// Why the last attempt to change a resource failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) details: String,
    /// What was refused, where it could be read that far.
    pub(crate) raw: Option<Bytes>,
    pub(crate) version: Name,
    pub(crate) at: SystemTime,
}

impl Failure {
    pub(crate) fn new(details: &str, raw: Option<&[u8]>, version: &str) -> Self {
        Self {
            details: details.to_owned(),
            raw: raw.map(Bytes::copy_from_slice),
            version: version.into(),
            at: SystemTime::now(),
        }
    }
}

/// The `version` gauge: Envoy's is the xxHash64 of the version text.
pub(crate) fn version_hash(version: &str) -> i64 {
    xxhash_rust::xxh64::xxh64(version.as_bytes(), 0) as i64
}
