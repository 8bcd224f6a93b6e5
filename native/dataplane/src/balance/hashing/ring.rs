//! RING_HASH: a ketama ring.

use tidegate_model::cluster::{RingHash, RingHashFunction};
use xxhash_rust::xxh64::xxh64;

use super::{TableStats, Weighted, murmur};

/// Points on the circle of all hashes, each of which takes what lies between it and the one before.
#[derive(Debug)]
pub(super) struct Ring {
    /// By hash.
    points: Vec<(u64, u32)>,
}

impl Ring {
    pub(super) fn build(hosts: &[Weighted<'_>], config: &RingHash) -> (Self, TableStats) {
        let least = hosts
            .iter()
            .fold(1.0_f64, |least, host| least.min(host.weight));
        // So many points that the host with the least weight has a whole number of them.
        let scale = ((least * config.minimum_ring_size as f64).ceil() / least)
            .min(config.maximum_ring_size as f64);
        let size = scale.ceil() as u64;
        let mut points = Vec::with_capacity(size as usize);
        let mut stats = TableStats {
            size,
            min_per_host: size,
            max_per_host: 0,
        };
        let mut key = String::new();
        // Shares need not come to whole points; running sums round over all hosts.
        let (mut placed, mut wanted) = (0.0_f64, 0.0_f64);
        for host in hosts {
            key.clear();
            key.push_str(host.key);
            key.push('_');
            let stem = key.len();
            wanted += scale * host.weight;
            let mut count = 0_u64;
            while placed < wanted {
                key.truncate(stem);
                key.push_str(itoa::Buffer::new().format(count));
                let hash = match config.hash_function {
                    RingHashFunction::XxHash => xxh64(key.as_bytes(), 0),
                    RingHashFunction::MurmurHash2 => murmur::hash(key.as_bytes()),
                };
                points.push((hash, host.host));
                count += 1;
                placed += 1.0;
            }
            stats.min_per_host = stats.min_per_host.min(count);
            stats.max_per_host = stats.max_per_host.max(count);
        }
        points.sort_unstable_by_key(|(hash, _)| *hash);
        (Self { points }, stats)
    }

    /// The first point at or behind the hash, round the circle.
    pub(super) fn choose(&self, hash: u64, attempt: u32) -> Option<u32> {
        let count = self.points.len();
        let mut at = self.points.partition_point(|(point, _)| *point < hash);
        if at == count {
            at = 0;
        }
        let at = at.wrapping_add(attempt as usize).checked_rem(count)?;
        self.points.get(at).map(|(_, host)| *host)
    }
}
