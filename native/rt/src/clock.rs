//! The clock: read once per loop pass, used from the cache by every handler.

use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A point on the monotonic clock, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Moment(u64);

impl Moment {
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn nanos(self) -> u64 {
        self.0
    }

    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Time elapsed since `earlier`; zero if `earlier` is later.
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    #[inline]
    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Moment {
    type Output = Duration;

    #[inline]
    fn sub(self, rhs: Self) -> Duration {
        self.since(rhs)
    }
}

/// The cached time of a loop pass.
#[derive(Debug)]
pub struct Clock {
    now: Moment,
    /// Wall clock minus monotonic clock, in nanoseconds; taken anew every second or so, since the wall clock may step.
    wall_offset: i128,
    offset_taken: Moment,
}

impl Clock {
    pub fn new() -> Self {
        let now = monotonic();
        Self {
            now,
            wall_offset: wall_offset(now),
            offset_taken: now,
        }
    }

    /// Reads the clock; the loop calls it once per pass, after waiting.
    #[inline]
    pub fn update(&mut self) {
        self.now = monotonic();
        if self.now.since(self.offset_taken) > Duration::from_secs(1) {
            self.wall_offset = wall_offset(self.now);
            self.offset_taken = self.now;
        }
    }

    /// The time of this pass.
    #[inline]
    pub const fn now(&self) -> Moment {
        self.now
    }

    /// The wall-clock time of this pass.
    #[inline]
    pub fn wall(&self) -> SystemTime {
        self.wall_of(self.now)
    }

    /// The wall-clock time of a moment.
    pub fn wall_of(&self, moment: Moment) -> SystemTime {
        let nanos = i128::from(moment.0) + self.wall_offset;
        UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    /// The clock itself, for durations below a pass (rare: a handler normally uses [`Clock::now`]).
    pub fn precise() -> Moment {
        monotonic()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

fn monotonic() -> Moment {
    let time = clock_gettime(ClockId::Monotonic);
    Moment(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

fn wall_offset(now: Moment) -> i128 {
    let time = clock_gettime(ClockId::Realtime);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec) - i128::from(now.0)
}
