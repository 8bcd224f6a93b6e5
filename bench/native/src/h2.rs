//! HTTP/2 for both ends of the bench: frames written and taken apart, and header blocks that are encoded once.
//!
//! Trusts its peer as a test tool may; it still never panics. Incoming header blocks are not decoded: of an answer its
//! status is seen (it stands first, at an index that never moves), of a request nothing. Windows are kept.

pub mod blocks;
pub mod huffman;
pub mod server;

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Windows as large as they go: this end is not to be the limit.
pub const WINDOW: u32 = 0x7fff_ffff;
/// Window updates are owed when so much was taken.
const OWED: u64 = 1 << 29;
pub const INITIAL_WINDOW: i64 = 65_535;
/// The largest payload that may be sent unasked.
pub const MAX_FRAME: usize = 16_384;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The frame types that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    Reset,
    Settings,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Other,
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::Headers,
            3 => Self::Reset,
            4 => Self::Settings,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Other,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Headers => 1,
            Self::Reset => 3,
            Self::Settings => 4,
            Self::Ping => 6,
            Self::GoAway => 7,
            Self::WindowUpdate => 8,
            Self::Continuation => 9,
            Self::Other => 0xff,
        }
    }
}

/// A whole frame.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    pub kind: Kind,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    pub fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// The first four bytes of the payload as a number.
    pub fn number(&self) -> u32 {
        self.payload
            .first_chunk()
            .map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    /// The settings of a SETTINGS frame.
    pub fn settings(&self) -> impl Iterator<Item = (u16, u32)> {
        self.payload.chunks_exact(6).filter_map(|item| {
            let (name, value) = item.split_at(2);
            Some((
                u16::from_be_bytes(name.try_into().ok()?),
                u32::from_be_bytes(value.try_into().ok()?),
            ))
        })
    }
}

/// Takes frames off the front of `bytes`; leaves what is not whole yet.
pub fn next_frame<'a>(bytes: &mut &'a [u8]) -> Option<Frame<'a>> {
    let head: [u8; 9] = *bytes.first_chunk()?;
    let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    let payload = bytes.get(9..9 + length)?;
    *bytes = bytes.get(9 + length..).unwrap_or_default();
    Some(Frame {
        kind: Kind::of(kind),
        flags,
        stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
        payload,
    })
}

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind.byte(), flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

pub fn put_window_update(out: &mut Vec<u8>, stream: u32, size: u32) {
    put(out, Kind::WindowUpdate, 0, stream, &size.to_be_bytes());
}

/// SETTINGS with windows without a limit, and the connection's window opened as far.
pub fn put_opening(out: &mut Vec<u8>) {
    let mut settings = Vec::new();
    for (name, value) in [(3_u16, 1_000_000), (4, WINDOW)] {
        settings.extend_from_slice(&name.to_be_bytes());
        settings.extend_from_slice(&value.to_be_bytes());
    }
    put(out, Kind::Settings, 0, 0, &settings);
    put_window_update(out, 0, WINDOW - INITIAL_WINDOW as u32);
}

/// What both ends of a connection keep: bytes of a frame that is not whole, what may be sent, what is owed.
#[derive(Debug)]
pub struct Link {
    partial: Vec<u8>,
    /// What the other side lets this one send on the connection, and at first on a stream.
    pub window: i64,
    pub initial_window: i64,
    /// Whether the other side keeps a header table of the usual size.
    pub table: bool,
    pub max_streams: u32,
    taken: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            partial: Vec::new(),
            window: INITIAL_WINDOW,
            initial_window: INITIAL_WINDOW,
            table: true,
            max_streams: u32::MAX,
            taken: 0,
        }
    }
}

/// What a connection's own frame came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// It was for the connection, and nothing changed that concerns streams.
    Nothing,
    /// The initial window of streams changed by so much, or the connection's window opened.
    Window(i64),
    /// It is about a stream.
    Stream,
}

impl Link {
    /// Joins what was left with what came; give the rest back to `keep`.
    pub fn join(&mut self, received: &[u8]) -> Option<Vec<u8>> {
        if self.partial.is_empty() {
            return None;
        }
        self.partial.extend_from_slice(received);
        Some(std::mem::take(&mut self.partial))
    }

    pub fn keep(&mut self, rest: &[u8]) {
        self.partial.extend_from_slice(rest);
    }

    /// Takes a frame in so far as it concerns the connection, answering what must be answered.
    pub fn hear(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Heard {
        match frame.kind {
            Kind::Settings if frame.flags & ACK == 0 => {
                let before = self.initial_window;
                for (name, value) in frame.settings() {
                    match name {
                        1 => self.table = value >= 4096,
                        3 => self.max_streams = value,
                        4 => self.initial_window = i64::from(value),
                        _ => {}
                    }
                }
                put(out, Kind::Settings, ACK, 0, &[]);
                Heard::Window(self.initial_window - before)
            }
            Kind::Ping if frame.flags & ACK == 0 => {
                put(out, Kind::Ping, ACK, 0, frame.payload);
                Heard::Nothing
            }
            Kind::WindowUpdate if frame.stream == 0 => {
                self.window += i64::from(frame.number());
                Heard::Window(0)
            }
            Kind::Data => {
                self.taken += frame.payload.len() as u64;
                if self.taken >= OWED {
                    put_window_update(out, 0, self.taken as u32);
                    self.taken = 0;
                }
                Heard::Stream
            }
            Kind::Settings | Kind::Ping | Kind::Other => Heard::Nothing,
            _ => Heard::Stream,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_any_pieces() {
        let mut bytes = Vec::new();
        put(&mut bytes, Kind::Headers, END_HEADERS, 1, b"\x88");
        put(&mut bytes, Kind::Data, END_STREAM, 1, b"hello");
        put(&mut bytes, Kind::Ping, 0, 0, b"12345678");
        for size in 1..bytes.len() {
            let (mut link, mut out, mut seen) = (Link::default(), Vec::new(), Vec::new());
            for piece in bytes.chunks(size) {
                let joined = link.join(piece);
                let mut rest = joined.as_deref().unwrap_or(piece);
                while let Some(frame) = next_frame(&mut rest) {
                    link.hear(&frame, &mut out);
                    seen.push((frame.kind, frame.stream, frame.payload.len()));
                }
                link.keep(rest);
            }
            let all = [
                (Kind::Headers, 1, 1),
                (Kind::Data, 1, 5),
                (Kind::Ping, 0, 8),
            ];
            assert_eq!(seen, all, "pieces of {size}");
            assert_eq!(out.get(9..), Some(&b"12345678"[..]));
        }
    }

    #[test]
    fn settings_move_windows() {
        let (mut link, mut out) = (Link::default(), Vec::new());
        let mut bytes = Vec::new();
        put(
            &mut bytes,
            Kind::Settings,
            0,
            0,
            &[0, 4, 0, 0, 0, 10, 0, 1, 0, 0, 0, 0],
        );
        put_window_update(&mut bytes, 0, 5);
        let mut rest = bytes.as_slice();
        let frame = next_frame(&mut rest).unwrap();
        assert_eq!(link.hear(&frame, &mut out), Heard::Window(10 - 65_535));
        assert!(!link.table);
        let frame = next_frame(&mut rest).unwrap();
        assert_eq!(link.hear(&frame, &mut out), Heard::Window(0));
        assert_eq!(link.window, 65_540);
    }
}
