//! Consistent hashing with bounded loads: a host that has its fill is passed over, in an order that the hash decides.

use crate::balance::HostLoad;

/// `host` if it has room, else the first with room of all others, else the least loaded.
pub(super) fn choose(
    hosts: &[(u32, f64)],
    host: u32,
    hash: u64,
    factor: u32,
    load: &impl HostLoad,
) -> u32 {
    let overload = |host: u32, weight: f64| {
        let slots =
            ((load.total_active().wrapping_add(1)).wrapping_mul(factor)).wrapping_add(99) / 100;
        let slots = ((f64::from(slots) * weight).ceil() as u32).max(1);
        f64::from(load.active_everywhere(host)) / f64::from(slots)
    };
    let weight = hosts
        .iter()
        .find(|(other, _)| *other == host)
        .map_or(1.0, |(_, weight)| *weight);
    let mut least = (overload(host, weight), host);
    if least.0 <= 1.0 {
        return host;
    }
    let mut order: Vec<u32> = (0..hosts.len() as u32).collect();
    let mut random = MersenneTwister::new(hash as u32);
    for i in 0..order.len() {
        let j = i + random.below((order.len() - i) as u32) as usize;
        order.swap(i, j);
        let Some(&(other, weight)) = order.get(i).and_then(|&at| hosts.get(at as usize)) else {
            continue;
        };
        if other == host {
            continue;
        }
        let factor = overload(other, weight);
        if factor <= 1.0 {
            return other;
        }
        if factor < least.0 {
            least = (factor, other);
        }
    }
    least.1
}

const WORDS: usize = 624;
const MIDDLE: usize = 397;

/// MT19937, for the same sequence as Envoy's. Only overloaded hosts ask for it.
struct MersenneTwister {
    state: Vec<u32>,
    at: usize,
}

impl MersenneTwister {
    fn new(seed: u32) -> Self {
        let mut state = Vec::with_capacity(WORDS);
        let mut word = seed;
        state.push(word);
        for index in 1..WORDS as u32 {
            word = (word ^ (word >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(index);
            state.push(word);
        }
        Self { state, at: WORDS }
    }

    fn word(&self, at: usize) -> u32 {
        self.state.get(at % WORDS).copied().unwrap_or_default()
    }

    fn twist(&mut self) {
        for at in 0..WORDS {
            let joined = (self.word(at) & 0x8000_0000) | (self.word(at + 1) & 0x7fff_ffff);
            let turned = (joined >> 1) ^ if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            let word = self.word(at + MIDDLE) ^ turned;
            if let Some(place) = self.state.get_mut(at) {
                *place = word;
            }
        }
        self.at = 0;
    }

    fn next(&mut self) -> u32 {
        if self.at == WORDS {
            self.twist();
        }
        let mut word = self.word(self.at);
        self.at += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// Uniform in `0..end`.
    fn below(&mut self, end: u32) -> u32 {
        let bucket = ((1_u64 << 32) / u64::from(end.max(1))).max(1);
        loop {
            let number = u64::from(self.next()) / bucket;
            if number < u64::from(end) || end == 0 {
                return number as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_twister_is_the_standards() {
        // C++ requires this of the 10,000th number of a default constructed one.
        let mut random = MersenneTwister::new(5489);
        let last = (0..10_000).map(|_| random.next()).last();
        assert_eq!(last, Some(4_123_659_995));
    }
}
