//! `grpc-timeout`: how it is read and written, and what routes make of it.

use std::time::Duration;

use tidegate_model::route::MaxStreamDuration;

/// `10S`, `500m` and so on, of eight digits at most.
pub(in crate::hcm) fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let digits = std::str::from_utf8(digits).ok()?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        b'H' => Duration::from_secs(amount.saturating_mul(3600)),
        b'M' => Duration::from_secs(amount.saturating_mul(60)),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// In milliseconds, or the finest unit in which it has eight digits.
pub(in crate::hcm) fn text(timeout: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let mut amount = timeout.as_millis();
    let mut unit = 'm';
    for (next, per) in [('S', 1000), ('M', 60), ('H', 60)] {
        if amount > MOST {
            amount /= per;
            unit = next;
        }
    }
    format!("{}{unit}", amount.min(MOST))
}

/// The route's timeout by `max_grpc_timeout`; `None`: off. `cap`: none where it is zero.
pub(in crate::hcm) fn of_route(asked: Option<Duration>, cap: Option<Duration>) -> Option<Duration> {
    let asked = asked.filter(|asked| !asked.is_zero());
    match (asked, cap) {
        (Some(asked), Some(cap)) => Some(asked.min(cap)),
        (asked, cap) => asked.or(cap),
    }
}

/// How long a stream may live by its route's `max_stream_duration` and the connection manager's; `None`: for ever.
pub(in crate::hcm) fn of_stream(
    asked: Option<Duration>,
    route: Option<&MaxStreamDuration>,
    manager: Option<Duration>,
) -> Option<Duration> {
    let header_max = route.and_then(|route| route.grpc_timeout_header_max);
    if let (Some(asked), Some(cap)) = (asked, header_max) {
        let timeout = cap.map_or(asked, |cap| asked.min(cap));
        let offset = route.and_then(|route| route.grpc_timeout_header_offset);
        return Some(timeout.saturating_sub(offset.unwrap_or_default()));
    }
    match route.and_then(|route| route.max_stream_duration) {
        Some(of_route) => of_route,
        None => manager,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn read_and_written() {
        assert_eq!(parse(b"2S"), Some(millis(2000)));
        assert_eq!(parse(b"15m"), Some(millis(15)));
        for bad in [&b"15"[..], b"", b"m", b"-1m", b"1x", b"123456789m"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        for (timeout, expected) in [
            (millis(0), "0m"),
            (millis(1500), "1500m"),
            (millis(99_999_999), "99999999m"),
            (millis(100_000_000), "100000S"),
            (Duration::from_secs(100_000_000), "1666666M"),
            (Duration::from_hours(200_000_000), "99999999H"),
        ] {
            assert_eq!(text(timeout), expected);
        }
    }

    #[test]
    fn a_cap_stands_in_for_what_is_not_asked() {
        let (short, long) = (Some(millis(5)), Some(millis(50)));
        assert_eq!(of_route(long, short), short);
        assert_eq!(of_route(short, long), short);
        assert_eq!(of_route(None, short), short);
        assert_eq!(of_route(Some(millis(0)), short), short);
        assert_eq!(of_route(short, None), short);
        assert_eq!(of_route(None, None), None);
    }

    #[test]
    fn the_life_of_a_stream() {
        let route = |max, header_max, offset| MaxStreamDuration {
            max_stream_duration: max,
            grpc_timeout_header_max: header_max,
            grpc_timeout_header_offset: offset,
        };
        let (asked, manager) = (Some(millis(100)), Some(millis(7)));
        assert_eq!(of_stream(asked, None, manager), manager);
        let plain = route(Some(Some(millis(9))), None, None);
        assert_eq!(of_stream(asked, Some(&plain), manager), Some(millis(9)));
        let off = route(Some(None), None, None);
        assert_eq!(of_stream(asked, Some(&off), manager), None);
        let header = route(Some(None), Some(None), Some(millis(30)));
        assert_eq!(of_stream(asked, Some(&header), manager), Some(millis(70)));
        assert_eq!(of_stream(None, Some(&header), manager), None);
        let capped = route(None, Some(Some(millis(20))), Some(millis(30)));
        assert_eq!(of_stream(asked, Some(&capped), manager), Some(millis(0)));
        assert_eq!(of_stream(None, Some(&capped), manager), manager);
    }
}
