//! The random numbers of load balancing and sampling: fast, per thread, not for secrets.

/// A per-thread generator (wyrand), seeded from the process's random state.
#[derive(Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    pub fn new() -> Self {
        Self(fastrand::Rng::new())
    }

    /// A generator with a known sequence, for tests.
    pub fn with_seed(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// Uniform in `0..bound`; zero when `bound` is zero.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.u64(..bound) }
    }

    /// Sixteen random bytes, for request ids.
    #[inline]
    pub fn next_u128(&mut self) -> u128 {
        self.0.u128(..)
    }
}

impl Default for Rng {
    fn default() -> Self {
        Self::new()
    }
}
