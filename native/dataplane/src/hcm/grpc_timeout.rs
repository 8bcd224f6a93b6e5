//! `grpc-timeout`: reading it, and writing it anew. Envoy counts in milliseconds and rounds up.

use std::time::Duration;

use tidegate_codec::h1::KnownHeader;
use tidegate_model::route::MaxStreamDuration;

use super::headers::HeaderList;

/// The largest amount that the header can say.
const MAX_AMOUNT: u64 = 99_999_999;

/// What the client asks for: `10S`, `500m` and so on, of eight digits at most.
pub(super) fn asked(headers: &HeaderList) -> Option<Duration> {
    parse(headers.known(KnownHeader::GrpcTimeout)?)
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let digits = std::str::from_utf8(digits).ok()?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    let millis = match unit {
        b'H' => amount.saturating_mul(3_600_000),
        b'M' => amount.saturating_mul(60_000),
        b'S' => amount.saturating_mul(1_000),
        b'm' => amount,
        b'u' => amount.div_ceil(1_000),
        b'n' => amount.div_ceil(1_000_000),
        _ => return None,
    };
    Some(Duration::from_millis(millis))
}

/// The route's timeout by `max_grpc_timeout`; `None`: off. `cap`: none where it is zero.
pub(super) fn of_route(asked: Option<Duration>, cap: Option<Duration>) -> Option<Duration> {
    let asked = asked.filter(|asked| !asked.is_zero());
    match (asked, cap) {
        (Some(asked), Some(cap)) => Some(asked.min(cap)),
        (asked, cap) => asked.or(cap),
    }
}

/// How long a stream may live by its route's `max_stream_duration` and the connection manager's; `None`: for ever.
pub(super) fn of_stream(
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

/// Tells the upstream how long the answer may take.
pub(super) fn tell(headers: &mut HeaderList, timeout: Duration) {
    let mut amount = timeout.as_millis() as u64;
    let mut units = b"mSMH".iter();
    let mut unit = units.next();
    if amount > MAX_AMOUNT {
        amount /= 1_000;
        unit = units.next();
    }
    while amount > MAX_AMOUNT {
        match units.next() {
            Some(next) => {
                amount /= 60;
                unit = Some(next);
            }
            None => amount = MAX_AMOUNT,
        }
    }
    let mut text = itoa::Buffer::new().format(amount).as_bytes().to_vec();
    text.extend(unit);
    headers.set_known(KnownHeader::GrpcTimeout, &text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_and_written() {
        assert_eq!(parse(b"2S"), Some(Duration::from_secs(2)));
        assert_eq!(parse(b"15m"), Some(Duration::from_millis(15)));
        assert_eq!(parse(b"1500u"), Some(Duration::from_millis(2)));
        assert_eq!(parse(b"1n"), Some(Duration::from_millis(1)));
        assert_eq!(parse(b"15"), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"123456789m"), None);
        let mut headers = HeaderList::default();
        for (timeout, text) in [
            (Duration::from_millis(200), &b"200m"[..]),
            (Duration::from_secs(100_000), b"100000S"),
            (Duration::from_secs(100_000_000), b"1666666M"),
        ] {
            tell(&mut headers, timeout);
            assert_eq!(headers.known(KnownHeader::GrpcTimeout), Some(text));
        }
    }

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
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
