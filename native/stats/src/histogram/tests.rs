use super::*;

fn of(values: &[u64]) -> HistogramSnapshot {
    let cells = Cells::default();
    for &value in values {
        cells.record(value);
    }
    let mut snapshot = HistogramSnapshot::default();
    cells.add_to(&mut snapshot);
    snapshot
}

#[test]
fn values_land_in_the_bin_of_their_first_two_digits() {
    for (value, low, width) in [
        (0, 0.0, 0.0),
        (1, 1.0, 0.1),
        (9, 9.0, 0.1),
        (10, 10.0, 1.0),
        (127, 120.0, 10.0),
        (99_999, 99_000.0, 1000.0),
    ] {
        let snapshot = of(&[value]);
        let (found_low, found_width) = bounds(*snapshot.bins.keys().next().unwrap());
        assert!(
            (found_low - low).abs() < 1e-9 && (found_width - width).abs() < 1e-9,
            "{value}: {found_low} {found_width}"
        );
    }
}

#[test]
fn huge_values_are_kept_in_the_last_bin() {
    assert_eq!(of(&[u64::MAX, 999_999_999_999_999]).count(), 2);
}

#[test]
fn buckets_are_as_envoys() {
    let snapshot = of(&[0, 1, 5, 12, 3_700_000]);
    let counts: Vec<u64> = BUCKET_BOUNDS
        .iter()
        .map(|&bound| snapshot.count_below(bound))
        .collect();
    assert_eq!(counts[..5], [1, 2, 3, 3, 4]);
    assert_eq!(counts[18], 4);
    assert_eq!(snapshot.count(), 5);
}

/// What Envoy 1.40 printed for these values.
#[test]
fn quantiles_and_sum_are_envoys() {
    assert_eq!(of(&[]).quantile(0.5), None);
    let snapshot = of(&[1, 1, 1, 1, 1, 5]);
    let quantiles: Vec<String> = QUANTILES
        .iter()
        .map(|&quantile| snapshot.quantile(quantile).unwrap().to_string())
        .collect();
    assert_eq!(
        quantiles[..5],
        [
            "1.0166666666666666",
            "1.0333333333333334",
            "1.05",
            "1.0833333333333333",
            "5.05"
        ]
    );
    assert!((snapshot.sum() - 10.287_600_188_590_287).abs() < 1e-12);
}

#[test]
fn an_interval_is_the_difference() {
    let before = of(&[1, 2]);
    let after = of(&[1, 2, 2, 30]);
    assert_eq!(after.since(&before), of(&[2, 30]));
}
