//! The protocols that a ClientHello offers, read before rustls sees it.
//!
//! Envoy goes on without a protocol where client and server have none in common; rustls ends the handshake, so it must
//! not be told of ours then.

use crate::record::{HANDSHAKE, HEADER};

/// What the first bytes of a connection offer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// The hello is not all there.
    Incomplete,
    /// One of ours is among them, or none are offered, or it is no sound hello, of which rustls will tell.
    Fits,
    /// None of ours is among them.
    NoOverlap,
}

/// The longest hello waited for.
const MOST: usize = 64 * 1024;
const ALPN: u16 = 16;

pub(crate) fn offer(bytes: &[u8], ours: &[Vec<u8>]) -> Offer {
    if bytes.first().is_some_and(|kind| *kind != HANDSHAKE) {
        return Offer::Fits;
    }
    let whole = match message(bytes) {
        Hello::Whole(whole) => whole,
        Hello::Partial if bytes.len() <= MOST => return Offer::Incomplete,
        Hello::Partial | Hello::Unsound => return Offer::Fits,
    };
    let Some(mut protocols) = protocols(&whole) else {
        return Offer::Fits;
    };
    while let Some(protocol) = protocols.short() {
        if ours.iter().any(|ours| ours == protocol) {
            return Offer::Fits;
        }
    }
    Offer::NoOverlap
}

enum Hello {
    Partial,
    Unsound,
    /// Without its header.
    Whole(Vec<u8>),
}

fn message(mut bytes: &[u8]) -> Hello {
    let mut whole = Vec::new();
    while let Some(&[kind, _, _, high, low]) = bytes.first_chunk::<HEADER>() {
        if kind != HANDSHAKE {
            return Hello::Unsound;
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some((record, behind)) = bytes.split_at_checked(HEADER + length) else {
            break;
        };
        whole.extend_from_slice(record.get(HEADER..).unwrap_or_default());
        bytes = behind;
        if let Some(&[kind, high, middle, low]) = whole.first_chunk::<4>() {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if kind != 1 || length > MOST {
                return Hello::Unsound;
            }
            if whole.len() >= 4 + length {
                whole.truncate(4 + length);
                whole.drain(..4);
                return Hello::Whole(whole);
            }
        }
    }
    Hello::Partial
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn word(&mut self) -> Option<u16> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*word))
    }

    fn short(&mut self) -> Option<&'a [u8]> {
        let length = *self.take(1)?.first()?;
        self.take(usize::from(length))
    }

    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.word()?;
        self.take(usize::from(length))
    }
}

/// The list in the ALPN extension, if there is one.
fn protocols(hello: &[u8]) -> Option<Reader<'_>> {
    let mut reader = Reader(hello);
    reader.take(2 + 32)?;
    reader.short()?;
    reader.long()?;
    reader.short()?;
    let mut extensions = Reader(reader.long()?);
    loop {
        let kind = extensions.word()?;
        let contents = extensions.long()?;
        if kind == ALPN {
            return Reader(contents).long().map(Reader);
        }
    }
}
