//! A data plane in this process, its configuration, and peers to talk to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidegate_dataplane::{DataplaneConfig, DataplaneHandle, LogSink, spawn_workers};
use tidegate_model::Name;
use tidegate_model::access_log::{AccessLog, LogFormat};
use tidegate_model::cluster::{
    Address, CircuitBreakers, Cluster, ClusterLoadAssignment, Discovery, HealthStatus, LbEndpoint,
    LbPolicy, Locality, LocalityLbEndpoints, OriginalDst, UpstreamHttpOptions,
};
use tidegate_model::listener::{
    FilterChain, FilterChainMatch, Listener, NetworkFilter, TcpCluster, TcpProxy, TrafficDirection,
};
use tidegate_model::tls::DownstreamTransport;
use tidegate_snapshot::{Snapshot, SnapshotBuilder};
use tidegate_stats::Registry;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Collects access-log lines; panics when asked to write to the file `panic`.
#[derive(Default)]
pub(crate) struct MemoryLog(Mutex<Vec<u8>>);

impl LogSink for MemoryLog {
    fn write(&self, path: &Name, lines: Vec<u8>) {
        assert_ne!(&**path, "panic");
        self.0.lock().unwrap().extend(lines);
    }
}

impl MemoryLog {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

pub(crate) struct Running {
    pub(crate) handle: DataplaneHandle,
    pub(crate) registry: Registry,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) snapshot: Arc<Snapshot>,
}

impl Running {
    pub(crate) fn start() -> Self {
        Self::with(DataplaneConfig::default())
    }

    pub(crate) fn with(mut config: DataplaneConfig) -> Self {
        config.log_flush_interval = Duration::from_millis(5);
        let registry = Registry::new(config.workers);
        let log = Arc::new(MemoryLog::default());
        let handle = spawn_workers(
            config,
            registry.clone(),
            Arc::clone(&log) as Arc<dyn LogSink>,
        )
        .unwrap();
        Self {
            handle,
            registry,
            log,
            snapshot: Arc::new(Snapshot::default()),
        }
    }

    pub(crate) fn update(&mut self, change: impl FnOnce(&mut SnapshotBuilder)) {
        let mut builder = SnapshotBuilder::from(&self.snapshot);
        change(&mut builder);
        self.snapshot = builder.build();
        let errors = self.handle.publish(Arc::clone(&self.snapshot));
        assert!(errors.is_empty(), "{errors:?}");
    }

    /// One listener, one TCP proxy, one cluster.
    pub(crate) fn serve(&mut self, listener: Listener, cluster: Cluster) -> SocketAddr {
        let name = listener.name.clone();
        self.update(|builder| {
            builder.set_cluster(Arc::new(cluster)).unwrap();
            builder.set_listener(Arc::new(listener)).unwrap();
        });
        self.address(&name)
    }

    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        self.handle.local_addresses(listener)[0]
    }

    pub(crate) fn stat(&self, name: &str) -> i64 {
        self.registry.value(name).unwrap_or(0)
    }

    #[track_caller]
    pub(crate) fn wait_stat(&self, name: &str, wanted: i64) {
        wait_for(
            || self.stat(name) == wanted,
            || format!("{name} is {}, not {wanted}", self.stat(name)),
        );
    }

    #[track_caller]
    pub(crate) fn wait_log(&self, wanted: &str) {
        wait_for(
            || self.log.text() == wanted,
            || format!("log is {:?}, not {wanted:?}", self.log.text()),
        );
    }
}

#[track_caller]
pub(crate) fn wait_for(done: impl Fn() -> bool, complaint: impl Fn() -> String) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{}", complaint());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Logs flags, bytes, hosts and details.
pub(crate) fn access_log() -> Vec<Arc<AccessLog>> {
    vec![Arc::new(AccessLog {
        path: "log".into(),
        format: LogFormat::Text(
            "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST% %UPSTREAM_CLUSTER%\n"
                .into(),
        ),
        filter: None,
    })]
}

pub(crate) fn tcp_proxy(cluster: &str) -> TcpProxy {
    TcpProxy {
        stat_prefix: "test".into(),
        cluster: TcpCluster::Single(cluster.into()),
        idle_timeout: Some(Duration::from_hours(1)),
        max_downstream_connection_duration: None,
        access_log: access_log(),
        max_connect_attempts: 1,
        hash_source_ip: false,
    }
}

pub(crate) fn chain(proxy: TcpProxy) -> FilterChain {
    FilterChain {
        name: "".into(),
        matches: FilterChainMatch::default(),
        read_filters: Vec::new(),
        filter: NetworkFilter::TcpProxy(Arc::new(proxy)),
        transport_socket: DownstreamTransport::default(),
        transport_socket_connect_timeout: None,
    }
}

pub(crate) fn listener(name: &str, address: &str, proxy: TcpProxy) -> Listener {
    Listener {
        name: name.into(),
        address: address.parse().unwrap(),
        additional_addresses: Vec::new(),
        stat_prefix: name.into(),
        bind_to_port: true,
        use_original_dst: false,
        listener_filters: Vec::new(),
        filter_chains: vec![chain(proxy)],
        default_filter_chain: None,
        per_connection_buffer_limit_bytes: 1 << 20,
        listener_filters_timeout: Some(Duration::from_secs(15)),
        continue_on_listener_filters_timeout: false,
        traffic_direction: TrafficDirection::Unspecified,
        reuse_port: true,
        exact_balance: false,
        tcp_backlog_size: 128,
        max_accepts_per_event: None,
        freebind: false,
        transparent: false,
        access_log: Vec::new(),
        drain_type_modify_only: false,
        max_connections: None,
        ignore_global_conn_limit: false,
    }
}

/// A listener on a port the kernel chooses, to the cluster `c`.
pub(crate) fn simple_listener() -> Listener {
    listener("l", "127.0.0.1:0", tcp_proxy("c"))
}

pub(crate) fn endpoint(address: SocketAddr) -> LbEndpoint {
    LbEndpoint {
        address: Address::Socket(address),
        hostname: "".into(),
        health: HealthStatus::Unknown,
        load_balancing_weight: 1,
        transport_socket_match: Vec::new(),
        workload: None,
        lb_metadata: None,
    }
}

pub(crate) fn assignment(name: &str, endpoints: Vec<LbEndpoint>) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: name.into(),
        localities: vec![LocalityLbEndpoints {
            locality: Locality::default(),
            endpoints,
            load_balancing_weight: None,
            priority: 0,
        }],
        overprovisioning_factor: 140,
        weighted_priority_health: false,
        drop_overloads: Vec::new(),
    }
}

pub(crate) fn cluster_of(name: &str, discovery: Discovery) -> Cluster {
    let lb_policy = if matches!(discovery, Discovery::OriginalDst(_)) {
        LbPolicy::ClusterProvided
    } else {
        LbPolicy::RoundRobin
    };
    Cluster {
        name: name.into(),
        alt_stat_name: name.into(),
        discovery,
        connect_timeout: Duration::from_secs(5),
        per_connection_buffer_limit_bytes: 1 << 20,
        lb_policy,
        circuit_breakers: CircuitBreakers::default(),
        http: UpstreamHttpOptions::default(),
        ..Cluster::default()
    }
}

pub(crate) fn cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
    let endpoints = addresses.iter().copied().map(endpoint).collect();
    cluster_of(
        name,
        Discovery::Static(Arc::new(assignment(name, endpoints))),
    )
}

pub(crate) fn original_dst_cluster(name: &str) -> Cluster {
    cluster_of(
        name,
        Discovery::OriginalDst(OriginalDst {
            cleanup_interval: Duration::from_secs(5),
            ..OriginalDst::default()
        }),
    )
}

/// A listening socket of the test's own.
pub(crate) fn backend() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Answers every connection with its own bytes until the peer ends; runs until the process ends.
pub(crate) fn echo_backend() -> SocketAddr {
    let (listener, address) = backend();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut buf = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut buf) {
                    if stream.write_all(&buf[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A port nobody listens on.
pub(crate) fn closed_port() -> SocketAddr {
    backend().1
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[track_caller]
pub(crate) fn ping(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}

/// The peer has ended: nothing more to read, no error.
#[track_caller]
pub(crate) fn expect_eof(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

#[track_caller]
pub(crate) fn expect_reset(stream: &mut TcpStream) {
    let error = stream.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
}

/// Makes closing send a reset.
pub(crate) fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

/// Bytes of which every position is recognisable.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| ((i * 31) ^ (i >> 8) ^ (i >> 16)) as u8)
        .collect()
}
