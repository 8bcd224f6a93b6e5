//! The first message of a TLS client, read without answering: what was asked for (RFC 8446, 6066, 7301).
//!
//! It says "TLS" exactly where BoringSSL as a server would come to asking for a certificate, for that is what Envoy's
//! `tls_inspector` does; so some ClientHellos that a handshake would refuse later are TLS, and some damaged ones are not.
//! Pure: knows no connection and keeps nothing.

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inspected<'a> {
    /// It may become a ClientHello.
    Incomplete,
    /// Not TLS, or damaged.
    NotTls {
        /// Bytes that had to be looked at.
        processed: usize,
    },
    Hello(ClientHello<'a>),
}

/// A whole ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// `server_name`, as it was sent.
    pub server_name: Option<&'a [u8]>,
    /// The protocols of `application_layer_protocol_negotiation`, each with its length before it; a valid list.
    pub alpn: Option<&'a [u8]>,
    /// Its size, record headers included.
    pub processed: usize,
}

const RECORD_HEADER: usize = 5;
const MAX_CIPHERTEXT: usize = 16_384 + 320;
const MAX_PLAINTEXT: usize = 16_384;
const MAX_MESSAGE: usize = 16_384;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const TLS_1_0: u16 = 0x0301;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// First words of HTTP, which are told apart before anything else.
const HTTP: &[&[u8]] = &[b"GET ", b"POST ", b"HEAD ", b"PUT ", b"CONNE"];

/// Looks at the bytes from the beginning of a connection. `scratch` is used for a message that is spread over several
/// records.
pub fn inspect<'a>(bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Inspected<'a> {
    scratch.clear();
    let Some(first) = bytes.get(..RECORD_HEADER) else {
        return Inspected::Incomplete;
    };
    if HTTP.iter().any(|word| first.starts_with(word)) {
        return Inspected::NotTls {
            processed: RECORD_HEADER,
        };
    }
    let mut rest = bytes;
    let mut records = 0;
    let (record, processed) = loop {
        let (record, processed) = match read_record(&mut rest) {
            Record::Handshake(record) => (record, bytes.len() - rest.len()),
            Record::Partial => return Inspected::Incomplete,
            Record::Wrong => {
                let processed = bytes.len() - rest.len();
                return Inspected::NotTls { processed };
            }
        };
        // Mostly the first record is all there is: it is read where it lies.
        records += 1;
        if records > 1 {
            scratch.extend_from_slice(record);
        }
        let so_far = if records > 1 { &scratch[..] } else { record };
        match message(so_far) {
            Some(Ok(_)) => break (record, processed),
            Some(Err(Malformed)) => return Inspected::NotTls { processed },
            None if records == 1 => scratch.extend_from_slice(record),
            None => {}
        }
    };
    let whole = if records > 1 { &scratch[..] } else { record };
    match message(whole) {
        Some(Ok((CLIENT_HELLO, body))) => match client_hello(body, processed) {
            Ok(hello) => Inspected::Hello(hello),
            Err(Malformed) => Inspected::NotTls { processed },
        },
        _ => Inspected::NotTls { processed },
    }
}

enum Record<'a> {
    Handshake(&'a [u8]),
    Partial,
    /// `rest` stands behind what was looked at.
    Wrong,
}

fn read_record<'a>(rest: &mut &'a [u8]) -> Record<'a> {
    let Some((&[kind, major, _, high, low], behind)) = rest.split_first_chunk::<RECORD_HEADER>()
    else {
        return Record::Partial;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if major != 3 || length > MAX_CIPHERTEXT {
        *rest = behind;
        return Record::Wrong;
    }
    let Some((record, behind)) = behind.split_at_checked(length) else {
        return Record::Partial;
    };
    *rest = behind;
    if kind == HANDSHAKE && length <= MAX_PLAINTEXT {
        Record::Handshake(record)
    } else {
        Record::Wrong
    }
}

/// Kind and body of the handshake message; `None`: it goes on in the next record.
fn message(bytes: &[u8]) -> Option<Result<(u8, &[u8]), Malformed>> {
    let (&[kind, high, middle, low], body) = bytes.split_first_chunk::<4>()?;
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    if length > MAX_MESSAGE {
        return Some(Err(Malformed));
    }
    Some(Ok((kind, body.get(..length)?)))
}

/// Something is not as it should be; what, does not matter to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Malformed;

/// Bytes with lengths before them.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn word(&mut self) -> Result<u16, Malformed> {
        let (word, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*word))
    }

    /// What follows, its length in one byte before it.
    fn short(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.byte()?;
        self.take(usize::from(length))
    }

    /// The same with two bytes.
    fn long(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.word()?;
        self.take(usize::from(length))
    }

    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn client_hello(body: &[u8], processed: usize) -> Result<ClientHello<'_>, Malformed> {
    let mut reader = Reader(body);
    let version = reader.word()?;
    reader.take(32)?;
    let session = reader.short()?;
    let ciphers = reader.long()?;
    let compressions = reader.short()?;
    if session.len() > 32 || ciphers.len() < 2 || ciphers.len() % 2 != 0 {
        return Err(Malformed);
    }
    let extensions = if reader.is_empty() {
        &[][..]
    } else {
        reader.long()?
    };
    if !reader.is_empty() || has_duplicates(extensions)? {
        return Err(Malformed);
    }
    let (mut server_name, mut alpn, mut versions) = (None, None, None);
    let mut list = Reader(extensions);
    while !list.is_empty() {
        let (kind, content) = (list.word()?, list.long()?);
        match kind {
            SERVER_NAME => server_name = Some(host_name(content)?),
            ALPN => alpn = protocols(content),
            SUPPORTED_VERSIONS => versions = Some(content),
            _ => {}
        }
    }
    let supported = match versions {
        Some(content) => {
            let mut reader = Reader(content);
            let list = reader.short()?;
            let known = |version: &[u8]| matches!(version, [3, 1..=4]);
            reader.is_empty() && list.chunks(2).any(known)
        }
        None => version >= TLS_1_0,
    };
    if !supported || !compressions.contains(&0) {
        return Err(Malformed);
    }
    Ok(ClientHello {
        server_name,
        alpn,
        processed,
    })
}

/// Whether an extension is there twice. A bit for each that there can be, for a hello may have thousands.
fn has_duplicates(extensions: &[u8]) -> Result<bool, Malformed> {
    let mut seen = [0_u64; 1 << 10];
    let mut list = Reader(extensions);
    while !list.is_empty() {
        let kind = list.word()?;
        list.long()?;
        let bit = 1 << (kind & 63);
        if let Some(bits) = seen.get_mut(usize::from(kind >> 6)) {
            if *bits & bit != 0 {
                return Ok(true);
            }
            *bits |= bit;
        }
    }
    Ok(false)
}

fn host_name(content: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader(content);
    let mut list = Reader(reader.long()?);
    let (kind, name) = (list.byte()?, list.long()?);
    let is_sound = reader.is_empty() && list.is_empty() && kind == 0;
    if is_sound && !name.is_empty() && name.len() <= 255 && !name.contains(&0) {
        Ok(name)
    } else {
        Err(Malformed)
    }
}

/// The list, if it is one: a damaged one is as good as none.
fn protocols(content: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(content);
    let list = reader.long().ok()?;
    let mut names = Reader(list);
    while !names.is_empty() {
        if names.short().ok()?.is_empty() {
            return None;
        }
    }
    (reader.is_empty() && !list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests;
