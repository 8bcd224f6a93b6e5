//! The requests of an HTTP load, built before it begins: one, or one for every number of a range in shuffled order.
//! HTTP/1 gets bytes, HTTP/2 header blocks.

use std::ops::Range;

use crate::h2::blocks::{Block, Keep};

/// What a request is made of; in path, host and header `{n}` stands for the number and `{h}` for 32 hexadecimal digits
/// that are drawn by it.
#[derive(Debug, Clone)]
pub struct Template {
    pub method: String,
    pub path: String,
    pub host: String,
    /// `name: value`, or nothing.
    pub header: String,
    pub body: usize,
    /// Sends the body in chunks of so many bytes; 0: by its length.
    pub chunk: usize,
}

/// Most numbers a range may have: each costs a request's bytes.
pub const MAX_RANGE: usize = 100_000;

/// `A..B`, without B; empty text means that no number is asked for.
pub fn range(text: &str) -> Result<Range<usize>, String> {
    if text.is_empty() {
        return Ok(0..1);
    }
    let ends = text.split_once("..").and_then(|(from, to)| {
        let ends = from.parse::<usize>().ok()?..to.parse::<usize>().ok()?;
        (ends.start < ends.end && ends.len() <= MAX_RANGE).then_some(ends)
    });
    ends.ok_or_else(|| {
        format!("--range {text}: A..B, with 1 to {MAX_RANGE} numbers, B not among them")
    })
}

impl Template {
    /// The requests, shuffled the same way in every run: their walk costs an addition, and jumps about in the table.
    pub fn requests(&self, numbers: Range<usize>) -> Vec<Vec<u8>> {
        shuffled(numbers.map(|n| self.request(n)).collect())
    }

    /// The same as header blocks, with these fields besides.
    pub fn blocks(&self, numbers: Range<usize>, further: &[(&str, &str)]) -> Vec<Block> {
        shuffled(numbers.map(|n| self.block(n, further)).collect())
    }

    fn block(&self, number: usize, further: &[(&str, &str)]) -> Block {
        let (path, host) = (fill(&self.path, number), fill(&self.host, number));
        let keep = |template: &str| {
            if template.contains('{') {
                Keep::Changing
            } else {
                Keep::Indexed
            }
        };
        let mut fields = vec![
            (":method", self.method.as_str(), Keep::Indexed),
            (":scheme", "http", Keep::Indexed),
            (":path", path.as_str(), keep(&self.path)),
            (":authority", host.as_str(), keep(&self.host)),
            ("user-agent", "tg-load", Keep::Indexed),
        ];
        fields.extend(further.iter().map(|(n, v)| (*n, *v, Keep::Indexed)));
        let (name, value) = self.header.split_once(": ").unwrap_or_default();
        let value = fill(value, number);
        if !name.is_empty() {
            fields.push((name, value.as_str(), keep(&self.header)));
        }
        Block::new(&fields)
    }

    fn request(&self, number: usize) -> Vec<u8> {
        let fill = |text: &str| fill(text, number);
        let mut request = format!(
            "{} {} HTTP/1.1\r\nhost: {}\r\nuser-agent: tg-load\r\naccept: */*\r\n",
            self.method,
            fill(&self.path),
            fill(&self.host)
        );
        if !self.header.is_empty() {
            request.push_str(&fill(&self.header));
            request.push_str("\r\n");
        }
        if self.chunk > 0 {
            request.push_str("transfer-encoding: chunked\r\n");
        } else if self.body > 0 {
            request.push_str(&format!("content-length: {}\r\n", self.body));
        }
        request.push_str("\r\n");
        let mut request = request.into_bytes();
        if self.chunk > 0 {
            append_chunks(&mut request, self.body, self.chunk);
        } else {
            request.resize(request.len() + self.body, b'x');
        }
        request
    }
}

fn shuffled<T>(mut items: Vec<T>) -> Vec<T> {
    let mut random = tidegate_rt::Rng::with_seed(1);
    for at in (1..items.len()).rev() {
        let other = usize::try_from(random.below(at as u64 + 1)).unwrap_or(at);
        items.swap(at, other);
    }
    items
}

fn fill(template: &str, number: usize) -> String {
    if !template.contains('{') {
        return template.to_owned();
    }
    let mut random = tidegate_rt::Rng::with_seed(number as u64 + 1);
    let mut half = || random.below(u64::MAX);
    let digits = format!("{:016x}{:016x}", half(), half());
    template
        .replace("{n}", &number.to_string())
        .replace("{h}", &digits)
}

/// A body in chunks, each of `chunk` bytes but for the last.
fn append_chunks(request: &mut Vec<u8>, body: usize, chunk: usize) {
    let mut left = body;
    while left > 0 {
        let size = left.min(chunk);
        request.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        request.resize(request.len() + size, b'x');
        request.extend_from_slice(b"\r\n");
        left -= size;
    }
    request.extend_from_slice(b"0\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range("3..5"), Ok(3..5));
        assert_eq!(range(""), Ok(0..1));
        for bad in ["5", "5..5", "6..5", "a..b", "0..100001"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_number_once_and_not_in_order() {
        let template = Template {
            method: "GET".to_owned(),
            path: "/p{n}".to_owned(),
            host: "h{n}".to_owned(),
            header: "x: v{n}".to_owned(),
            body: 0,
            chunk: 0,
        };
        let requests = template.requests(0..100);
        let mut sorted = requests.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), 100);
        let seven =
            b"GET /p7 HTTP/1.1\r\nhost: h7\r\nuser-agent: tg-load\r\naccept: */*\r\nx: v7\r\n\r\n";
        assert!(requests.contains(&seven.to_vec()));
        let ordered: Vec<_> = (0..100).map(|n| template.request(n)).collect();
        assert_ne!(requests, ordered);
    }
}
