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
    Known(ClientHello),
}

/// What the choice of a configuration depends on. The default is for what is no sound hello, of which rustls will tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClientHello {
    /// Protocols are offered, and none of ours is among them.
    pub(crate) no_overlap: bool,
    pub(crate) tls13: bool,
    /// Nothing newer than TLS 1.1 is spoken, of which rustls would complain last and BoringSSL complains first.
    pub(crate) too_old: bool,
    /// ChaCha20-Poly1305 stands before AES-128-GCM among the suites of TLS 1.2.
    pub(crate) chacha_first: bool,
}

/// The longest hello waited for.
const MOST: usize = 64 * 1024;
const TLS12: u16 = 0x0303;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

pub(crate) fn offer(bytes: &[u8], ours: &[Vec<u8>]) -> Offer {
    if bytes.first().is_some_and(|kind| *kind != HANDSHAKE) {
        return Offer::Known(ClientHello::default());
    }
    match message(bytes) {
        Hello::Whole(whole) => Offer::Known(read(&whole, ours).unwrap_or_default()),
        Hello::Partial if bytes.len() <= MOST => Offer::Incomplete,
        Hello::Partial | Hello::Unsound => Offer::Known(ClientHello::default()),
    }
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

/// `None`: it is not sound.
fn read(hello: &[u8], ours: &[Vec<u8>]) -> Option<ClientHello> {
    let mut found = ClientHello::default();
    let mut reader = Reader(hello);
    found.too_old = reader.word()? < TLS12;
    reader.take(32)?;
    reader.short()?;
    let suites = reader.long()?;
    found.chacha_first = chacha_first(suites);
    reader.short()?;
    if reader.0.is_empty() {
        return Some(found);
    }
    let mut extensions = Reader(reader.long()?);
    while !extensions.0.is_empty() {
        let kind = extensions.word()?;
        let mut contents = Reader(extensions.long()?);
        match kind {
            ALPN => {
                let mut protocols = Reader(contents.long()?);
                found.no_overlap = !ours.is_empty();
                while let Some(protocol) = protocols.short() {
                    if ours.iter().any(|ours| ours == protocol) {
                        found.no_overlap = false;
                    }
                }
            }
            SUPPORTED_VERSIONS => {
                let versions = contents.short()?;
                found.tls13 = versions.chunks(2).any(|version| version == [3, 4]);
                let is_new = |version: &[u8]| matches!(version, [3, 3 | 4]);
                found.too_old = !versions.chunks(2).any(is_new);
            }
            _ => {}
        }
    }
    Some(found)
}

/// By the first of either in the client's list.
fn chacha_first(suites: &[u8]) -> bool {
    // ECDHE with RSA or ECDSA.
    let is_chacha = |suite: &[u8]| matches!(suite, [0xcc, 0xa8 | 0xa9]);
    let is_aes = |suite: &[u8]| matches!(suite, [0xc0, 0x2b | 0x2f]);
    let first = suites.chunks(2).find(|one| is_chacha(one) || is_aes(one));
    first.is_some_and(is_chacha)
}
