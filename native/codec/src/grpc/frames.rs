//! Messages of a gRPC body: a byte of flags, four of length, and so many bytes.

/// Follows a body through pieces of any size.
///
/// ```text
///          flags         4 bytes         length bytes
///  ┌──▶ Flags ───▶ Length ───▶ Payload ───┐
///  └─────────────────◀────────────────────┘   (no payload: at once)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Frames {
    state: State,
    started: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Flags,
    Length {
        have: u8,
        value: u32,
    },
    Payload {
        left: u32,
    },
}

impl Frames {
    /// Messages begun so far.
    pub const fn started(&self) -> u64 {
        self.started
    }

    /// Between two messages.
    pub fn is_at_boundary(&self) -> bool {
        self.state == State::Flags
    }

    /// Goes through a piece of the body; how many messages begin in it.
    pub fn feed(&mut self, mut data: &[u8]) -> u64 {
        let before = self.started;
        while !data.is_empty() {
            let (used, _) = self.feed_one(data);
            data = data.get(used..).unwrap_or_default();
        }
        self.started - before
    }

    /// Goes no further than the end of the present message; how far that was, and whether the end was reached.
    pub fn feed_one(&mut self, data: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while let Some(rest) = data.get(at..)
            && let Some(byte) = rest.first()
        {
            match &mut self.state {
                State::Flags => {
                    self.started += 1;
                    self.state = State::Length { have: 0, value: 0 };
                    at += 1;
                    continue;
                }
                State::Length { have, value } => {
                    *value = (*value << 8) | u32::from(*byte);
                    *have += 1;
                    at += 1;
                    if *have < 4 {
                        continue;
                    }
                    self.state = State::Payload { left: *value };
                }
                State::Payload { left } => {
                    let used = rest.len().min(*left as usize);
                    *left -= used as u32;
                    at += used;
                }
            }
            if self.state == (State::Payload { left: 0 }) {
                self.state = State::Flags;
                return (at, true);
            }
        }
        (at, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(length.to_be_bytes());
        message.extend(vec![b'x'; length as usize]);
        message
    }

    #[test]
    fn messages_are_counted_where_they_begin() {
        let body = [message(3), message(0), message(300), message(1)].concat();
        for size in [1, 2, 3, 4, 5, 7, 64, body.len()] {
            let mut frames = Frames::default();
            let told: u64 = body.chunks(size).map(|piece| frames.feed(piece)).sum();
            assert_eq!((told, frames.started()), (4, 4), "pieces of {size}");
            assert!(frames.is_at_boundary());
        }
        let mut frames = Frames::default();
        assert_eq!(frames.feed(&[0]), 1);
        assert!(!frames.is_at_boundary());
        assert_eq!(frames.feed(&u32::MAX.to_be_bytes()), 0);
        assert_eq!(frames.feed(&[0; 100]), 0);
    }

    #[test]
    fn ends_are_found_one_by_one() {
        let body = [message(2), message(0)].concat();
        let mut frames = Frames::default();
        assert_eq!(frames.feed_one(&body[..6]), (6, false));
        assert_eq!(frames.feed_one(&body[6..]), (1, true));
        assert_eq!(frames.feed_one(&body[7..]), (5, true));
        assert_eq!(frames.feed_one(&[]), (0, false));
    }
}
