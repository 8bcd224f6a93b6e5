//! Trace context as W3C has it: `traceparent` and `tracestate`.
//!
//! Pure: headers in, headers out.

use super::context::{Context, hex};
use crate::hcm::headers::HeaderList;

const TRACE_PARENT: &[u8] = b"traceparent";
const TRACE_STATE: &[u8] = b"tracestate";

/// `00-{32 digits}-{16 digits}-{2 digits}`
const LENGTH: usize = 55;

/// What a request brings along.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Extracted {
    Nothing,
    /// The caller's span, and the list that goes with the trace.
    Parent(Context, Vec<u8>),
    /// It is passed on as it came, and nothing is traced.
    Malformed,
}

pub(super) fn extract(headers: &HeaderList) -> Extracted {
    let Some(parent) = headers.get(TRACE_PARENT) else {
        return Extracted::Nothing;
    };
    match read(parent) {
        Some(context) => {
            let state = headers.get(TRACE_STATE).unwrap_or_default();
            Extracted::Parent(context, state.to_vec())
        }
        None => Extracted::Malformed,
    }
}

/// Any version, as long as it has this form.
fn read(text: &[u8]) -> Option<Context> {
    if text.len() != LENGTH {
        return None;
    }
    let mut parts = text.split(|byte| *byte == b'-');
    let mut digits = |count: usize| {
        let part = parts.next().filter(|part| part.len() == count)?;
        let valid = part.iter().all(u8::is_ascii_hexdigit);
        let part = std::str::from_utf8(part).ok().filter(|_| valid)?;
        u128::from_str_radix(part, 16).ok()
    };
    let (_version, trace, id, flags) = (digits(2)?, digits(32)?, digits(16)?, digits(2)?);
    (trace != 0 && id != 0).then_some(Context {
        trace_high: (trace >> 64) as u64,
        trace: trace as u64,
        id: id as u64,
        parent: None,
        sampled: flags & 1 == 1,
    })
}

/// Tells the upstream of the span.
pub(super) fn inject(context: &Context, state: &[u8], headers: &mut HeaderList) {
    let mut parent = Vec::with_capacity(LENGTH);
    parent.extend_from_slice(b"00-");
    parent.extend_from_slice(&hex(context.trace_high));
    parent.extend_from_slice(&hex(context.trace));
    parent.push(b'-');
    parent.extend_from_slice(&hex(context.id));
    parent.extend_from_slice(if context.sampled { b"-01" } else { b"-00" });
    headers.set(TRACE_PARENT, &parent);
    headers.set(TRACE_STATE, state);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0123456789abcdef0123456789abcde0";

    fn headers(parent: &str) -> HeaderList {
        let mut list = HeaderList::default();
        list.add(TRACE_PARENT, parent.as_bytes());
        list.add(TRACE_STATE, b"a=b");
        list
    }

    #[test]
    fn there_and_back() {
        let given = format!("00-{TRACE}-1111111111111111-01");
        let Extracted::Parent(context, state) = extract(&headers(&given)) else {
            panic!("not read");
        };
        assert!(context.sampled);
        let mut out = HeaderList::default();
        inject(&context, &state, &mut out);
        assert_eq!(out.get(TRACE_PARENT), Some(given.as_bytes()));
        assert_eq!(out.get(TRACE_STATE), Some(&b"a=b"[..]));
        assert_eq!(extract(&HeaderList::default()), Extracted::Nothing);
    }

    #[test]
    fn malformed() {
        let zeros = "0".repeat(32);
        for text in [
            "",
            "00-zz-11-01",
            &format!("00-{zeros}-1111111111111111-01"),
            &format!("00-{TRACE}-0000000000000000-01"),
            &format!("0x-{TRACE}-1111111111111111-01"),
            &format!("00-{TRACE}-1111111111111111-0"),
            &format!("00-{TRACE}1-111111111111111-01"),
        ] {
            assert_eq!(extract(&headers(text)), Extracted::Malformed, "{text}");
        }
    }
}
