//! HPACK (RFC 7541): header lists to compressed blocks and back.
//!
//! Knows nothing of frames, streams or what a header means to HTTP; the decoder hands each field to a [`decoder::Sink`],
//! which judges it. Both sides keep a dynamic table that is allocated when the first entry is made.

pub(super) mod decoder;
pub(super) mod encoder;
pub(super) mod huffman;
mod huffman_code;
pub(super) mod integer;
pub(super) mod name;
pub(super) mod static_table;
pub(super) mod table;

/// The table size both sides begin with, before any SETTINGS (RFC 9113 section 6.5.2).
pub(super) const DEFAULT_TABLE_SIZE: u32 = 4096;
