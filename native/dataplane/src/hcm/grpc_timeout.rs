//! `grpc-timeout`: reading it, and writing it anew. Envoy counts in milliseconds and rounds up.

use std::time::Duration;

use super::headers::HeaderList;
use tidegate_codec::h1::KnownHeader;

/// The largest amount that the header can say.
const MAX_AMOUNT: u64 = 99_999_999;

/// What the client asks for: `10S`, `500m` and so on.
pub(super) fn asked(headers: &HeaderList) -> Option<Duration> {
    parse(headers.known(KnownHeader::GrpcTimeout)?)
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let amount: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
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
}
