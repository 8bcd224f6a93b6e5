//! What the reader writes: wire bytes, and the path to where it is. Must not know JSON.

use prost::encoding::{WireType, encode_key, encode_varint};

/// A step from a message to what it contains.
pub(super) enum Step {
    Name(&'static str),
    Key(String),
    Index(usize),
}

/// What has been written, and where we are.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) out: Vec<u8>,
    pub(super) steps: Vec<Step>,
}

impl Writer {
    pub(super) fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.steps {
            match step {
                Step::Index(index) => path.push_str(&format!("[{index}]")),
                Step::Name(_) | Step::Key(_) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(match step {
                        Step::Key(key) => key,
                        Step::Name(name) => name,
                        Step::Index(_) => "",
                    });
                }
            }
        }
        path
    }

    pub(super) fn key(&mut self, number: u32, wire_type: WireType) {
        encode_key(number, wire_type, &mut self.out);
    }

    pub(super) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.key(number, WireType::LengthDelimited);
        encode_varint(bytes.len() as u64, &mut self.out);
        self.out.extend_from_slice(bytes);
    }

    /// A number without its key.
    pub(super) fn number(&mut self, number: Number) {
        match number {
            Number::Varint(value) => encode_varint(value, &mut self.out),
            Number::Four(bytes) => self.out.extend_from_slice(&bytes),
            Number::Eight(bytes) => self.out.extend_from_slice(&bytes),
        }
    }

    /// What `write` writes, with its length before it.
    pub(super) fn delimited<T>(&mut self, number: u32, write: impl FnOnce(&mut Self) -> T) -> T {
        self.key(number, WireType::LengthDelimited);
        let at = self.out.len();
        // Room for a short length; a long one moves what follows.
        self.out.push(0);
        let written = write(self);
        let from = at + 1;
        let end = self.out.len();
        let mut length = [0; 10];
        let size = {
            let mut rest = &mut length[..];
            encode_varint((end - from) as u64, &mut rest);
            10 - rest.len()
        };
        if size > 1 {
            self.out.resize(end + size - 1, 0);
            self.out.copy_within(from..end, at + size);
        }
        if let (Some(to), Some(length)) = (self.out.get_mut(at..at + size), length.get(..size)) {
            to.copy_from_slice(length);
        }
        written
    }
}

/// A number as it is encoded.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Varint(u64),
    Four([u8; 4]),
    Eight([u8; 8]),
}

impl Number {
    pub(super) fn is_zero(self) -> bool {
        match self {
            Self::Varint(value) => value == 0,
            Self::Four(bytes) => bytes == [0; 4],
            Self::Eight(bytes) => bytes == [0; 8],
        }
    }
}
