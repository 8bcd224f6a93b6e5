//! The poller: epoll, edge-triggered for connections and level-triggered for listening sockets and wake-ups.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Whom an event is for: a slot, the slot's generation (a stale event is recognised by it) and, where one slot owns
/// several descriptors, which of them (`side`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    pub index: u32,
    /// 24 bits.
    pub generation: u32,
    pub side: u8,
}

impl Token {
    pub const GENERATION_MASK: u32 = 0x00ff_ffff;

    const fn pack(self) -> u64 {
        (self.index as u64) << 32
            | ((self.generation & Self::GENERATION_MASK) as u64) << 8
            | self.side as u64
    }

    const fn unpack(data: u64) -> Self {
        Self {
            index: (data >> 32) as u32,
            generation: (data >> 8) as u32 & Self::GENERATION_MASK,
            side: data as u8,
        }
    }
}

/// What happened to a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness(EventFlags);

impl Readiness {
    /// There is something to read: bytes, an end or an error.
    #[inline]
    pub const fn readable(self) -> bool {
        self.0.intersects(
            EventFlags::IN
                .union(EventFlags::RDHUP)
                .union(EventFlags::HUP)
                .union(EventFlags::ERR),
        )
    }

    /// A write would make progress or fail.
    #[inline]
    pub const fn writable(self) -> bool {
        self.0.intersects(
            EventFlags::OUT
                .union(EventFlags::HUP)
                .union(EventFlags::ERR),
        )
    }

    /// The peer will send no more (what it sent before may still be unread).
    #[inline]
    pub const fn read_closed(self) -> bool {
        self.0.intersects(EventFlags::RDHUP.union(EventFlags::HUP))
    }

    /// Both directions are over, or the connection was reset or refused.
    #[inline]
    pub const fn hung_up(self) -> bool {
        self.0.intersects(EventFlags::HUP.union(EventFlags::ERR))
    }

    /// The connection was reset or refused; `Socket::take_error` tells which.
    #[inline]
    pub const fn error(self) -> bool {
        self.0.contains(EventFlags::ERR)
    }
}

/// An epoll instance and its event buffer.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
    busy_poll: Duration,
}

impl Poller {
    /// `capacity`: events taken per pass.
    pub fn new(capacity: usize) -> Result<Self, Errno> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(capacity.max(1)),
            busy_poll: Duration::ZERO,
        })
    }

    /// Before it sleeps, a wait polls so long: an answer that comes within that time finds the thread awake. It costs at
    /// most that much CPU time per sleep, so an idle loop costs nothing.
    pub const fn set_busy_poll(&mut self, busy_poll: Duration) {
        self.busy_poll = busy_poll;
    }

    /// Watches a connection in both directions, edge-triggered. The handler reads and writes until the socket says
    /// that it would block. Closing the descriptor ends the watch.
    pub fn add(&self, fd: impl AsFd, token: Token) -> Result<(), Errno> {
        epoll::add(
            &self.epoll,
            fd,
            EventData::new_u64(token.pack()),
            EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
        )
    }

    /// Watches for input only, level-triggered: listening sockets and wakers. `exclusive`: several loops watch the
    /// same socket and one of them shall be woken.
    pub fn add_level(&self, fd: impl AsFd, token: Token, exclusive: bool) -> Result<(), Errno> {
        let mut flags = EventFlags::IN;
        if exclusive {
            flags |= EventFlags::EXCLUSIVE;
        }
        epoll::add(&self.epoll, fd, EventData::new_u64(token.pack()), flags)
    }

    /// Gives a watched connection a new owner. Re-arming reports the current state once more.
    pub fn retarget(&self, fd: impl AsFd, token: Token) -> Result<(), Errno> {
        epoll::modify(
            &self.epoll,
            fd,
            EventData::new_u64(token.pack()),
            EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
        )
    }

    /// Ends a watch while the descriptor stays open.
    pub fn remove(&self, fd: impl AsFd) -> Result<(), Errno> {
        epoll::delete(&self.epoll, fd)
    }

    /// Waits for events, at most `timeout` (rounded up to milliseconds; `None`: for ever). A signal ends the wait
    /// with no events. Events are then taken with [`Poller::event`].
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<usize, Errno> {
        let busy = timeout.map_or(self.busy_poll, |timeout| timeout.min(self.busy_poll));
        if !busy.is_zero() {
            let start = Instant::now();
            while start.elapsed() < busy {
                let count = self.wait_once(Some(Duration::ZERO))?;
                if count > 0 {
                    return Ok(count);
                }
            }
        }
        self.wait_once(timeout)
    }

    #[inline]
    fn wait_once(&mut self, timeout: Option<Duration>) -> Result<usize, Errno> {
        let timeout = timeout.map(|timeout| {
            let millis = timeout.as_nanos().div_ceil(1_000_000).min(3_600_000) as i64;
            Timespec {
                tv_sec: millis / 1000,
                tv_nsec: (millis % 1000) * 1_000_000,
            }
        });
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            timeout.as_ref(),
        ) {
            Ok(count) => Ok(count),
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// The `i`th event of the last wait.
    #[inline]
    pub fn event(&self, i: usize) -> Option<(Token, Readiness)> {
        let event = *self.events.get(i)?;
        Some((Token::unpack(event.data.u64()), Readiness(event.flags)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_poll_ends_with_an_event_or_the_timeout() {
        let mut poller = Poller::new(4).unwrap();
        poller.set_busy_poll(Duration::from_millis(20));
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let token = Token {
            index: 1,
            generation: 1,
            side: 0,
        };
        poller.add_level(&far, token, false).unwrap();
        let start = Instant::now();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), 0);
        assert!(start.elapsed() < Duration::from_millis(15));
        assert_eq!(poller.wait(Some(Duration::from_millis(30))).unwrap(), 0);
        assert!(start.elapsed() >= Duration::from_millis(30));
        std::io::Write::write_all(&mut near, b"x").unwrap();
        assert_eq!(poller.wait(None).unwrap(), 1);
        assert_eq!(poller.event(0).unwrap().0, token);
    }

    #[test]
    fn tokens_survive_packing() {
        for token in [
            Token {
                index: 0,
                generation: 0,
                side: 0,
            },
            Token {
                index: u32::MAX,
                generation: Token::GENERATION_MASK,
                side: 255,
            },
            Token {
                index: 77,
                generation: 3,
                side: 1,
            },
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
