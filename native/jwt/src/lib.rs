//! JSON Web Tokens (RFC 7519), signed (RFC 7515), and key sets (RFC 7517): reading and verifying, in Envoy's words.
//!
//! Pure: text and bytes in, a verdict out; the cryptography is aws-lc's. It must not know requests, providers or where key sets
//! come from.

mod keys;
mod status;
mod token;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

pub use keys::Keys;
pub use status::Status;
pub use token::{Algorithm, Token};

/// Base64url with or without padding.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Base64 as claims that are no plain values go into headers.
pub fn encode(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    ENGINE.decode(text).ok()
}
