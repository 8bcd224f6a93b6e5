use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Moment {
    Moment::from_nanos(millis * 1_000_000)
}

#[test]
fn fires_in_order_and_never_early() {
    let mut wheel = TimerWheel::new(at(0));
    for millis in [
        5_000u64, 1, 63, 64, 65, 4095, 4096, 4097, 300_000, 3_600_000,
    ] {
        wheel.arm(at(millis), millis);
    }
    let mut fired = Vec::new();
    let mut now = 0;
    while let Some(timeout) = wheel.next_timeout(at(now)) {
        now += timeout.as_millis() as u64;
        let before = fired.len();
        wheel.advance(at(now), &mut fired);
        assert!(fired[before..].iter().all(|&due| due == now));
    }
    assert_eq!(
        fired,
        [1, 63, 64, 65, 4095, 4096, 4097, 5_000, 300_000, 3_600_000]
    );
    assert!(wheel.is_empty());
}

#[test]
fn a_part_of_a_millisecond_is_rounded_up() {
    let mut wheel = TimerWheel::new(at(0));
    wheel.arm(Moment::from_nanos(1_000_001), ());
    let mut fired = Vec::new();
    wheel.advance(Moment::from_nanos(1_999_999), &mut fired);
    assert!(fired.is_empty());
    wheel.advance(at(2), &mut fired);
    assert_eq!(fired.len(), 1);
}

#[test]
fn cancelled_timers_do_not_fire_and_stale_ids_do_nothing() {
    let mut wheel = TimerWheel::new(at(0));
    let first = wheel.arm(at(10), 1);
    assert_eq!(wheel.cancel(first), Some(1));
    let second = wheel.arm(at(10), 2);
    assert_eq!(wheel.cancel(first), None);
    assert!(wheel.is_armed(second));
    let mut fired = Vec::new();
    wheel.advance(at(20), &mut fired);
    assert_eq!(fired, [2]);
    assert_eq!(wheel.cancel(second), None);
}

#[test]
fn a_lazy_timer_moves_when_the_old_time_comes() {
    let mut wheel = TimerWheel::new(at(0));
    let mut timer = LazyTimer::new();
    timer.set(&mut wheel, at(10), ());
    timer.set(&mut wheel, at(50), ());
    assert_eq!(wheel.len(), 1);
    let mut fired = Vec::new();
    wheel.advance(at(10), &mut fired);
    assert_eq!(fired.len(), 1);
    assert!(!timer.fired(&mut wheel, at(10), ()));
    wheel.advance(at(49), &mut fired);
    assert_eq!(fired.len(), 1);
    wheel.advance(at(50), &mut fired);
    assert!(timer.fired(&mut wheel, at(50), ()));
    // Bringing it forward re-arms.
    timer.set(&mut wheel, at(500), ());
    timer.set(&mut wheel, at(100), ());
    assert_eq!(wheel.len(), 1);
    timer.cancel(&mut wheel);
    assert!(wheel.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Arm(u64),
    Cancel(usize),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u64..200_000).prop_map(Step::Arm),
        1 => (0u64..100).prop_map(Step::Arm),
        2 => (0usize..64).prop_map(Step::Cancel),
        3 => (0u64..10_000).prop_map(Step::Advance),
    ]
}

proptest! {
    #[test]
    fn behaves_like_a_sorted_map(start in 0u64..1_000_000, steps in prop::collection::vec(step(), 1..200)) {
        let mut wheel = TimerWheel::new(at(start));
        let mut model: BTreeMap<usize, (u64, TimerId)> = BTreeMap::new();
        let mut now = start;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Arm(ahead) => {
                    let id = wheel.arm(at(now + ahead), number);
                    model.insert(number, (now + ahead, id));
                }
                Step::Cancel(nth) => {
                    if let Some((&key, &(_, id))) = model.iter().nth(nth) {
                        prop_assert_eq!(wheel.cancel(id), Some(key));
                        model.remove(&key);
                    }
                }
                Step::Advance(by) => {
                    now += by;
                    let mut fired = Vec::new();
                    wheel.advance(at(now), &mut fired);
                    for key in fired {
                        let (due, _) = model.remove(&key).expect("armed");
                        prop_assert!(due <= now);
                    }
                    // A timer armed for the past is due in the next tick.
                    prop_assert!(model.values().all(|&(due, _)| due >= now || by == 0));
                }
            }
            prop_assert_eq!(wheel.len(), model.len());
            if let Some(timeout) = wheel.next_timeout(at(now)) {
                let earliest = model.values().map(|&(due, _)| due).min().unwrap();
                prop_assert!(now + timeout.as_millis() as u64 <= earliest.max(now + 1));
            } else {
                prop_assert!(model.is_empty());
            }
        }
    }
}
