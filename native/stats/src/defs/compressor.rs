//! The compressor filter.

use crate::def::group;

group! {
    /// `http.PREFIX.compressor.LIBRARY.ENCODING.`: what clients ask for.
    Compressor "compressor" {
        counters {
            NO_ACCEPT_HEADER "no_accept_header",
            HEADER_IDENTITY "header_identity",
            HEADER_COMPRESSOR_USED "header_compressor_used",
            HEADER_COMPRESSOR_OVERSHADOWED "header_compressor_overshadowed",
            HEADER_WILDCARD "header_wildcard",
            HEADER_NOT_VALID "header_not_valid",
            NOT_COMPRESSED_ETAG "not_compressed_etag",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}

group! {
    /// The same with `request.` or `response.`: what is compressed.
    CompressorDirection "compressor direction" {
        counters {
            COMPRESSED "compressed",
            NOT_COMPRESSED "not_compressed",
            TOTAL_UNCOMPRESSED_BYTES "total_uncompressed_bytes",
            TOTAL_COMPRESSED_BYTES "total_compressed_bytes",
            CONTENT_LENGTH_TOO_SMALL "content_length_too_small",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
