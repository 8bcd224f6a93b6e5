//! The record layer of an established connection: sealing straight into the output, opening in place.
//!
//! rustls hands over keys, vectors and sequence numbers when the handshake is done (its interface for kernel TLS), and
//! this is the framing around the AEAD of aws-lc (RFC 8446, 5.2; RFC 5288; RFC 7905). It knows nothing of handshakes,
//! nor what records say.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce,
    UnboundKey,
};
use rustls::ConnectionTrafficSecrets;

use crate::error::{Reason, TlsError};

pub(crate) const HEADER: usize = 5;
/// The most plaintext that one record carries.
pub(crate) const MAX_PLAINTEXT: usize = 16_384;
const TAG: usize = 16;
const EXPLICIT_NONCE: usize = 8;
/// Records that AES-GCM may protect with one key (RFC 8446, 5.5), with room for what is sent while the key changes.
const KEY_LIMIT: u64 = 1 << 24;

pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;

/// The keys of one direction.
pub(crate) struct Half {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
    version: Version,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Tls13,
    /// AES-GCM: eight bytes of the nonce go with each record.
    Tls12Explicit,
    /// ChaCha20-Poly1305.
    Tls12Implicit,
}

/// A record that has been opened; its contents are at the range of the record's bytes.
pub(crate) struct Opened {
    pub(crate) kind: u8,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Half {
    pub(crate) fn new(
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
        tls13: bool,
    ) -> Result<Self, TlsError> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(TlsError::internal("cipher without a record layer")),
        };
        let version = match tls13 {
            true => Version::Tls13,
            false if std::ptr::eq(algorithm, &CHACHA20_POLY1305) => Version::Tls12Implicit,
            false => Version::Tls12Explicit,
        };
        let unusable = || TlsError::internal("unusable traffic secret");
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| unusable())?;
        Ok(Self {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().map_err(|_| unusable())?,
            sequence,
            version,
        })
    }

    /// Whether the key has done its share and must be changed before long; TLS 1.2 cannot.
    pub(crate) fn is_worn(&self) -> bool {
        self.version == Version::Tls13 && self.sequence >= KEY_LIMIT
    }

    /// The sequence number and the nonce of the next record.
    fn next(&mut self) -> Result<(u64, [u8; NONCE_LEN]), TlsError> {
        let sequence = self.sequence;
        self.sequence = sequence
            .checked_add(1)
            .ok_or_else(|| TlsError::internal("record sequence exhausted"))?;
        let mut nonce = self.iv;
        for (byte, number) in nonce.iter_mut().skip(4).zip(sequence.to_be_bytes()) {
            *byte ^= number;
        }
        Ok((sequence, nonce))
    }

    /// Appends one record with `length` bytes of contents, taken from the front of `pieces`.
    ///
    /// `pieces` hold at least `length` bytes; at most [`MAX_PLAINTEXT`] fit.
    pub(crate) fn seal(
        &mut self,
        kind: u8,
        pieces: &mut Pieces<'_>,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let (sequence, nonce) = self.next()?;
        let (explicit, trailer) = match self.version {
            Version::Tls13 => (0, 1),
            Version::Tls12Explicit => (EXPLICIT_NONCE, 0),
            Version::Tls12Implicit => (0, 0),
        };
        let body = explicit + length + trailer + TAG;
        let [high, low] = (body as u16).to_be_bytes();
        let outer = if trailer == 1 { APPLICATION_DATA } else { kind };
        let header = [outer, 3, 3, high, low];
        out.reserve(HEADER + body);
        out.extend_from_slice(&header);
        if explicit > 0 {
            out.extend_from_slice(&nonce[4..]);
        }
        let start = out.len();
        let failed = |_| TlsError::internal("sealing failed");
        let nonce = Nonce::assume_unique_for_key(nonce);
        let kind_byte = [kind];
        let inner: &[u8] = if trailer == 1 { &kind_byte } else { &[] };
        let aad_12 = tls12_aad(sequence, kind, length);
        let aad: &[u8] = if trailer == 1 { &header } else { &aad_12 };
        if let Some(whole) = pieces.contiguous(length) {
            out.resize(start + length + trailer + TAG, 0);
            let rest = out.get_mut(start..).unwrap_or_default();
            let (sealed, tag) = rest.split_at_mut(length);
            self.key
                .seal_out_of_place_scatter(nonce, Aad::from(aad), whole, sealed, inner, tag)
                .map_err(failed)
        } else {
            pieces.copy(length, out);
            let mut tag = [0_u8; 1 + TAG];
            let tag = tag.get_mut(..trailer + TAG).unwrap_or_default();
            let contents = out.get_mut(start..).unwrap_or_default();
            self.key
                .seal_in_place_scatter(nonce, Aad::from(aad), contents, inner, tag)
                .map_err(failed)?;
            out.extend_from_slice(tag);
            Ok(())
        }
    }

    /// Opens the record that `record` holds, header included, in place.
    pub(crate) fn open(&mut self, record: &mut [u8]) -> Result<Opened, Reason> {
        let (sequence, mut nonce) = self.next().map_err(|_| Reason::UnexpectedRecord)?;
        let too_short = || Reason::BadPacketLength;
        let (header, body) = record
            .split_first_chunk_mut::<HEADER>()
            .ok_or_else(too_short)?;
        let kind = header[0];
        let bad = |_| Reason::DecryptionFailedOrBadRecordMac;
        let open = |key: &LessSafeKey, nonce, aad: &[u8], body: &mut [u8]| {
            let nonce = Nonce::assume_unique_for_key(nonce);
            key.open_in_place(nonce, Aad::from(aad), body)
                .map(|plain| plain.len())
                .map_err(bad)
        };
        let opened = match self.version {
            Version::Tls13 => {
                if kind != APPLICATION_DATA {
                    return Err(Reason::InvalidOuterRecordType);
                }
                let length = open(&self.key, nonce, header.as_slice(), body)?;
                // The contents' kind is the last byte that is not zero; what follows is padding.
                let plain = body.get(..length).unwrap_or_default();
                let Some(last) = plain.iter().rposition(|byte| *byte != 0) else {
                    return Err(Reason::DecryptionFailedOrBadRecordMac);
                };
                Opened {
                    kind: plain.get(last).copied().unwrap_or_default(),
                    start: HEADER,
                    end: HEADER + last,
                }
            }
            Version::Tls12Explicit => {
                let length = body
                    .len()
                    .checked_sub(EXPLICIT_NONCE + TAG)
                    .ok_or_else(too_short)?;
                let (explicit, body) = body.split_at_mut(EXPLICIT_NONCE);
                for (byte, number) in nonce.iter_mut().skip(4).zip(explicit) {
                    *byte = *number;
                }
                let aad = tls12_aad(sequence, kind, length);
                let start = HEADER + EXPLICIT_NONCE;
                let end = start + open(&self.key, nonce, &aad, body)?;
                Opened { kind, start, end }
            }
            Version::Tls12Implicit => {
                let length = body.len().checked_sub(TAG).ok_or_else(too_short)?;
                let aad = tls12_aad(sequence, kind, length);
                let end = HEADER + open(&self.key, nonce, &aad, body)?;
                let start = HEADER;
                Opened { kind, start, end }
            }
        };
        if opened.end - opened.start > MAX_PLAINTEXT {
            return Err(Reason::DataLengthTooLong);
        }
        Ok(opened)
    }
}

fn tls12_aad(sequence: u64, kind: u8, length: usize) -> [u8; 13] {
    let mut aad = [0; 13];
    let (number, rest) = aad.split_at_mut(8);
    number.copy_from_slice(&sequence.to_be_bytes());
    let [high, low] = (length as u16).to_be_bytes();
    rest.copy_from_slice(&[kind, 3, 3, high, low]);
    aad
}

/// The length of the record that `bytes` begin with, header included; `None`: it is not all there.
///
/// What cannot be a record is told as soon as its header is there, in the words of BoringSSL.
pub(crate) fn length(bytes: &[u8], first: bool) -> Result<Option<usize>, Reason> {
    let Some(&[kind, major, _, high, low]) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    if first && let Some(reason) = http(bytes) {
        return Err(reason);
    }
    if major != 3 {
        return Err(Reason::WrongVersionNumber);
    }
    if !(20..=23).contains(&kind) {
        return Err(Reason::UnexpectedRecord);
    }
    let body = usize::from(u16::from_be_bytes([high, low]));
    if body > MAX_PLAINTEXT + 2048 {
        return Err(Reason::EncryptedLengthTooLong);
    }
    Ok(Some(HEADER + body).filter(|end| bytes.len() >= *end))
}

/// Plain HTTP where a handshake should begin.
fn http(bytes: &[u8]) -> Option<Reason> {
    let is = |word: &[u8]| bytes.starts_with(word);
    if is(b"GET ") || is(b"POST ") || is(b"HEAD ") || is(b"PUT ") {
        Some(Reason::HttpRequest)
    } else if is(b"CONNE") {
        Some(Reason::HttpsProxyRequest)
    } else {
        None
    }
}

/// Plaintext in pieces, taken from the front.
pub(crate) struct Pieces<'p> {
    pieces: &'p [&'p [u8]],
    /// Taken from the first piece.
    offset: usize,
}

impl<'p> Pieces<'p> {
    pub(crate) const fn new(pieces: &'p [&'p [u8]]) -> Self {
        Self { pieces, offset: 0 }
    }

    /// All of `length` bytes, taken, if they are in one piece.
    fn contiguous(&mut self, length: usize) -> Option<&'p [u8]> {
        if length == 0 {
            return Some(&[]);
        }
        loop {
            let (first, rest) = self.pieces.split_first()?;
            if first.len() > self.offset {
                let whole = first.get(self.offset..self.offset + length)?;
                self.offset += length;
                return Some(whole);
            }
            self.pieces = rest;
            self.offset = 0;
        }
    }

    fn copy(&mut self, mut length: usize, out: &mut Vec<u8>) {
        while length > 0 {
            let Some((first, rest)) = self.pieces.split_first() else {
                return;
            };
            let left = first.get(self.offset..).unwrap_or_default();
            let taken = left.get(..length).unwrap_or(left);
            out.extend_from_slice(taken);
            length -= taken.len();
            if taken.len() == left.len() {
                self.pieces = rest;
                self.offset = 0;
            } else {
                self.offset += taken.len();
            }
        }
    }
}
