//! The gRPC filters: statistics, and gRPC-Web.
//!
//! What they keep of a stream is [`GrpcFilters`], empty for all others. Where bodies and trailers pass, the data path hands
//! them over as payload, whatever framed them:
//!
//! ```text
//! request   run_filters ─▶ request_data … (gRPC-Web first, then the count)
//! response  holds? ─▶ response_head (in encode_head) ─▶ response_data … ─▶ response_trailers (the count first, then gRPC-Web)
//!              └─ yes: response_data … keeps the body, ─▶ finish_held, then the head leaves with the end of the response
//! ```

mod counters;

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use tidegate_codec::grpc::{BadBase64, ContentType, Frames, RequestBody, ResponseBody};
use tidegate_codec::h1::{KnownHeader, ResponseFraming};
use tidegate_lua::Side;
use tidegate_snapshot::grpc_stats::web_stat_name;
use tidegate_snapshot::grpc_status::{is_grpc_content_type, of_http};

pub(crate) use self::counters::GrpcCounters;
use self::counters::MethodCounters;
use super::ServerConnection;
use super::filters::Verdict;
use super::headers::HeaderList;
use super::local_reply::{Reply, percent_encode};
use super::request;
use super::stream::{Attached, Stream, StreamRoute};
use crate::worker::{Core, Worker};

/// A body that is no gRPC becomes a message in a header: so much of it.
const MAX_MESSAGE: usize = 16 * 1024;

/// The part of the gRPC filters in one stream.
#[derive(Default)]
pub(crate) struct GrpcFilters {
    count: Option<Box<Count>>,
    web: Option<Box<Web>>,
}

/// The statistics filter's.
struct Count {
    /// `None`: no cluster, or no path of a call.
    counters: Option<Rc<MethodCounters>>,
    request: Frames,
    response: Frames,
    response_is_grpc: bool,
    emit_filter_state: bool,
    upstream_stats: bool,
}

/// gRPC-Web's.
struct Web {
    counters: Option<Rc<MethodCounters>>,
    request: RequestBody,
    response: ResponseBody,
    accepts: ContentType,
    /// The response is no gRPC: its body, as far as it goes into a header.
    held: Option<Vec<u8>>,
    /// What was held is in the headers now.
    rewritten: bool,
}

impl GrpcFilters {
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.count.is_none() && self.web.is_none()
    }

    /// gRPC-Web changes what passes.
    #[inline]
    pub(crate) const fn is_web(&self) -> bool {
        self.web.is_some()
    }

    /// Messages of the request and of the response, once there has been one and if they are to be told.
    pub(crate) fn message_counts(&self) -> Option<(u64, u64)> {
        let count = self
            .count
            .as_ref()
            .filter(|count| count.emit_filter_state)?;
        let counts = (count.request.started(), count.response.started());
        (counts != (0, 0)).then_some(counts)
    }

    /// Payload of the request; what goes on is it or what `scratch` then holds. `last`: the body ends with it.
    fn request_data<'b>(
        &mut self,
        data: &'b [u8],
        last: bool,
        scratch: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], BadBase64> {
        let data = match &mut self.web {
            Some(web) => web.request.feed(data, last, scratch)?,
            None => data,
        };
        if let Some(count) = &mut self.count {
            let begun = count.request.feed(data);
            if begun > 0
                && let Some(counters) = &count.counters
            {
                counters.request_messages(begun);
            }
        }
        Ok(data)
    }

    /// Whether a response with this head waits for its whole body, which becomes `grpc-message`: what follows is given to
    /// [`Self::response_data`], then [`Self::finish_held`] is called, and only then the head is encoded, with nothing behind.
    pub(crate) fn holds(&mut self, status: u16, headers: &HeaderList, ends: bool) -> bool {
        let Some(web) = &mut self.web else {
            return false;
        };
        let content_type = headers.known(KnownHeader::ContentType).unwrap_or_default();
        let passes = ends
            || status == 200
                && (is_grpc_content_type(content_type)
                    || ContentType::of(content_type) == Some(ContentType::Binary));
        web.held = (!passes).then(Vec::new);
        web.held.is_some()
    }

    /// The response's head waits.
    fn is_holding(&self) -> bool {
        self.web.as_ref().is_some_and(|web| web.held.is_some())
    }

    /// The body that was held is complete.
    fn finish_held(&mut self, status: u16, headers: &mut HeaderList) {
        if let Some(web) = &mut self.web
            && let Some(body) = web.held.take()
        {
            web.rewrite(status, headers, &body);
        }
    }

    /// An answer of ours with a body. `true`: the body has become a header.
    pub(super) fn answer(&mut self, status: u16, headers: &mut HeaderList, body: &[u8]) -> bool {
        let Some(web) = &mut self.web else {
            return false;
        };
        web.held = None;
        if !body.is_empty() {
            web.rewrite(status, headers, body);
        }
        !body.is_empty()
    }

    /// The head of the response, about to leave. `ends`: nothing follows. `elapsed`: since the request was sent.
    fn response_head(
        &mut self,
        status: u16,
        headers: &mut HeaderList,
        ends: bool,
        elapsed: Option<Duration>,
    ) {
        let rewritten = self.web.as_ref().is_some_and(|web| web.rewritten);
        let told = (!rewritten)
            .then(|| headers.known(KnownHeader::GrpcStatus))
            .flatten();
        if let Some(count) = &mut self.count {
            let content_type = headers.known(KnownHeader::ContentType).unwrap_or_default();
            count.response_is_grpc = if ends {
                told.is_some()
            } else {
                status == 200 && is_grpc_content_type(content_type)
            };
            count.status(told, if ends { elapsed } else { None });
        }
        if let Some(web) = &mut self.web {
            if let (Some(status), Some(counters)) = (told, &web.counters) {
                counters.status(status);
            }
            headers.set_known(KnownHeader::ContentType, web.accepts.name());
            if !rewritten {
                // There may be trailers in it.
                headers.remove_known(KnownHeader::ContentLength);
            }
        }
    }

    /// Payload of the response; what goes on is it or what `scratch` then holds.
    fn response_data<'b>(&mut self, data: &'b [u8], scratch: &'b mut Vec<u8>) -> &'b [u8] {
        if let Some(count) = &mut self.count
            && count.response_is_grpc
        {
            let begun = count.response.feed(data);
            if begun > 0
                && let Some(counters) = &count.counters
            {
                counters.response_messages(begun);
            }
        }
        let Some(web) = &mut self.web else {
            return data;
        };
        match &mut web.held {
            Some(held) => {
                let room = MAX_MESSAGE.saturating_sub(held.len()).min(data.len());
                held.extend_from_slice(data.get(..room).unwrap_or_default());
                &[]
            }
            None => web.response.feed(data, scratch),
        }
    }

    /// The trailers of the response. gRPC-Web leaves none: they are appended to `out` as the last piece of the body.
    fn response_trailers(
        &mut self,
        trailers: &mut HeaderList,
        elapsed: Option<Duration>,
        out: &mut Vec<u8>,
    ) {
        let status = trailers.known(KnownHeader::GrpcStatus);
        if let Some(count) = &self.count {
            count.status(status, elapsed);
        }
        if let Some(web) = &mut self.web {
            if let (Some(status), Some(counters)) = (status, &web.counters) {
                counters.status(status);
            }
            if web.held.is_none() {
                web.response.trailers(trailers.pairs(), out);
            }
            trailers.clear();
        }
    }
}

impl Count {
    fn status(&self, status: Option<&[u8]>, elapsed: Option<Duration>) {
        let Some(counters) = &self.counters else {
            return;
        };
        if let Some(status) = status {
            counters.status(status);
        }
        if let Some(elapsed) = elapsed.filter(|_| self.upstream_stats) {
            counters.upstream_time(elapsed);
        }
    }
}

impl Web {
    fn rewrite(&mut self, status: u16, headers: &mut HeaderList, body: &[u8]) {
        let body = body.get(..MAX_MESSAGE).unwrap_or(body);
        let mut buffer = itoa::Buffer::new();
        headers.set_known(KnownHeader::GrpcMessage, &percent_encode(body));
        let grpc_status = buffer.format(of_http(u64::from(status)));
        headers.set_known(KnownHeader::GrpcStatus, grpc_status.as_bytes());
        headers.set_known(KnownHeader::ContentLength, b"0");
        self.rewritten = true;
    }
}

impl ServerConnection {
    /// The statistics filter's request side.
    pub(super) fn grpc_stats(&self, stream: &mut Stream, core: &mut Core, index: usize) -> Verdict {
        let hcm = Rc::clone(self.manager_of(stream));
        let filter = hcm.filter(index);
        let filter = filter.and_then(|filter| filter.grpc_stats.as_ref());
        let Some(filter) = filter.filter(|_| request::is_grpc(&stream.request)) else {
            return Verdict::Continue;
        };
        let counters = self.method_counters(stream, core, "grpc", |path, name| {
            filter.stat_name(path, name)
        });
        stream.grpc.count = Some(Box::new(Count {
            counters,
            request: Frames::default(),
            response: Frames::default(),
            response_is_grpc: false,
            emit_filter_state: filter.emit_filter_state,
            upstream_stats: filter.enable_upstream_stats,
        }));
        Verdict::Continue
    }

    /// What the call's cluster counts of its method; `name` as for [`GrpcCounters::find`], from the path.
    ///
    /// [`GrpcCounters::find`]: super::grpc::GrpcCounters::find
    fn method_counters(
        &self,
        stream: &mut Stream,
        core: &mut Core,
        family: &str,
        name: impl FnOnce(&[u8], &mut String) -> bool,
    ) -> Option<Rc<MethodCounters>> {
        self.choose_cluster(stream, core);
        let cluster = stream.cluster.as_ref()?;
        let path = stream.request.path_bytes();
        core.http.grpc.find(
            &core.shared.registry,
            core.id,
            &cluster.config,
            family,
            |written| name(path, written),
        )
    }

    /// gRPC-Web's request side: the request goes on as gRPC.
    pub(super) fn grpc_web(&self, stream: &mut Stream, core: &mut Core) -> Verdict {
        let headers = &mut stream.request.headers;
        let content_type = headers.known(KnownHeader::ContentType).unwrap_or_default();
        let Some(content_type) = ContentType::of(content_type) else {
            return Verdict::Continue;
        };
        let accept = headers.known(KnownHeader::Accept).unwrap_or_default();
        let accepts = match ContentType::of(accept) {
            Some(ContentType::Text) => ContentType::Text,
            _ => ContentType::Binary,
        };
        // The length is that of the encoded body, if anything's.
        if headers.remove_known(KnownHeader::ContentLength) {
            stream.request.chunked = true;
        }
        headers.set_known(KnownHeader::ContentType, b"application/grpc");
        headers.set_known(KnownHeader::Te, b"trailers");
        if headers.get(b"grpc-accept-encoding").is_none() {
            headers.add(b"grpc-accept-encoding", b"identity");
        }
        let counters = self.method_counters(stream, core, "grpc-web", web_stat_name);
        stream.grpc.web = Some(Box::new(Web {
            counters,
            request: RequestBody::new(content_type),
            response: ResponseBody::new(accepts),
            accepts,
            held: None,
            rewritten: false,
        }));
        Verdict::Continue
    }

    /// The filters' response side, for the head of any response.
    pub(super) fn grpc_response_head(&self, stream: &mut Stream, core: &Core, ends: bool) {
        let elapsed = upstream_time(stream, core);
        let response = &mut stream.response;
        stream
            .grpc
            .response_head(response.status, &mut response.headers, ends, elapsed);
    }
}

/// What the filters do with bodies and trailers.
impl ServerConnection {
    /// The request goes to the router, and the part of its body that is here (`body`, and what had to wait) with it, through
    /// the filters. `None`: it has been answered.
    pub(super) fn filter_attached<'b>(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        body: Attached<'b>,
    ) -> Option<Attached<'b>> {
        let forwards = |route: &StreamRoute| route.forward().is_some();
        let passes = stream.grpc.is_empty() && !stream.lua_reads_request();
        if passes || !stream.route.as_ref().is_some_and(forwards) {
            return Some(body);
        }
        let is_payload = std::mem::replace(&mut stream.request.filtered, true);
        let mut bytes = Vec::new();
        let pending = &mut stream.request.pending;
        while !pending.is_empty() {
            let mut slices = [std::io::IoSlice::new(&[]); 1];
            pending.slices(&mut slices);
            let [first] = &slices;
            bytes.extend_from_slice(first);
            let count = first.len();
            pending.consume(&mut worker.core.segments, count);
        }
        bytes.extend_from_slice(body.bytes);
        let last = body.last || stream.request.complete;
        let (mut payload, mut changed) = (Vec::new(), Vec::new());
        let data = if is_payload {
            stream.grpc.request_data(&bytes, last, &mut changed)
        } else {
            through_filters(stream, &bytes, last, &mut payload, &mut changed)
        };
        match data {
            Ok(data) => {
                let data = self.request_past_lua(stream, worker, data, last);
                let pending = &mut stream.request.pending;
                pending.push(&mut worker.core.segments, &data);
                Some(Attached { bytes: &[], ..body })
            }
            Err(bad) => {
                stream.request.bytes += body.payload;
                self.refuse_base64(stream, worker, bad);
                None
            }
        }
    }

    /// More of the body of a request that has gone to the router.
    pub(super) fn filter_body(&mut self, stream: &mut Stream, worker: &mut Worker, bytes: &[u8]) {
        let last = stream.request.complete;
        let (mut payload, mut changed) = (Vec::new(), Vec::new());
        match through_filters(stream, bytes, last, &mut payload, &mut changed) {
            Ok(data) => {
                let data = self.request_past_lua(stream, worker, data, last);
                self.pass_on(stream, worker, &data);
            }
            Err(bad) => self.refuse_base64(stream, worker, bad),
        }
    }

    /// A piece of the request past the scripts that read it.
    fn request_past_lua<'b>(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        data: &'b [u8],
        last: bool,
    ) -> Cow<'b, [u8]> {
        if !stream.lua_reads_request() {
            return Cow::Borrowed(data);
        }
        let trailers = last && !stream.request.trailers.is_empty();
        let changed = self.lua_data(stream, worker, Side::Request, data, last, trailers);
        changed.map_or(Cow::Borrowed(data), Cow::Owned)
    }

    fn refuse_base64(&mut self, stream: &mut Stream, worker: &mut Worker, bad: BadBase64) {
        let reply = Reply::new(400, BadBase64::MESSAGE, bad.details());
        self.reply(stream, worker, reply);
    }

    /// A piece of the response through the filters; nothing leaves while they hold the head back.
    pub(super) fn write_filtered(
        &mut self,
        stream: &mut Stream,
        worker: &mut Worker,
        body: &[u8],
        with_head: bool,
        last: bool,
    ) {
        let mut changed = Vec::new();
        let data = stream.grpc.response_data(body, &mut changed);
        let bytes = stream.response.bytes + data.len() as u64;
        stream.response.bytes = bytes.saturating_sub(body.len() as u64);
        let last = last && stream.response.trailers.is_empty();
        if stream.is_lua_holding() {
            self.lua_hold(stream, worker, data, last);
        } else if !stream.grpc.is_holding() {
            self.write_past_lua(stream, worker, data, with_head, last);
        } else if last {
            self.write_held(stream, worker);
        }
    }

    /// The trailers through the filters. `true`: they have become the end of the body.
    pub(super) fn filter_trailers(&mut self, stream: &mut Stream, worker: &mut Worker) -> bool {
        let elapsed = upstream_time(stream, &worker.core);
        let mut end = Vec::new();
        let trailers = &mut stream.response.trailers;
        stream.grpc.response_trailers(trailers, elapsed, &mut end);
        if stream.grpc.is_holding() {
            self.write_held(stream, worker);
            return true;
        }
        if end.is_empty() {
            return false;
        }
        stream.response.bytes += end.len() as u64;
        self.write_on(stream, worker, &end, false, true);
        true
    }

    /// The whole of a response that is no gRPC has been received.
    fn write_held(&mut self, stream: &mut Stream, worker: &mut Worker) {
        let response = &mut stream.response;
        stream
            .grpc
            .finish_held(response.status, &mut response.headers);
        self.finish_response_head(stream, worker, ResponseFraming::Length(0), true);
        self.write_on(stream, worker, &[], true, true);
    }
}

/// Since the request was sent; `None`: it was not, or the answer is not the upstream's.
fn upstream_time(stream: &Stream, core: &Core) -> Option<Duration> {
    let times = &stream.times;
    times.upstream_rx_begin?;
    Some(core.now().since(times.upstream_tx_end?))
}

/// Received bytes of a request as they go on: out of HTTP/1's chunks, then what the filters make of them.
fn through_filters<'b>(
    stream: &mut Stream,
    bytes: &'b [u8],
    last: bool,
    payload: &'b mut Vec<u8>,
    changed: &'b mut Vec<u8>,
) -> Result<&'b [u8], BadBase64> {
    let data = stream.unframe(bytes, payload);
    stream.grpc.request_data(data, last, changed)
}

#[cfg(test)]
mod tests;
