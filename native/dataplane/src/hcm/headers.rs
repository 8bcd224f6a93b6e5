//! The header list of one message: lines in one store, edited by pointing at other lines.
//!
//! A received head is copied once; what is added lies behind it in the same store, already in HTTP/1's wire form. Writing
//! the list out copies runs of untouched neighbouring lines in one piece. What came by HTTP/2 is kept as it was decoded,
//! name and value. Nothing is allocated once the store has grown to the size of the traffic. This module must not know what
//! any header means.

use tidegate_codec::h1::{HeadScratch, Header, KnownHeader, Span};
use tidegate_codec::h2::{OutField, Scratch};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct HeaderList {
    store: Vec<u8>,
    lines: Vec<Header>,
    /// One bit per [`KnownHeader`] that may be present: set by every addition, never cleared by a removal.
    present: u128,
}

/// A store larger than this is given back when the message is over.
const KEEP_CAPACITY: usize = 16 * 1024;

/// Ends of lines that are not in HTTP/1's wire form; the latter also says that no hop may index the header.
const DECODED: u32 = 0;
const SENSITIVE: u32 = 1;

const fn bit(known: KnownHeader) -> u128 {
    1 << known as u8
}

/// Headers that Envoy keeps in one line each, joining what comes in several.
const SINGLE_LINE_HEADERS: &[KnownHeader] = &[
    KnownHeader::Accept,
    KnownHeader::AcceptEncoding,
    KnownHeader::AccessControlAllowOrigin,
    KnownHeader::AccessControlExposeHeaders,
    KnownHeader::AccessControlRequestHeaders,
    KnownHeader::AccessControlRequestMethod,
    KnownHeader::Authorization,
    KnownHeader::CacheControl,
    KnownHeader::ContentEncoding,
    KnownHeader::ContentType,
    KnownHeader::Date,
    KnownHeader::Etag,
    KnownHeader::Expect,
    KnownHeader::GrpcTimeout,
    KnownHeader::Location,
    KnownHeader::Origin,
    KnownHeader::Server,
    KnownHeader::Te,
    KnownHeader::UserAgent,
    KnownHeader::Vary,
    KnownHeader::Via,
    KnownHeader::XForwardedClientCert,
    KnownHeader::XForwardedFor,
    KnownHeader::XForwardedHost,
    KnownHeader::XForwardedPort,
    KnownHeader::XForwardedProto,
    KnownHeader::XRequestId,
];

const SINGLE_LINE: u128 = {
    let mut bits = 0;
    let mut rest = SINGLE_LINE_HEADERS;
    while let [first, tail @ ..] = rest {
        bits |= bit(*first);
        rest = tail;
    }
    bits
};

impl HeaderList {
    pub(crate) fn clear(&mut self) {
        self.lines.clear();
        self.store.clear();
        self.present = 0;
        if self.store.capacity() > KEEP_CAPACITY {
            self.store = Vec::new();
        }
    }

    /// Starts from a received head and the lines that the parser found in it.
    pub(crate) fn receive(&mut self, head: &[u8], scratch: &HeadScratch) {
        self.clear();
        self.store.extend_from_slice(head);
        self.lines.extend_from_slice(scratch.headers());
        self.index();
    }

    /// Starts from a head or trailers that came by HTTP/2. Spans that refer to the scratch are good for this list too.
    /// `host`: the authority, which becomes the first line.
    pub(crate) fn receive_fields(&mut self, scratch: &Scratch, host: Span) {
        self.clear();
        self.store.extend_from_slice(scratch.bytes());
        if !host.is_empty() {
            let name = self.keep(KnownHeader::Host.name().as_bytes());
            self.lines.push(Header {
                name,
                value: host,
                line_end: DECODED,
                known: KnownHeader::Host,
                hop_by_hop: false,
            });
        }
        self.lines
            .extend(scratch.fields().iter().map(|field| Header {
                name: field.name,
                value: field.value,
                line_end: if field.sensitive { SENSITIVE } else { DECODED },
                known: field.known,
                hop_by_hop: false,
            }));
        self.index();
    }

    /// Notes what there is, and makes one line of what must not be several.
    fn index(&mut self) {
        let mut repeated = 0;
        for line in &self.lines {
            repeated |= self.present & bit(line.known);
            self.present |= bit(line.known);
        }
        if repeated & SINGLE_LINE != 0 {
            for known in SINGLE_LINE_HEADERS {
                if repeated & bit(*known) != 0 {
                    self.join_known(*known);
                }
            }
        }
    }

    /// Keeps text in the store that belongs to the message but is no header (a rewritten path).
    pub(crate) fn keep(&mut self, text: &[u8]) -> Span {
        let start = self.store.len();
        self.store.extend_from_slice(text);
        Span::new(start, self.store.len())
    }

    #[inline]
    pub(crate) fn text(&self, span: Span) -> &[u8] {
        span.of(&self.store)
    }

    /// Bytes of names and values, as Envoy counts them for `%REQUEST_HEADERS_BYTES%`.
    pub(crate) fn byte_size(&self) -> u64 {
        self.lines
            .iter()
            .map(|line| (line.name.len() + line.value.len()) as u64)
            .sum()
    }

    #[inline]
    pub(crate) fn has(&self, known: KnownHeader) -> bool {
        self.present & bit(known) != 0 && self.lines.iter().any(|line| line.known == known)
    }

    /// The first value of a known header.
    #[inline]
    pub(crate) fn known(&self, known: KnownHeader) -> Option<&[u8]> {
        if self.present & bit(known) == 0 {
            return None;
        }
        self.lines
            .iter()
            .find(|line| line.known == known)
            .map(|line| line.value.of(&self.store))
    }

    /// Where the first value of a known header lies.
    #[inline]
    pub(crate) fn known_span(&self, known: KnownHeader) -> Option<Span> {
        if self.present & bit(known) == 0 {
            return None;
        }
        self.lines
            .iter()
            .find(|line| line.known == known)
            .map(|line| line.value)
    }

    #[inline]
    fn is_named(&self, line: &Header, name: &[u8]) -> bool {
        line.name.len() == name.len() && line.name.of(&self.store).eq_ignore_ascii_case(name)
    }

    /// The first value.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.lines
            .iter()
            .find(|line| self.is_named(line, name))
            .map(|line| line.value.of(&self.store))
    }

    /// All values in order.
    pub(crate) fn get_all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.lines
            .iter()
            .filter(move |line| self.is_named(line, name))
            .map(|line| line.value.of(&self.store))
    }

    /// Removes every header of that name; says whether there was one.
    pub(crate) fn remove(&mut self, name: &[u8]) -> bool {
        let before = self.lines.len();
        let store = &self.store;
        self.lines.retain(|line| {
            line.name.len() != name.len() || !line.name.of(store).eq_ignore_ascii_case(name)
        });
        self.lines.len() != before
    }

    /// Removes every header, `host` apart, whose name, in lower case, is one that is meant.
    pub(crate) fn remove_matching(&mut self, mut is_meant: impl FnMut(&[u8]) -> bool) {
        let store = &self.store;
        let mut lower = Vec::new();
        self.lines.retain(|line| {
            lower.clear();
            lower.extend(line.name.of(store).iter().map(u8::to_ascii_lowercase));
            line.known == KnownHeader::Host || !is_meant(&lower)
        });
    }

    #[inline]
    pub(crate) fn remove_known(&mut self, known: KnownHeader) -> bool {
        if self.present & bit(known) == 0 {
            return false;
        }
        let before = self.lines.len();
        self.lines.retain(|line| line.known != known);
        self.lines.len() != before
    }

    /// Keeps the headers for which `keep` says so; it gets the line and its value.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Header, &[u8]) -> bool) {
        let store = &self.store;
        self.lines.retain(|line| keep(line, line.value.of(store)));
    }

    fn write_line(&mut self, known: KnownHeader, name: &[u8], value: &[u8]) -> Header {
        let start = self.store.len();
        self.store.extend_from_slice(name);
        self.store.extend_from_slice(b": ");
        self.store.extend_from_slice(value);
        self.store.extend_from_slice(b"\r\n");
        let value_start = start + name.len() + 2;
        self.present |= bit(known);
        Header {
            name: Span::new(start, start + name.len()),
            value: Span::new(value_start, value_start + value.len()),
            line_end: self.store.len() as u32,
            known,
            hop_by_hop: false,
        }
    }

    /// Adds a header, whatever is there already. `name` is lower case.
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) {
        let line = self.write_line(KnownHeader::from_name(name), name, value);
        self.lines.push(line);
    }

    /// As [`Self::add`]; joined to what there is of a header that is one line.
    pub(crate) fn add_copy(&mut self, name: &[u8], value: &[u8]) {
        if bit(KnownHeader::from_name(name)) & SINGLE_LINE == 0 {
            self.add(name, value);
        } else {
            self.append(name, b",", value);
        }
    }

    /// As [`Self::add`] for a known name.
    #[inline]
    pub(crate) fn add_known(&mut self, known: KnownHeader, value: &[u8]) {
        let line = self.write_line(known, known.name().as_bytes(), value);
        self.lines.push(line);
    }

    /// The header has this value and no other afterwards; it keeps its place if it had one.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8]) {
        let line = self.write_line(KnownHeader::from_name(name), name, value);
        let store = &self.store;
        Self::replace_in(&mut self.lines, line, |other| {
            other.name.len() == name.len() && other.name.of(store).eq_ignore_ascii_case(name)
        });
    }

    /// As [`Self::set`] for a known name.
    pub(crate) fn set_known(&mut self, known: KnownHeader, value: &[u8]) {
        if self.present & bit(known) == 0 {
            self.add_known(known, value);
            return;
        }
        let line = self.write_line(known, known.name().as_bytes(), value);
        Self::replace_in(&mut self.lines, line, |other| other.known == known);
    }

    fn replace_in(lines: &mut Vec<Header>, line: Header, is_old: impl Fn(&Header) -> bool) {
        let mut placed = false;
        lines.retain_mut(|other| {
            if !is_old(other) {
                return true;
            }
            if placed {
                return false;
            }
            *other = line;
            placed = true;
            true
        });
        if !placed {
            lines.push(line);
        }
    }

    /// Names and values, in order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines
            .iter()
            .map(|line| (line.name.of(&self.store), line.value.of(&self.store)))
    }

    /// Joins all values of `name` and one more into one header, or adds it.
    pub(crate) fn append(&mut self, name: &[u8], separator: &[u8], value: &[u8]) {
        let mut joined = Vec::new();
        for old in self.get_all(name) {
            joined.extend_from_slice(old);
            joined.extend_from_slice(separator);
        }
        joined.extend_from_slice(value);
        self.set(name, &joined);
    }

    /// Makes one line of several of the same known name, joined with commas, as Envoy's inline headers are.
    fn join_known(&mut self, known: KnownHeader) {
        if self.present & bit(known) == 0
            || self.lines.iter().filter(|line| line.known == known).count() < 2
        {
            return;
        }
        let mut joined = Vec::new();
        for line in self.lines.iter().filter(|line| line.known == known) {
            if !joined.is_empty() {
                joined.push(b',');
            }
            joined.extend_from_slice(line.value.of(&self.store));
        }
        self.set_known(known, &joined);
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// HTTP/2 has names in lower case only.
    pub(crate) fn lower_names(&mut self) {
        for line in &self.lines {
            if line.known == KnownHeader::Other && line.line_end > SENSITIVE {
                let range = line.name.start as usize..line.name.end as usize;
                if let Some(name) = self.store.get_mut(range) {
                    name.make_ascii_lowercase();
                }
            }
        }
    }

    /// All headers but `host`, as HTTP/2 sends them; see [`Self::lower_names`].
    #[inline]
    pub(crate) fn fields(&self) -> impl Iterator<Item = OutField<'_>> {
        self.lines
            .iter()
            .filter(|line| line.known != KnownHeader::Host)
            .map(|line| OutField {
                name: match line.known {
                    KnownHeader::Other => line.name.of(&self.store),
                    known => known.name().as_bytes(),
                },
                value: line.value.of(&self.store),
                known: line.known,
                sensitive: line.line_end == SENSITIVE,
            })
    }

    /// Writes all lines, CRLF after each.
    #[inline]
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut run = Span::EMPTY;
        for line in &self.lines {
            if line.line_end <= SENSITIVE {
                out.extend_from_slice(run.of(&self.store));
                run = Span::EMPTY;
                out.extend_from_slice(line.name.of(&self.store));
                out.extend_from_slice(b": ");
                out.extend_from_slice(line.value.of(&self.store));
                out.extend_from_slice(b"\r\n");
                continue;
            }
            if line.name.start != run.end {
                out.extend_from_slice(run.of(&self.store));
                run.start = line.name.start;
            }
            run.end = line.line_end;
        }
        out.extend_from_slice(run.of(&self.store));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_codec::h1::{Limits, parse_request};

    fn parse(head: &[u8]) -> HeaderList {
        let mut scratch = HeadScratch::new();
        parse_request(head, &mut scratch, &Limits::default())
            .unwrap()
            .unwrap();
        let mut list = HeaderList::default();
        list.receive(head, &scratch);
        list
    }

    fn written(list: &HeaderList) -> String {
        let mut out = Vec::new();
        list.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn untouched_lines_are_copied_as_they_came() {
        let list = parse(b"GET / HTTP/1.1\r\nHost: a\r\nX-Foo:   Bar \r\n\r\n");
        assert_eq!(written(&list), "Host: a\r\nX-Foo:   Bar \r\n");
        assert_eq!(list.get(b"x-foo"), Some(&b"Bar"[..]));
    }

    #[test]
    fn edits() {
        let mut list =
            parse(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\nB: c\r\nx-a: 3\r\n\r\n");
        assert_eq!(list.get(b"x-a"), Some(&b"1"[..]));
        list.append(b"x-a", b",", b"4");
        assert_eq!(written(&list), "Host: a\r\nx-a: 1,2,3,4\r\nB: c\r\n");
        list.set(b"b", b"d");
        list.set(b"new", b"e");
        list.add_known(KnownHeader::XEnvoyInternal, b"1");
        list.remove(b"X-A");
        assert_eq!(
            written(&list),
            "Host: a\r\nb: d\r\nnew: e\r\nx-envoy-internal: 1\r\n"
        );
        assert!(list.remove_known(KnownHeader::Host));
        assert_eq!(list.known(KnownHeader::Host), None);
    }

    #[test]
    fn known_names_join() {
        let list = parse(b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1\r\nb: c\r\nX-Forwarded-For: 2\r\n\r\n");
        assert_eq!(
            written(&list),
            "host: a\r\nx-forwarded-for: 1,2\r\nb: c\r\n"
        );
    }
}
