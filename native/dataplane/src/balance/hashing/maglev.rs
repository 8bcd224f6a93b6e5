//! MAGLEV: a table of fixed size whose entries the hosts take in turns, each by its own permutation.

use xxhash_rust::xxh64::xxh64;

use super::{TableStats, Weighted};

/// The table: places in `hosts`, in the fewest bytes that will do, for there may be many such tables.
#[derive(Debug)]
pub(super) struct Maglev {
    entries: Entries,
    hosts: Vec<u32>,
}

#[derive(Debug)]
enum Entries {
    Bytes(Vec<u8>),
    Shorts(Vec<u16>),
    Words(Vec<u32>),
}

impl Entries {
    fn new(entries: Vec<u32>, hosts: usize) -> Self {
        if hosts <= 1 << 8 {
            Self::Bytes(entries.into_iter().map(|entry| entry as u8).collect())
        } else if hosts <= 1 << 16 {
            Self::Shorts(entries.into_iter().map(|entry| entry as u16).collect())
        } else {
            Self::Words(entries)
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Bytes(entries) => entries.len(),
            Self::Shorts(entries) => entries.len(),
            Self::Words(entries) => entries.len(),
        }
    }

    fn get(&self, at: usize) -> Option<usize> {
        match self {
            Self::Bytes(entries) => entries.get(at).map(|entry| usize::from(*entry)),
            Self::Shorts(entries) => entries.get(at).map(|entry| usize::from(*entry)),
            Self::Words(entries) => entries.get(at).map(|entry| *entry as usize),
        }
    }
}

/// A host while the table is filled.
struct Filling {
    offset: u64,
    skip: u64,
    weight: f64,
    /// It takes its next entry in the round in which its weight has come to this.
    target: f64,
    next: u64,
    count: u64,
}

const FREE: u32 = u32::MAX;

impl Maglev {
    /// `size`: prime.
    pub(super) fn build(hosts: &[Weighted<'_>], size: u64) -> (Self, TableStats) {
        // Of one host there is nothing to choose.
        let size = if hosts.len() < 2 { 1 } else { size.max(2) };
        // In an order of their own, so that another order of the same hosts makes the same table.
        let mut hosts = hosts.to_vec();
        hosts.sort_by(|a, b| a.key.cmp(b.key));
        let most = hosts
            .iter()
            .fold(0.0_f64, |most, host| most.max(host.weight));
        let mut filling: Vec<Filling> = hosts
            .iter()
            .map(|host| Filling {
                offset: xxh64(host.key.as_bytes(), 0) % size,
                skip: xxh64(host.key.as_bytes(), 1) % (size - 1).max(1) + 1,
                weight: host.weight,
                target: 0.0,
                next: 0,
                count: 0,
            })
            .collect();
        let mut entries = vec![FREE; size as usize];
        let mut filled = 0;
        let mut round = 1.0_f64;
        while filled < size {
            for (index, host) in filling.iter_mut().enumerate() {
                if filled == size {
                    break;
                }
                if round * host.weight < host.target {
                    continue;
                }
                host.target += most;
                // The size is prime: the permutation comes to every entry, and one is free.
                loop {
                    let at = (u128::from(host.skip) * u128::from(host.next)
                        + u128::from(host.offset))
                        % u128::from(size);
                    host.next += 1;
                    if let Some(entry) = entries.get_mut(at as usize)
                        && *entry == FREE
                    {
                        *entry = index as u32;
                        break;
                    }
                }
                host.count += 1;
                filled += 1;
            }
            round += 1.0;
        }
        let counts = || filling.iter().map(|host| host.count);
        let stats = TableStats {
            size: 0,
            min_per_host: counts().min().unwrap_or(0),
            max_per_host: counts().max().unwrap_or(0),
        };
        let table = Self {
            entries: Entries::new(entries, hosts.len()),
            hosts: hosts.iter().map(|host| host.host).collect(),
        };
        (table, stats)
    }

    pub(super) fn choose(&self, hash: u64, attempt: u32) -> Option<u32> {
        // Another attempt shall find another host: most bits change.
        let hash = if attempt > 0 {
            hash ^ u64::from(attempt).wrapping_neg()
        } else {
            hash
        };
        let at = hash.checked_rem(self.entries.len() as u64)?;
        self.hosts.get(self.entries.get(at as usize)?).copied()
    }
}
