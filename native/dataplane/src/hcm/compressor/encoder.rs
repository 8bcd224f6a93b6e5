//! The compression libraries behind one face: bytes in, what can be sent of them out.
//!
//! Knows neither HTTP nor when to compress.

use std::io::{self, Write as _};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use brotli::enc::backward_references::BrotliEncoderMode;
use flate2::{Compress, Compression, FlushCompress, Status};
use tidegate_model::compressor::{BrotliMode, CompressionLibrary};
use zstd::stream::write::Encoder as ZstdEncoder;

/// One body being compressed.
pub(super) enum Encoder {
    Gzip(Compress),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(Box<ZstdEncoder<'static, Vec<u8>>>),
    /// The end has been written, or the library has failed.
    Done,
}

/// Output is made room for in pieces of this size.
const STEP: usize = 4096;

impl Encoder {
    pub(super) fn new(library: CompressionLibrary) -> io::Result<Self> {
        Ok(match library {
            CompressionLibrary::Gzip { level, window_bits } => {
                let level = level.map_or_else(Compression::default, |level| {
                    Compression::new(u32::from(level))
                });
                Self::Gzip(Compress::new_gzip(level, window_bits.clamp(9, 15)))
            }
            CompressionLibrary::Brotli {
                quality,
                window_bits,
                input_block_bits,
                mode,
                literal_context_modeling,
            } => {
                let params = BrotliEncoderParams {
                    quality: i32::from(quality),
                    lgwin: i32::from(window_bits),
                    lgblock: i32::from(input_block_bits),
                    mode: match mode {
                        BrotliMode::Generic => BrotliEncoderMode::BROTLI_MODE_GENERIC,
                        BrotliMode::Text => BrotliEncoderMode::BROTLI_MODE_TEXT,
                        BrotliMode::Font => BrotliEncoderMode::BROTLI_MODE_FONT,
                    },
                    disable_literal_context_modeling: i32::from(!literal_context_modeling),
                    ..BrotliEncoderParams::default()
                };
                Self::Brotli(Box::new(CompressorWriter::with_params(
                    Vec::new(),
                    STEP,
                    &params,
                )))
            }
            CompressionLibrary::Zstd { level, checksum } => {
                let mut encoder = ZstdEncoder::new(Vec::new(), level)?;
                encoder.include_checksum(checksum)?;
                Self::Zstd(Box::new(encoder))
            }
        })
    }

    /// Appends to `out` all that `data` comes to: what has been given so far can be read from what has been written so far.
    /// `last`: and the end.
    pub(super) fn feed(&mut self, data: &[u8], last: bool, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Gzip(compress) => deflate(compress, data, last, out)?,
            Self::Brotli(writer) => {
                writer.write_all(data)?;
                if !last {
                    writer.flush()?;
                }
                out.append(writer.get_mut());
            }
            Self::Zstd(writer) => {
                writer.write_all(data)?;
                if !last {
                    writer.flush()?;
                }
                out.append(writer.get_mut());
            }
            Self::Done => return Ok(()),
        }
        if !last {
            return Ok(());
        }
        match std::mem::replace(self, Self::Done) {
            Self::Brotli(writer) => out.append(&mut writer.into_inner()),
            Self::Zstd(writer) => out.append(&mut writer.finish()?),
            Self::Gzip(_) | Self::Done => {}
        }
        Ok(())
    }
}

fn deflate(compress: &mut Compress, data: &[u8], last: bool, out: &mut Vec<u8>) -> io::Result<()> {
    let flush = if last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
    let start = compress.total_in();
    loop {
        let used = (compress.total_in() - start) as usize;
        let rest = data.get(used..).unwrap_or_default();
        out.reserve(STEP);
        let status = compress
            .compress_vec(rest, out, flush)
            .map_err(io::Error::other)?;
        let used = (compress.total_in() - start) as usize;
        let full = out.len() == out.capacity();
        match status {
            Status::StreamEnd => return Ok(()),
            _ if !last && used == data.len() && !full => return Ok(()),
            Status::Ok | Status::BufError => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn through(library: CompressionLibrary, pieces: &[&[u8]]) -> Vec<u8> {
        let mut encoder = Encoder::new(library).unwrap();
        let mut out = Vec::new();
        for piece in pieces {
            let before = out.len();
            encoder.feed(piece, false, &mut out).unwrap();
            assert!(out.len() > before || piece.is_empty());
        }
        encoder.feed(b"", true, &mut out).unwrap();
        out
    }

    #[test]
    fn what_is_written_reads_as_what_was_given() {
        let long: Vec<u8> = (0..200_000_u32)
            .flat_map(|n| n.wrapping_mul(n).to_le_bytes())
            .collect();
        let pieces: [&[u8]; 4] = [b"hello ", b"hello ", &long, b""];
        let whole = pieces.concat();
        let mut read = Vec::new();
        let gzip = CompressionLibrary::Gzip {
            level: Some(1),
            window_bits: 12,
        };
        let out = through(gzip, &pieces);
        flate2::read::GzDecoder::new(&*out)
            .read_to_end(&mut read)
            .unwrap();
        assert_eq!(read, whole);
        read.clear();
        let brotli = CompressionLibrary::Brotli {
            quality: 3,
            window_bits: 18,
            input_block_bits: 24,
            mode: BrotliMode::Generic,
            literal_context_modeling: true,
        };
        let out = through(brotli, &pieces);
        brotli::Decompressor::new(&*out, STEP)
            .read_to_end(&mut read)
            .unwrap();
        assert_eq!(read, whole);
        let zstd = CompressionLibrary::Zstd {
            level: 3,
            checksum: true,
        };
        assert_eq!(zstd::decode_all(&*through(zstd, &pieces)).unwrap(), whole);
    }
}
