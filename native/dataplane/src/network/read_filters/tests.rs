use std::cell::RefCell;
use std::time::Duration;

use tidegate_model::listener::{
    FilterChain, FilterChainMatch, Listener, NetworkFilter, TcpCluster, TcpProxy, TrafficDirection,
};
use tidegate_model::tls::DownstreamTransport;
use tidegate_rt::Waker;
use tidegate_snapshot::SnapshotBuilder;
use tidegate_stats::Registry;

use super::*;
use crate::listener::{ListenerShared, ListenerStats};
use crate::shared::{DataplaneConfig, Shared, WorkerContext};
use crate::worker::LogSink;

struct Nowhere;

impl LogSink for Nowhere {
    fn write(&self, _: &Name, _: Vec<u8>) {}
}

type Calls = Rc<RefCell<Vec<String>>>;

/// Says what it was told to, call by call.
struct Scripted {
    name: &'static str,
    new: Verdict,
    data: Vec<Verdict>,
    consume: usize,
    calls: Calls,
}

impl ReadFilter for Scripted {
    fn on_new_connection(&mut self, _: &mut FilterContext<'_>, _: &mut FilterState) -> Verdict {
        self.calls.borrow_mut().push(format!("{} new", self.name));
        self.new
    }

    fn wants_data(&self) -> bool {
        !self.data.is_empty()
    }

    fn on_data(
        &mut self,
        _: &mut FilterContext<'_>,
        state: &mut FilterState,
        input: &mut Input<'_>,
    ) -> Verdict {
        let text = String::from_utf8_lossy(input.bytes()).into_owned();
        self.calls.borrow_mut().push(format!(
            "{} {text}{}",
            self.name,
            if input.end { "$" } else { "" }
        ));
        let verdict = self.data.remove(0);
        if verdict == Verdict::Continue {
            input.consume(self.consume);
            state.reply.extend_from_slice(self.name.as_bytes());
        }
        verdict
    }
}

struct Bench {
    core: Core,
    listener: Rc<ListenerRuntime>,
    info: ConnectionInfo,
    calls: Calls,
}

impl Bench {
    fn new() -> Self {
        let wakers = vec![Waker::new().unwrap()];
        let waker = wakers[0].clone();
        let shared = Arc::new(Shared::new(
            DataplaneConfig::default(),
            Registry::new(1),
            Arc::new(Nowhere),
            wakers,
        ));
        let registry = shared.registry.clone();
        let mut builder = SnapshotBuilder::default();
        builder.set_listener(Arc::new(listener())).unwrap();
        let snapshot = builder.build();
        let compiled = Arc::clone(snapshot.listener_by_name("l").unwrap());
        let listener = ListenerShared {
            compiled,
            bound: Vec::new(),
            stats: Arc::new(ListenerStats::new(
                registry.group("listener.l."),
                Vec::new(),
                None,
            )),
            chain_stats: Vec::new(),
            rbac: Vec::new(),
            tls_inspector: None,
            http_inspector: None,
        };
        let context = WorkerContext {
            id: 0,
            waker,
            shared,
        };
        let core = Core::new(context, 8).unwrap();
        let address = "127.0.0.1:1".parse().unwrap();
        let info = ConnectionInfo::new(1, address, address, core.now());
        Self {
            listener: Rc::new(ListenerRuntime::new(&listener, 0)),
            core,
            info,
            calls: Calls::default(),
        }
    }

    fn filter(
        &self,
        name: &'static str,
        new: Verdict,
        data: &[Verdict],
        consume: usize,
    ) -> Box<dyn ReadFilter> {
        Box::new(Scripted {
            name,
            new,
            data: data.to_vec(),
            consume,
            calls: Rc::clone(&self.calls),
        })
    }

    fn with<T>(&mut self, ask: impl FnOnce(&mut FilterContext<'_>) -> T) -> T {
        let chain = Arc::clone(&self.listener.compiled.filter_chains.chains()[0]);
        ask(&mut FilterContext {
            core: &mut self.core,
            key: Key::NONE,
            info: &self.info,
            listener: &self.listener,
            chain: &chain,
        })
    }

    fn feed(&mut self, filters: &mut ReadFilters, bytes: &str) -> Passed<'static> {
        self.with(
            |context| match filters.feed(context, bytes.as_bytes(), false) {
                Passed::On(bytes) => Passed::On(Cow::Owned(bytes.into_owned())),
                Passed::Stay => Passed::Stay,
                Passed::Close => Passed::Close,
            },
        )
    }

    fn calls(&self) -> String {
        let calls = self.calls.borrow_mut().drain(..).collect::<Vec<_>>();
        calls.join(", ")
    }
}

fn listener() -> Listener {
    Listener {
        name: "l".into(),
        address: "127.0.0.1:1".parse().unwrap(),
        additional_addresses: Vec::new(),
        stat_prefix: "l".into(),
        bind_to_port: false,
        use_original_dst: false,
        listener_filters: Vec::new(),
        filter_chains: vec![FilterChain {
            name: "".into(),
            matches: FilterChainMatch::default(),
            read_filters: Vec::new(),
            filter: NetworkFilter::TcpProxy(Arc::new(TcpProxy {
                stat_prefix: "t".into(),
                cluster: TcpCluster::Single("c".into()),
                idle_timeout: None,
                max_downstream_connection_duration: None,
                access_log: Vec::new(),
                max_connect_attempts: 1,
                hash_source_ip: false,
            })),
            transport_socket: DownstreamTransport::default(),
            transport_socket_connect_timeout: None,
        }],
        default_filter_chain: None,
        per_connection_buffer_limit_bytes: 1 << 20,
        listener_filters_timeout: Some(Duration::from_secs(15)),
        continue_on_listener_filters_timeout: false,
        traffic_direction: TrafficDirection::Unspecified,
        reuse_port: true,
        exact_balance: false,
        tcp_backlog_size: 16,
        max_accepts_per_event: None,
        freebind: false,
        transparent: false,
        access_log: Vec::new(),
        drain_type_modify_only: false,
        max_connections: None,
        ignore_global_conn_limit: false,
    }
}

fn on(text: &str) -> Passed<'static> {
    Passed::On(Cow::Owned(text.as_bytes().to_vec()))
}

#[test]
fn each_filter_hears_of_the_connection_before_the_next() {
    let mut bench = Bench::new();
    let a = bench.filter("a", Verdict::Continue, &[], 0);
    let b = bench.filter("b", Verdict::Continue, &[Verdict::Continue], 0);
    let mut filters = ReadFilters::new(vec![a, b]);
    assert_eq!(bench.with(|c| filters.start(c)), on(""));
    assert_eq!(bench.calls(), "a new, b new");
    assert!(filters.is_watching());
    assert_eq!(bench.feed(&mut filters, "xy"), on("xy"));
    assert_eq!(bench.calls(), "b xy");
    assert!(!filters.is_watching());
    assert_eq!(filters.state.reply, b"b");
}

#[test]
fn a_filter_that_needs_more_gets_everything_again_and_may_take_from_it() {
    let mut bench = Bench::new();
    let needs = [Verdict::NeedData, Verdict::Continue];
    let a = bench.filter("a", Verdict::Continue, &needs, 2);
    let b = bench.filter("b", Verdict::Continue, &[Verdict::Continue], 0);
    let mut filters = ReadFilters::new(vec![a, b]);
    assert_eq!(bench.with(|c| filters.start(c)), on(""));
    assert_eq!(bench.feed(&mut filters, "x"), Passed::Stay);
    assert!(!filters.has_all() && !filters.is_waiting());
    assert_eq!(bench.feed(&mut filters, "yz"), on("z"));
    assert_eq!(bench.calls(), "a new, b new, a x, a xyz, b z");
    assert!(filters.has_all() && !filters.is_watching());
}

#[test]
fn a_filter_that_waits_is_not_asked_again() {
    let mut bench = Bench::new();
    let a = bench.filter("a", Verdict::Wait, &[], 0);
    let b = bench.filter("b", Verdict::Continue, &[Verdict::Wait], 0);
    let mut filters = ReadFilters::new(vec![a, b]);
    assert_eq!(bench.with(|c| filters.start(c)), Passed::Stay);
    assert!(filters.is_waiting() && filters.is_watching());
    assert_eq!(bench.with(|c| filters.resume(c)), on(""));
    assert_eq!(bench.feed(&mut filters, "x"), Passed::Stay);
    assert_eq!(bench.with(|c| filters.resume(c)), on("x"));
    // A late nudge changes nothing.
    assert_eq!(bench.with(|c| filters.resume(c)), Passed::Stay);
    assert_eq!(bench.calls(), "a new, b new, b x");
}

#[test]
fn nobody_hears_of_a_connection_that_was_refused_before() {
    let mut bench = Bench::new();
    let a = bench.filter("a", Verdict::Close, &[], 0);
    let b = bench.filter("b", Verdict::Continue, &[], 0);
    let mut filters = ReadFilters::new(vec![a, b]);
    assert_eq!(bench.with(|c| filters.start(c)), Passed::Close);
    assert_eq!(bench.calls(), "a new");
}
