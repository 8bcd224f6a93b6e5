//! `extensions.filters.http.compressor.v3.Compressor`: which responses are compressed, and how.

use crate::{Name, RuntimeFlag};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compressor {
    pub library: CompressionLibrary,
    /// `compressor_library.name`, a part of the names of its statistics.
    pub library_name: Name,
    pub response: ResponseDirection,
    /// Of several with the same weight in `accept-encoding` this one is taken.
    pub choose_first: bool,
}

/// How to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionLibrary {
    /// Level 1 to 9, or the library's default; the window's size as a power of two, 9 to 15.
    Gzip {
        level: Option<u8>,
        window_bits: u8,
    },
    /// Quality 0 to 11; window and input block sizes as powers of two.
    Brotli {
        quality: u8,
        window_bits: u8,
        input_block_bits: u8,
        mode: BrotliMode,
        literal_context_modeling: bool,
    },
    Zstd {
        level: i32,
        checksum: bool,
    },
}

impl CompressionLibrary {
    /// As in `content-encoding`.
    pub const fn encoding(&self) -> &'static str {
        match self {
            Self::Gzip { .. } => "gzip",
            Self::Brotli { .. } => "br",
            Self::Zstd { .. } => "zstd",
        }
    }

    /// As in the names of statistics.
    pub const fn stat_name(&self) -> &'static str {
        match self {
            Self::Gzip { .. } => "gzip",
            Self::Brotli { .. } => "brotli",
            Self::Zstd { .. } => "zstd",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrotliMode {
    Generic,
    Text,
    Font,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseDirection {
    pub enabled: RuntimeFlag,
    /// Bytes; shorter bodies are left alone. Default 30.
    pub min_content_length: u64,
    /// Media types without parameters; Envoy's list of text formats by default.
    pub content_types: Vec<Name>,
    /// A response with an `etag` is left alone.
    pub disable_on_etag_header: bool,
    /// The upstream does not learn what the client accepts.
    pub remove_accept_encoding_header: bool,
    pub uncompressible_response_codes: Vec<u16>,
    /// It was configured as `response_direction_config`, which is in the names of its statistics then.
    pub own_stats: bool,
}

/// `CompressorPerRoute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompressorPerRoute {
    pub response_enabled: Option<bool>,
    pub remove_accept_encoding_header: Option<bool>,
}
