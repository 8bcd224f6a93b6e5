//! A span as Zipkin's API v2 has it in JSON.
//!
//! Pure formatting; names and values come from outside and are escaped here.

use std::io::Write as _;
use std::time::UNIX_EPOCH;

use super::{Each, Kind, Record};

/// Who reports.
pub(super) struct Endpoint<'a> {
    pub(super) service: &'a str,
    pub(super) address: &'a str,
}

pub(super) fn write(
    out: &mut Vec<u8>,
    record: &Record<'_>,
    shared: bool,
    endpoint: Endpoint<'_>,
    tags: Each<'_>,
) {
    let moments = &record.moments;
    // A server's span ends with what it sends, a client's with what it has received.
    let (kind, end) = match record.kind {
        Kind::Server => ("SERVER", "ss"),
        Kind::Client => ("CLIENT", "cr"),
    };
    let context = &record.context;
    let begun = moments.begun.duration_since(UNIX_EPOCH).unwrap_or_default();
    out.extend_from_slice(br#"{"traceId":""#);
    out.extend_from_slice(context.trace_id(&mut [0; 32]));
    // Writing to a Vec cannot fail.
    let _ = write!(out, r#"","id":"{:016x}","#, context.id);
    if let Some(parent) = context.parent {
        let _ = write!(out, r#""parentId":"{parent:016x}","#);
    }
    if shared && record.kind == Kind::Server {
        // Envoy says so of every server's span, also where no client has one of the same id.
        out.extend_from_slice(br#""shared":true,"#);
    }
    out.extend_from_slice(br#""name":"#);
    string(out, record.operation);
    let _ = write!(
        out,
        r#","kind":"{kind}","timestamp":{},"duration":{},"annotations":[{{"timestamp":{},"value":"{end}"}}],"localEndpoint":{{"serviceName":"#,
        begun.as_micros(),
        moments.took.as_micros(),
        (begun + moments.took).as_micros(),
    );
    string(out, endpoint.service.as_bytes());
    let family = if endpoint.address.contains(':') {
        "ipv6"
    } else {
        "ipv4"
    };
    let _ = write!(
        out,
        r#","{family}":"{}","port":0}},"tags":{{"#,
        endpoint.address
    );
    let mut first = true;
    tags(&mut |name, value| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        string(out, name.as_bytes());
        out.push(b':');
        string(out, value);
    });
    out.extend_from_slice(b"}}");
}

/// A JSON string; bytes that are no UTF-8 are replaced.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '"' => out.extend_from_slice(br#"\""#),
            '\\' => out.extend_from_slice(br"\\"),
            '\n' => out.extend_from_slice(br"\n"),
            '\r' => out.extend_from_slice(br"\r"),
            '\t' => out.extend_from_slice(br"\t"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => {
                let mut buffer = [0; 4];
                out.extend_from_slice(other.encode_utf8(&mut buffer).as_bytes());
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped() {
        let mut out = Vec::new();
        string(&mut out, b"a\"b\\c\n\x01\xff");
        assert_eq!(out, "\"a\\\"b\\\\c\\n\\u0001\u{fffd}\"".as_bytes());
    }
}
