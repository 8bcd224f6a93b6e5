//! Byte transcripts. The verdicts on requests and responses were read off Envoy 1.40 by a raw socket; where ours differ
//! on purpose the table says `stricter`.

mod bodies;
mod requests;
mod responses;
mod split;

use super::*;

fn request(bytes: &[u8]) -> Result<Option<(RequestHead, HeadScratch)>, ParseError> {
    request_with(bytes, &Limits::default())
}

fn request_with(
    bytes: &[u8],
    limits: &Limits,
) -> Result<Option<(RequestHead, HeadScratch)>, ParseError> {
    let mut scratch = HeadScratch::new();
    Ok(parse_request(bytes, &mut scratch, limits)?.map(|head| (head, scratch)))
}

/// A request that must parse.
fn good(bytes: &[u8]) -> (RequestHead, HeadScratch) {
    request(bytes).unwrap().unwrap()
}

/// The names of the headers that are passed on.
fn passed(bytes: &[u8], scratch: &HeadScratch) -> Vec<String> {
    let text = |span: Span| String::from_utf8_lossy(span.of(bytes)).to_lowercase();
    scratch
        .headers()
        .iter()
        .filter(|h| !h.hop_by_hop)
        .map(|h| text(h.name))
        .collect()
}
