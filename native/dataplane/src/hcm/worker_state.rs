//! What the HTTP connections of one worker share: scratch space, the runtimes of connection managers, spare streams.
//!
//! Nothing here outlives an event by content; it exists so that a request allocates nothing.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tidegate_codec::h1::HeadScratch;
use tidegate_codec::h2::Scratch;
use tidegate_rt::{Clock, Moment};
use tidegate_snapshot::Chain;

use super::grpc::GrpcCounters;
use super::lua::Scripts;
use super::runtime::HcmRuntime;
use super::stream::Stream;
use super::tracing::reporter::Reporter;
use crate::listener::ListenerRuntime;
use crate::worker::Core;

/// Buffers kept for reuse, and how large one may be.
const SPARE_BUFFERS: usize = 64;
const LARGEST_BUFFER: usize = 256 * 1024;
/// Streams kept for reuse.
const SPARE_STREAMS: usize = 256;

/// See the module. Handlers find it as `worker.core.http`.
pub(crate) struct HttpState {
    /// Where the parser leaves the lines of the head it read last.
    pub(crate) scratch: HeadScratch,
    /// The same for HTTP/2.
    pub(crate) fields: Scratch,
    /// Heads are put together here and leave with the body in one system call.
    pub(crate) head: Vec<u8>,
    /// Body bytes that have to be put together from several extents.
    pub(crate) body: Vec<u8>,
    /// Values of headers on their way into a header list.
    pub(crate) value: Vec<u8>,
    /// Lent to HTTP/2 connections with something to say.
    buffers: Vec<Vec<u8>>,
    date: DateText,
    managers: FxHashMap<(usize, usize), Rc<HcmRuntime>>,
    #[expect(clippy::vec_box, reason = "a stream is handed out by its box")]
    spare: Vec<Box<Stream>>,
    /// Where spans are collected.
    pub(crate) reporters: Vec<Rc<RefCell<Reporter>>>,
    /// The counters of gRPC methods.
    pub(crate) grpc: GrpcCounters,
    /// The scripts of Lua filters.
    pub(crate) lua: Scripts,
    /// The address that stands in `x-forwarded-for` for peers on the loopback interface.
    local_address: Option<String>,
}

impl HttpState {
    pub(crate) fn new() -> Self {
        Self {
            scratch: HeadScratch::new(),
            fields: Scratch::new(),
            buffers: Vec::new(),
            head: Vec::with_capacity(4096),
            body: Vec::new(),
            value: Vec::with_capacity(256),
            date: DateText::default(),
            managers: FxHashMap::default(),
            spare: Vec::new(),
            reporters: Vec::new(),
            grpc: GrpcCounters::default(),
            lua: Scripts::default(),
            local_address: None,
        }
    }

    /// The connection manager of a filter chain, in this worker.
    pub(crate) fn manager(
        core: &mut Core,
        chain: &Arc<Chain>,
        listener: &Rc<ListenerRuntime>,
    ) -> Option<Rc<HcmRuntime>> {
        let id = (Arc::as_ptr(chain) as usize, Rc::as_ptr(listener) as usize);
        if let Some(found) = core.http.managers.get(&id).map(Rc::clone) {
            return Some(found);
        }
        let made = Rc::new(HcmRuntime::new(core, chain, listener)?);
        core.http.managers.insert(id, Rc::clone(&made));
        Some(made)
    }

    /// Forgets the managers of filter chains that are gone with their last connection.
    pub(crate) fn forget_unused_managers(&mut self) {
        self.managers.retain(|_, manager| !manager.is_unused());
        self.lua.forget_unused();
    }

    pub(crate) fn take_stream(&mut self) -> Box<Stream> {
        self.spare.pop().unwrap_or_default()
    }

    pub(crate) fn give_stream(&mut self, mut stream: Box<Stream>) {
        if self.spare.len() < SPARE_STREAMS {
            stream.reset();
            self.spare.push(stream);
        }
    }

    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    pub(crate) fn give_buffer(&mut self, buffer: Vec<u8>) {
        if self.buffers.len() < SPARE_BUFFERS && (1..=LARGEST_BUFFER).contains(&buffer.capacity()) {
            self.buffers.push(buffer);
        }
    }

    /// The value of a `date` header now.
    #[inline]
    pub(crate) fn date(&mut self, clock: &Clock) -> [u8; 29] {
        self.date.at(clock)
    }

    /// Envoy's idea of the node's own address: that of the interface towards the world, else loopback.
    pub(crate) fn local_address(&mut self) -> &str {
        self.local_address.get_or_insert_with(find_local_address)
    }
}

/// No packet is sent: connecting a datagram socket only asks the routing table. The address is one reserved for documentation.
fn find_local_address() -> String {
    let towards = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            socket.connect(towards)?;
            socket.local_addr()
        })
        .map_or_else(
            |_| Ipv4Addr::LOCALHOST.to_string(),
            |address| address.ip().to_string(),
        )
}

/// The text of a `date` header, written anew once a second.
struct DateText {
    until: Moment,
    text: [u8; 29],
}

impl Default for DateText {
    fn default() -> Self {
        Self {
            until: Moment::from_nanos(0),
            text: *b"Thu, 01 Jan 1970 00:00:00 GMT",
        }
    }
}

impl DateText {
    fn at(&mut self, clock: &Clock) -> [u8; 29] {
        if clock.now() >= self.until {
            self.renew(clock);
        }
        self.text
    }

    #[cold]
    fn renew(&mut self, clock: &Clock) {
        let since_epoch = clock
            .wall()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        self.text = imf_fixdate(since_epoch.as_secs());
        let left = 1_000_000_000 - since_epoch.subsec_nanos();
        self.until = clock.now() + std::time::Duration::from_nanos(u64::from(left));
    }
}

/// RFC 9110's IMF-fixdate for seconds since 1970.
fn imf_fixdate(seconds: u64) -> [u8; 29] {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    let days = seconds / 86_400;
    let of_day = seconds % 86_400;
    // Days to civil date, with years beginning in March.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let two = |value: u64| [b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8];
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = text.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, DAYS.get((days % 7) as usize).copied().unwrap_or(b"Thu"));
    put(5, &two(day));
    put(8, MONTHS.get(month as usize - 1).copied().unwrap_or(b"Jan"));
    put(12, &two(year / 100));
    put(14, &two(year));
    put(17, &two(of_day / 3_600));
    put(20, &two(of_day / 60 % 60));
    put(23, &two(of_day % 60));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_795_492_971, "Tue, 24 Nov 2026 04:02:51 GMT"),
            (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&imf_fixdate(seconds)).unwrap(), text);
        }
    }
}
