//! Trace context in B3's headers, several or one, as Zipkin's propagation has them.
//!
//! Pure: headers in, headers out. Malformed ids are as good as none.

use super::context::{Context, hex};
use crate::hcm::headers::HeaderList;

const TRACE_ID: &[u8] = b"x-b3-traceid";
const SPAN_ID: &[u8] = b"x-b3-spanid";
const PARENT_SPAN_ID: &[u8] = b"x-b3-parentspanid";
const SAMPLED: &[u8] = b"x-b3-sampled";
const FLAGS: &[u8] = b"x-b3-flags";
const SINGLE: &[u8] = b"b3";

/// What a request brings along.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Extracted {
    pub(crate) context: Option<Context>,
    /// Told without a context.
    pub(crate) sampled: Option<bool>,
    pub(crate) single_header: bool,
}

impl Context {
    /// Puts the context into headers, in the form in which it came.
    pub(crate) fn inject(&self, headers: &mut HeaderList, single: bool) {
        let sampled: &[u8] = if self.sampled { b"1" } else { b"0" };
        let mut trace = [0; 32];
        let (trace, id) = (self.trace_id(&mut trace), hex(self.id));
        let parent = self.parent.map(hex);
        if single {
            let parts = [trace, &id, sampled].into_iter();
            let parts: Vec<&[u8]> = parts.chain(parent.as_ref().map(|id| &id[..])).collect();
            headers.set(SINGLE, &parts.join(&b'-'));
            return;
        }
        headers.set(TRACE_ID, trace);
        headers.set(SPAN_ID, &id);
        match parent {
            Some(parent) => headers.set(PARENT_SPAN_ID, &parent),
            None => {
                headers.remove(PARENT_SPAN_ID);
            }
        }
        headers.set(SAMPLED, sampled);
    }
}

/// The context of a request; `traced` is what this proxy has decided, for a context that does not say.
pub(crate) fn extract(headers: &HeaderList, traced: bool) -> Extracted {
    if let Some(value) = headers.get(SINGLE) {
        let (context, sampled) = single(value, traced);
        return Extracted {
            context,
            sampled,
            single_header: true,
        };
    }
    let debug = headers.get(FLAGS) == Some(b"1");
    let sampled = headers
        .get(SAMPLED)
        .map(|value| value == b"1" || value.eq_ignore_ascii_case(b"true"));
    let sampled = if debug { Some(true) } else { sampled };
    let found = headers
        .get(TRACE_ID)
        .and_then(trace_id)
        .zip(headers.get(SPAN_ID).and_then(id));
    let context = found.map(|((trace_high, trace), id)| Context {
        trace_high,
        trace,
        id,
        parent: headers.get(PARENT_SPAN_ID).and_then(self::id),
        sampled: sampled.unwrap_or(traced),
    });
    Extracted {
        context,
        sampled,
        single_header: false,
    }
}

/// `{trace}-{span}[-{sampled}[-{parent}]]`, or `{sampled}` alone.
fn single(value: &[u8], traced: bool) -> (Option<Context>, Option<bool>) {
    let told = |state: &[u8]| match state {
        b"1" | b"d" => Some(true),
        b"0" => Some(false),
        _ => None,
    };
    if value.len() == 1 {
        return (None, told(value));
    }
    let mut parts = value.split(|byte| *byte == b'-');
    let trace = parts.next().and_then(trace_id);
    let span = parts.next().and_then(id);
    let sampled = parts.next().and_then(told);
    let parent = parts.next().and_then(id);
    let context = trace.zip(span).map(|((trace_high, trace), id)| Context {
        trace_high,
        trace,
        id,
        parent,
        sampled: sampled.unwrap_or(traced),
    });
    (context, sampled)
}

fn id(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.is_empty() || text.len() > 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// The upper and the lower half.
fn trace_id(text: &[u8]) -> Option<(u64, u64)> {
    if text.len() <= 16 {
        return Some((0, id(text)?));
    }
    let (high, low) = text.split_at_checked(text.len().checked_sub(16)?)?;
    Some((id(high)?, id(low)?))
}

#[cfg(test)]
mod tests {
    use tidegate_rt::Rng;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderList {
        let mut list = HeaderList::default();
        for (name, value) in pairs {
            list.add(name.as_bytes(), value.as_bytes());
        }
        list
    }

    fn told(list: &HeaderList) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        list.pairs()
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    #[test]
    fn several_headers_there_and_back() {
        let given = [
            ("x-b3-traceid", "0123456789abcdef0123456789abcde0"),
            ("x-b3-spanid", "1111111111111111"),
            ("x-b3-parentspanid", "2222222222222222"),
            ("x-b3-sampled", "1"),
        ];
        let context = extract(&headers(&given), false).context.unwrap();
        assert!(context.sampled);
        let mut out = HeaderList::default();
        context.inject(&mut out, false);
        assert_eq!(
            told(&out),
            given.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        let child = context.child(&mut Rng::with_seed(1));
        assert_eq!(
            (child.trace, child.parent),
            (context.trace, Some(context.id))
        );
    }

    #[test]
    fn one_header() {
        let value = "0123456789abcdef-1111111111111111-0-2222222222222222";
        let found = extract(&headers(&[("b3", value)]), true);
        let context = found.context.unwrap();
        assert!(found.single_header && !context.sampled);
        let mut out = HeaderList::default();
        context.inject(&mut out, true);
        assert_eq!(told(&out), [("b3".to_owned(), value.to_owned())]);
        let denied = extract(&headers(&[("b3", "0")]), true);
        assert_eq!((denied.context, denied.sampled), (None, Some(false)));
    }

    #[test]
    fn what_is_malformed_is_not_there() {
        for (name, value) in [
            ("x-b3-traceid", "xyz"),
            ("x-b3-traceid", ""),
            ("x-b3-spanid", "1"),
            ("b3", "a-"),
            ("b3", ""),
        ] {
            assert_eq!(
                extract(&headers(&[(name, value)]), true).context,
                None,
                "{name}: {value}"
            );
        }
    }
}
