//! HTTP/1 towards the client: requests one after the other, responses in their order.

use std::rc::Rc;

use tidegate_codec::h1::{
    BodyTracker, Fed, KnownHeader, Method, ParseError, Refusal, RequestHead, ResponseFraming,
    Version, encode, parse_request,
};
use tidegate_stats::defs::http1;

use super::headers::HeaderList;
use super::stream::{Attached, BodyMode, Protocol, Stream};
use super::{Phase, ServerConnection, request};
use crate::worker::{Core, Worker};

/// The parts of received bytes that go on. One is passed on where it lies; several are put together.
struct Extents<'b> {
    first: &'b [u8],
    several: &'b mut Vec<u8>,
}

impl<'b> Extents<'b> {
    fn new(several: &'b mut Vec<u8>) -> Self {
        several.clear();
        Self {
            first: &[],
            several,
        }
    }

    #[inline]
    fn add(&mut self, extent: &'b [u8]) {
        if self.several.is_empty() && self.first.is_empty() {
            self.first = extent;
        } else {
            if self.several.is_empty() {
                self.several.extend_from_slice(self.first);
            }
            self.several.extend_from_slice(extent);
        }
    }

    #[inline]
    fn joined(self) -> &'b [u8] {
        if self.several.is_empty() {
            self.first
        } else {
            self.several
        }
    }
}

/// What following a body through received bytes came to: what to pass on, and how far it got.
pub(super) fn feed<'b>(
    tracker: &mut BodyTracker,
    bytes: &'b [u8],
    several: &'b mut Vec<u8>,
) -> Result<(&'b [u8], Fed), ParseError> {
    let mut extents = Extents::new(several);
    let fed = tracker.feed_raw(bytes, |extent| extents.add(extent))?;
    Ok((extents.joined(), fed))
}

/// As [`feed`], for the payload; trailers are put into the list.
pub(super) fn feed_payload<'b>(
    tracker: &mut BodyTracker,
    bytes: &'b [u8],
    several: &'b mut Vec<u8>,
    mut trailers: Option<&mut HeaderList>,
) -> Result<(&'b [u8], Fed), ParseError> {
    let mut extents = Extents::new(several);
    let fed = tracker.feed_payload(
        bytes,
        |extent| extents.add(extent),
        |name, value| {
            if let Some(trailers) = &mut trailers {
                trailers.add(&name.to_ascii_lowercase(), value);
            }
        },
    )?;
    Ok((extents.joined(), fed))
}

/// A body up to this length is copied behind its head: cheaper than a vectored write.
const JOINED: usize = 2048;

impl ServerConnection {
    /// Goes on with input that was left over.
    pub(super) fn resume_input(&mut self, worker: &mut Worker) {
        if self.input.is_empty() || !self.wants_input() {
            return;
        }
        let mut input = std::mem::take(&mut self.input);
        let used = self.process(worker, &input);
        if used >= input.len() || self.phase != Phase::Open {
            // The memory goes too: an idle connection holds none.
            return;
        }
        input.drain(..used);
        self.input = input;
    }

    /// Uses up as much of the received bytes as possible.
    pub(super) fn process(&mut self, worker: &mut Worker, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.phase {
                Phase::Open => {}
                // What comes after the last response is of no interest.
                _ => return bytes.len(),
            }
            let used = match self.streams.take(0) {
                None => self.begin(worker, rest),
                Some(stream) if stream.request.complete => {
                    self.streams.put(stream);
                    0
                }
                Some(stream) => self.on_body(stream, worker, rest),
            };
            if used == 0 {
                break;
            }
            at += used;
        }
        at
    }

    /// Reads a head and starts its stream; the body bytes behind it leave together with it.
    fn begin(&mut self, worker: &mut Worker, bytes: &[u8]) -> usize {
        let now = worker.core.now();
        if self.head_since.is_none() {
            self.head_since = Some(now);
        }
        if !self.resume.worth_parsing(bytes) {
            return 0;
        }
        let hcm = Rc::clone(&self.hcm);
        let parsed = parse_request(bytes, &mut worker.core.http.scratch, &hcm.limits);
        let head = match parsed {
            Ok(Some(head)) => head,
            Ok(None) => return 0,
            Err(error) => {
                self.refuse_bytes(worker, error);
                return bytes.len();
            }
        };
        self.resume = tidegate_codec::h1::HeadResume::default();
        let dropped = worker.core.http.scratch.dropped();
        if dropped > 0 {
            hcm.http1_stats
                .add(http1::DROPPED_HEADERS_WITH_UNDERSCORES, u64::from(dropped));
        }
        let mut stream = self.open_stream(&mut worker.core);
        stream.times.start = self.head_since.take().unwrap_or(now);
        if let Some(refusal) = head.refusal
            && (refusal != Refusal::MissingHost || !self.has_default_host(&head))
        {
            self.refuse_head(stream, worker, refusal, &head, bytes);
            return bytes.len();
        }
        self.receive(&mut stream, &head, bytes, &worker.core);
        if head.refusal.is_some()
            && let Some(host) = &hcm.config.http1.default_host_for_http_10
        {
            stream
                .request
                .headers
                .set_known(KnownHeader::Host, host.as_bytes());
        }
        if head.expect_continue && !hcm.config.proxy_100_continue {
            stream.request.headers.remove_known(KnownHeader::Expect);
            self.write_interim(&stream, &mut worker.core, 100);
            stream.response.status = 100;
        }
        let head_len = head.len as usize;
        let rest = bytes.get(head_len..).unwrap_or_default();
        if stream.request.body.is_finished() {
            if stream.request.complete {
                stream.times.request_end = Some(now);
            }
            self.start(stream, worker, Attached::default());
            return head_len;
        }
        let mut several = std::mem::take(&mut worker.core.http.body);
        let mut consumed = head_len;
        match feed(&mut stream.request.body, rest, &mut several) {
            Ok((body, fed)) => {
                consumed += fed.consumed;
                let attached = Attached {
                    bytes: body,
                    payload: fed.payload,
                    last: fed.finished,
                };
                self.start(stream, worker, attached);
            }
            Err(error) => {
                self.refuse_body(stream, worker, error);
                consumed = bytes.len();
            }
        }
        worker.core.http.body = several;
        consumed
    }

    pub(super) fn receive(
        &self,
        stream: &mut Stream,
        head: &RequestHead,
        bytes: &[u8],
        core: &Core,
    ) {
        request::receive(
            &mut stream.request,
            head,
            bytes,
            &core.http.scratch,
            &self.hcm,
        );
    }

    /// `default_host_for_http_10` stands in for a host that is not there.
    fn has_default_host(&self, head: &RequestHead) -> bool {
        head.version == Version::Http10 && self.hcm.config.http1.default_host_for_http_10.is_some()
    }

    /// More of the request's body, or of a tunnel.
    fn on_body(&mut self, mut stream: Box<Stream>, worker: &mut Worker, bytes: &[u8]) -> usize {
        let now = worker.core.now();
        stream.deadlines.active_at = now;
        if stream.request.upgrade {
            let used = self.on_tunnel_input(&mut stream, worker, bytes);
            self.settle(stream, worker);
            return used;
        }
        let mut several = std::mem::take(&mut worker.core.http.body);
        let consumed = match feed(&mut stream.request.body, bytes, &mut several) {
            Ok((body, fed)) => {
                stream.request.bytes += fed.payload;
                if fed.finished {
                    stream.request.complete = true;
                    stream.times.request_end = Some(now);
                }
                self.pass_body(&mut stream, worker, body);
                self.settle(stream, worker);
                fed.consumed
            }
            Err(error) => {
                self.refuse_body(stream, worker, error);
                bytes.len()
            }
        };
        worker.core.http.body = several;
        consumed
    }

    /// Status line, headers and framing, as Envoy's HTTP/1 encoder decides about them.
    pub(super) fn write_head(
        &mut self,
        stream: &mut Stream,
        framing: ResponseFraming,
        ends: bool,
        out: &mut Vec<u8>,
    ) {
        let filtered = stream.is_response_filtered();
        let response = &mut stream.response;
        let request = &stream.request;
        let old_client = request.protocol == Protocol::Http10 && self.hcm.limits.accept_http_10;
        let version = if old_client {
            Version::Http10
        } else {
            Version::Http11
        };
        let has_length = response.headers.has(KnownHeader::ContentLength);
        let bodiless_status = matches!(response.status, 100..=199 | 204);
        let no_length = bodiless_status || response.status == 304;
        if bodiless_status && has_length {
            response.headers.remove_known(KnownHeader::ContentLength);
        }
        match &response.reason {
            None => encode::status_line(out, version, response.status),
            Some(reason) => encode::status_line_with(out, version, response.status, reason),
        }
        let mut framing_line: &[u8] = b"";
        response.mode = match framing {
            // A filter looks at the payload.
            _ if filtered && !has_length && !ends && !old_client => BodyMode::Chunk,
            _ if filtered && has_length => BodyMode::Raw,
            ResponseFraming::Chunked if has_length || old_client => BodyMode::Payload,
            ResponseFraming::Length(_) | ResponseFraming::UntilClose if !has_length && !ends => {
                BodyMode::Chunk
            }
            _ => BodyMode::Raw,
        };
        if old_client && !has_length {
            self.draining = true;
        }
        if has_length || response.tunnel || no_length {
        } else if ends && request.method != Method::Head {
            framing_line = b"content-length: 0\r\n";
        } else if old_client {
            response.mode = BodyMode::Payload;
        } else {
            framing_line = b"transfer-encoding: chunked\r\n";
        }
        response.headers.write(out);
        if !response.tunnel {
            if self.draining {
                out.extend_from_slice(b"connection: close\r\n");
            } else if old_client {
                out.extend_from_slice(b"connection: keep-alive\r\n");
            }
        }
        out.extend_from_slice(framing_line);
        out.extend_from_slice(encode::CRLF);
    }

    /// Sends the prepared head, if it has not left, and body bytes in the response's mode.
    pub(super) fn write_http1(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        body: &[u8],
        with_head: bool,
        last: bool,
    ) {
        let mut head = std::mem::take(&mut worker.core.http.head);
        let mut body = body;
        if with_head && body.len() <= JOINED && stream.response.mode != BodyMode::Chunk {
            head.extend_from_slice(body);
            body = &[];
        }
        let first: &[u8] = if with_head { &head } else { &[] };
        if stream.response.mode == BodyMode::Chunk {
            let mut size = std::mem::take(&mut worker.core.http.value);
            size.clear();
            if !body.is_empty() {
                encode::chunk_header(&mut size, body.len() as u64);
            }
            let end: &[u8] = match (body.is_empty(), last) {
                (false, false) => encode::CRLF,
                (false, true) => b"\r\n0\r\n\r\n",
                (true, true) => encode::LAST_CHUNK,
                (true, false) => &[],
            };
            self.write(&mut worker.core, &[first, &size, body, end]);
            worker.core.http.value = size;
        } else {
            self.write(&mut worker.core, &[first, body]);
        }
        worker.core.http.head = head;
    }

    /// Trailers, or the end without them where they are not wanted.
    pub(super) fn write_trailers_http1(&mut self, stream: &Stream, worker: &mut Worker) {
        if stream.response.mode != BodyMode::Chunk {
            return;
        }
        let mut out = std::mem::take(&mut worker.core.http.value);
        out.clear();
        out.extend_from_slice(b"0\r\n");
        if self.hcm.config.http1.enable_trailers {
            stream.response.trailers.write(&mut out);
        }
        out.extend_from_slice(encode::CRLF);
        self.write(&mut worker.core, &[&out]);
        worker.core.http.value = out;
    }
}
