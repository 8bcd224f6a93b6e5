//! What concerns this connection only: the `Connection` header and the headers it nominates.

use super::chars;
use super::error::{ErrorKind, ParseError};
use super::known::KnownHeader;
use super::scratch::HeadScratch;

/// What the `Connection` headers of a head say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionOptions {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
    /// Some other header is nominated, and marked in the scratch as hop-by-hop.
    pub nominates: bool,
}

/// Envoy gives up on a `Connection` header with this many elements.
const MAX_NOMINATED: usize = 10;

/// The comma-separated elements of a list header, trimmed, empty ones left out.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|b| *b == b',')
        .map(chars::trim)
        .filter(|token| !token.is_empty())
}

/// The headers RFC 9110 section 7.6.1 names, whether nominated or not.
#[inline]
pub const fn is_hop_by_hop(known: KnownHeader) -> bool {
    matches!(
        known,
        KnownHeader::Connection
            | KnownHeader::KeepAlive
            | KnownHeader::ProxyConnection
            | KnownHeader::TransferEncoding
            | KnownHeader::Upgrade
            | KnownHeader::Te
    )
}

impl ConnectionOptions {
    pub(super) fn add(&mut self, value: &[u8]) {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.nominates = true;
            }
        }
    }
}

/// Marks what the `Connection` headers nominate.
///
/// What says who the client is cannot be nominated away, nor can the length of the body. `TE` has a rule of its own.
#[cold]
pub(super) fn mark_nominated(buf: &[u8], scratch: &mut HeadScratch) -> Result<(), ParseError> {
    let mut count = 0;
    let mut next = scratch.index_of(KnownHeader::Connection);
    while let Some(index) = next {
        let Some(header) = scratch.headers().get(index).copied() else {
            break;
        };
        next = Some(index + 1);
        if header.known != KnownHeader::Connection {
            continue;
        }
        for token in tokens(header.value.of(buf)) {
            count += 1;
            let known = KnownHeader::from_name(token);
            let protected = matches!(
                known,
                KnownHeader::ContentLength
                    | KnownHeader::XForwardedFor
                    | KnownHeader::XForwardedHost
                    | KnownHeader::XForwardedProto
            ) || token.first() == Some(&b':');
            if protected || count >= MAX_NOMINATED {
                return Err(ErrorKind::ConnectionNominates.into());
            }
            if known == KnownHeader::Te {
                continue;
            }
            for nominated in scratch.headers_mut() {
                if nominated.name.of(buf).eq_ignore_ascii_case(token) {
                    nominated.hop_by_hop = true;
                }
            }
        }
    }
    Ok(())
}
