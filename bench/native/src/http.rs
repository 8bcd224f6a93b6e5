//! HTTP/1 framing for both ends of the bench: heads found by `\r\n\r\n`, bodies by length or chunks.
//!
//! Trusts its peer as a test tool may; it still never panics.

use memchr::memmem;

/// The length of the head, `\r\n\r\n` included.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The value of a header, by its lower-case name, in a head.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let (found, value) = line.split_at(colon);
        found
            .eq_ignore_ascii_case(name.as_bytes())
            .then(|| value.get(1..).unwrap_or_default().trim_ascii())
    })
}

/// Whether the head says that its connection ends with it, in any usual spelling.
pub fn says_close(head: &[u8]) -> bool {
    memmem::find(head, b"onnection: close").is_some()
}

/// A decimal number.
pub fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// How the rest of a message is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    Length(u64),
    Chunked(Chunked),
}

impl Body {
    /// From a head; no length means no body.
    pub fn of(head: &[u8]) -> Self {
        if let Some(length) = header(head, "content-length") {
            return Self::Length(number(length).unwrap_or(0));
        }
        match header(head, "transfer-encoding") {
            Some(coding) if coding.eq_ignore_ascii_case(b"chunked") => {
                Self::Chunked(Chunked::default())
            }
            _ => Self::Length(0),
        }
    }

    /// Takes what belongs to the body: how many bytes, how many of them payload; `None` on broken framing.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<(usize, u64)> {
        self.feed_with(bytes, |_| {})
    }

    /// As [`Body::feed`], handing out the payload.
    pub fn feed_with(
        &mut self,
        bytes: &[u8],
        mut payload: impl FnMut(&[u8]),
    ) -> Option<(usize, u64)> {
        match self {
            Self::Length(left) => {
                let taken = (bytes.len() as u64).min(*left);
                *left -= taken;
                let count = usize::try_from(taken).ok()?;
                payload(bytes.get(..count)?);
                Some((count, taken))
            }
            Self::Chunked(chunked) => chunked.feed(bytes, payload),
        }
    }

    pub fn is_finished(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.state == ChunkState::Done,
        }
    }
}

/// Where a chunked body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chunked {
    state: ChunkState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ChunkState {
    #[default]
    SizeStart,
    Size(u64),
    /// Behind the size, up to the line feed.
    SizeEnd(u64),
    Data(u64),
    /// The CRLF behind the data.
    DataEnd,
    /// A trailer line; true while it is empty so far.
    Trailer(bool),
    Done,
}

impl Chunked {
    fn feed(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8])) -> Option<(usize, u64)> {
        let mut at = 0;
        let mut payload = 0;
        while let Some(&byte) = bytes.get(at) {
            self.state = match self.state {
                ChunkState::SizeStart => ChunkState::Size(u64::from((byte as char).to_digit(16)?)),
                ChunkState::Size(size) => match (byte as char).to_digit(16) {
                    Some(digit) => ChunkState::Size(size.checked_mul(16)? + u64::from(digit)),
                    None => {
                        self.state = ChunkState::SizeEnd(size);
                        continue;
                    }
                },
                ChunkState::SizeEnd(size) if byte == b'\n' => match size {
                    0 => ChunkState::Trailer(true),
                    size => ChunkState::Data(size),
                },
                ChunkState::SizeEnd(size) => ChunkState::SizeEnd(size),
                ChunkState::Data(left) => {
                    let taken = ((bytes.len() - at) as u64).min(left);
                    payload += taken;
                    let end = at + usize::try_from(taken).ok()?;
                    sink(bytes.get(at..end)?);
                    at = end;
                    self.state = match left - taken {
                        0 => ChunkState::DataEnd,
                        left => ChunkState::Data(left),
                    };
                    continue;
                }
                ChunkState::DataEnd if byte == b'\n' => ChunkState::SizeStart,
                ChunkState::DataEnd => ChunkState::DataEnd,
                ChunkState::Trailer(true) if byte == b'\n' => ChunkState::Done,
                ChunkState::Trailer(_) if byte == b'\n' => ChunkState::Trailer(true),
                ChunkState::Trailer(empty) => ChunkState::Trailer(empty && byte == b'\r'),
                ChunkState::Done => break,
            };
            at += 1;
        }
        Some((at, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_in_any_pieces() {
        let text = b"5\r\nhello\r\n1a;x=y\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nx-t: v\r\n\r\nGET";
        for size in 1..text.len() {
            let mut body = Body::Chunked(Chunked::default());
            let (mut taken, mut payload) = (0, 0);
            for piece in text.chunks(size) {
                let (bytes, data) = body.feed(piece).unwrap();
                taken += bytes;
                payload += data;
                if bytes < piece.len() {
                    break;
                }
            }
            assert!(body.is_finished());
            assert_eq!((taken, payload), (text.len() - 3, 31), "pieces of {size}");
        }
        let mut whole = Vec::new();
        Body::Chunked(Chunked::default()).feed_with(text, |data| whole.extend_from_slice(data));
        assert_eq!(whole, b"helloabcdefghijklmnopqrstuvwxyz");
    }

    #[test]
    fn headers_by_name() {
        let head = b"HTTP/1.1 200 OK\r\nServer: x\r\nCONTENT-length:  12 \r\n\r\n";
        assert_eq!(head_length(head), Some(head.len()));
        assert_eq!(Body::of(head), Body::Length(12));
        assert_eq!(header(head, "nothing"), None);
    }
}
