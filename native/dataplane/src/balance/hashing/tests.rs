use tidegate_model::cluster::RingHashFunction;

use super::*;
use crate::balance::tests::{NoLoad, Shape, endpoints};
use HealthStatus::{Healthy, Unhealthy};

fn config(policy: LbPolicy) -> BalancerConfig {
    BalancerConfig {
        policy,
        healthy_panic_threshold: 50,
        locality_weighted: false,
        fail_traffic_on_panic: false,
        use_hostname_for_hashing: false,
        hash_balance_factor: 0,
        slow_start: None,
    }
}

fn build(policy: LbPolicy, shape: Shape<'_>) -> HashTables {
    HashTables::build(&config(policy), &endpoints(shape), &|host| host.health).unwrap()
}

fn spread(tables: &HashTables, hosts: usize) -> Vec<usize> {
    let mut counts = vec![0; hosts];
    for key in 0..10_000_u64 {
        let hash = xxhash_rust::xxh64::xxh64(&key.to_le_bytes(), 0);
        counts[tables.choose(0, hash, 0, &NoLoad).unwrap() as usize] += 1;
    }
    counts
}

#[test]
fn tables_honour_weights_and_leave_the_sick_out() {
    let hosts = [(Healthy, 1), (Healthy, 2), (Unhealthy, 1), (Healthy, 1)];
    for policy in [
        LbPolicy::Maglev { table_size: 65_537 },
        LbPolicy::RingHash(RingHash::default()),
        LbPolicy::RingHash(RingHash {
            hash_function: RingHashFunction::MurmurHash2,
            ..RingHash::default()
        }),
    ] {
        let tables = build(policy, &[&[(1, &hosts)]]);
        let counts = spread(&tables, 4);
        assert_eq!(counts[2], 0);
        assert!(counts[1].abs_diff(5000) < 900, "{policy:?} {counts:?}");
    }
}

#[test]
fn a_host_that_leaves_moves_few_keys_but_its_own() {
    let before = [(Healthy, 1); 5];
    let mut after = before;
    after[4].0 = Unhealthy;
    let policy = LbPolicy::RingHash(RingHash::default());
    let (before, after) = (
        build(policy, &[&[(1, &before)]]),
        build(policy, &[&[(1, &after)]]),
    );
    let moved = (0..1000_u64).filter(|key| {
        let hash = xxhash_rust::xxh64::xxh64(&key.to_le_bytes(), 0);
        let host = before.choose(0, hash, 0, &NoLoad);
        host != Some(4) && after.choose(0, hash, 0, &NoLoad) != host
    });
    // The others get more points on the ring, which are new.
    assert!(moved.count() < 150);
}

#[test]
fn murmur_is_libstdcxxs() {
    // std::hash<std::string> of g++ on x86-64.
    assert_eq!(murmur::hash(b""), 6_142_509_188_972_423_790);
}
