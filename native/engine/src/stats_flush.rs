//! What happens every `stats_flush_interval`: the process's own gauges, histograms merged, sinks fed.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tidegate_dataplane::Shared;
use tidegate_model::Name;
use tidegate_model::bootstrap::{StatsMatcher, StatsSink, StatsTagValue};
use tidegate_model::matcher::{StringMatcher, StringPattern};
use tidegate_stats::defs::{self, server as stat};
use tidegate_stats::render::Statsd;
use tidegate_stats::{Group, Registry, TagRules};

use crate::admin::certs::days_left;
use crate::config::{ServerState, TlsContext};
use crate::error::ConfigError;

/// The sinks and the gauges of the process.
pub(crate) struct StatsFlush {
    registry: Registry,
    server: Group<stat::Server>,
    state: Arc<ServerState>,
    started: Instant,
    sinks: Vec<(Way, Statsd)>,
    /// Keeps what is counted of sinks over TCP, if there are any.
    _statsd: Option<Group<defs::statsd::Statsd>>,
}

/// How lines leave.
enum Way {
    Udp(UdpSocket),
    /// By the workers, over TCP.
    Cluster(Name),
}

impl StatsFlush {
    /// A sink that cannot be opened is an error of the bootstrap.
    pub(crate) fn new(
        registry: &Registry,
        state: &Arc<ServerState>,
        started: Instant,
        sinks: &[StatsSink],
        rules: &TagRules,
    ) -> std::io::Result<Self> {
        let open = |sink: &StatsSink| {
            let (address, statsd) = match sink {
                StatsSink::Statsd { address, prefix } => (address, Statsd::new(prefix)),
                StatsSink::TcpStatsd { cluster, prefix } => {
                    return Ok((Way::Cluster(Name::clone(cluster)), Statsd::new(prefix)));
                }
                StatsSink::DogStatsd {
                    address,
                    prefix,
                    max_bytes_per_datagram,
                } => {
                    let max_bytes = usize::try_from(*max_bytes_per_datagram).unwrap_or(usize::MAX);
                    (address, Statsd::dog(prefix, rules.clone(), max_bytes))
                }
            };
            let any = if address.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let socket = UdpSocket::bind(any)?;
            // A full socket buffer loses a datagram rather than stop the thread.
            socket.set_nonblocking(true)?;
            socket.connect(address)?;
            Ok((Way::Udp(socket), statsd))
        };
        Ok(Self {
            registry: registry.clone(),
            server: registry.group("server."),
            state: Arc::clone(state),
            started,
            _statsd: sinks
                .iter()
                .any(|sink| matches!(sink, StatsSink::TcpStatsd { .. }))
                .then(|| registry.group("statsd.")),
            sinks: sinks.iter().map(open).collect::<std::io::Result<_>>()?,
        })
    }

    /// `workers`: as soon as there are any.
    pub(crate) fn flush(&mut self, workers: Option<&Shared>) {
        self.refresh_gauges();
        self.registry.merge_histograms();
        for (number, (way, statsd)) in self.sinks.iter_mut().enumerate() {
            match (way, workers) {
                (Way::Udp(socket), _) => statsd.flush(&self.registry, |datagram| {
                    // Statistics over UDP are sent, not delivered.
                    let _lost = socket.send(datagram.as_bytes());
                }),
                (Way::Cluster(cluster), Some(workers)) => {
                    let mut lines = Vec::new();
                    statsd.flush(&self.registry, |line| {
                        lines.extend_from_slice(line.as_bytes());
                        lines.push(b'\n');
                    });
                    workers.send_statsd(number, cluster, lines);
                }
                (Way::Cluster(_), None) => {}
            }
        }
    }

    /// How long the first certificate to end is still valid.
    pub(crate) fn count_certificates(&self, contexts: &[TlsContext]) {
        let now = SystemTime::now();
        let all = contexts
            .iter()
            .flat_map(|context| context.trusted_ca.iter().chain(&context.certificates));
        let days = all
            .map(|certificate| days_left(certificate.info.not_after, now))
            .min();
        let days = days.map_or(i64::from(u32::MAX), |days| days as i64);
        let server = self.server.shared();
        server.gauge_set(stat::DAYS_UNTIL_FIRST_CERT_EXPIRING, days);
    }

    /// Also before a page of statistics is printed.
    pub(crate) fn refresh_gauges(&self) {
        let server = self.server.shared();
        server.gauge_set(stat::STATE, self.state.get() as i64);
        server.gauge_set(stat::LIVE, i64::from(self.state.get() as u8 == 0));
        server.gauge_set(stat::UPTIME, self.started.elapsed().as_secs() as i64);
        let memory = memory();
        server.gauge_set(stat::MEMORY_ALLOCATED, memory.allocated as i64);
        server.gauge_set(stat::MEMORY_HEAP_SIZE, memory.heap as i64);
        server.gauge_set(stat::MEMORY_PHYSICAL_SIZE, memory.resident as i64);
        let mut connections = 0;
        self.registry.visit(|sample| {
            if sample.prefix.starts_with("listener.")
                && sample.name == "downstream_cx_active"
                && !sample.prefix.contains(".worker_")
                && let tidegate_stats::Value::Gauge(active) = sample.value
            {
                connections += active;
            }
        });
        server.gauge_set(stat::TOTAL_CONNECTIONS, connections);
    }
}

/// What the kernel says of this process's memory, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident and not backed by a file: what the program holds for itself.
    pub(crate) allocated: u64,
    /// Data segment: heap and stacks as reserved.
    pub(crate) heap: u64,
    pub(crate) resident: u64,
}

pub(crate) fn memory() -> Memory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    Memory {
        allocated: field("RssAnon:").unwrap_or_default(),
        heap: field("VmData:").unwrap_or_default(),
        resident: field("VmRSS:").unwrap_or_default(),
    }
}

/// The rules that cut labels out of names.
pub(crate) fn tag_rules(
    config: &tidegate_model::bootstrap::StatsConfig,
) -> Result<TagRules, ConfigError> {
    let mut rules = TagRules::new(config.use_all_default_tags);
    for (at, tag) in config.tags.iter().enumerate() {
        match &tag.value {
            StatsTagValue::Fixed(value) => rules.add_fixed(&tag.name, value),
            StatsTagValue::Regex(pattern) => {
                rules.add_regex(&tag.name, pattern).map_err(|reason| {
                    ConfigError::new("", format!("stats_config.stats_tags[{at}].regex"), reason)
                })?;
            }
        }
    }
    Ok(rules)
}

/// Lets only those metrics be seen that the bootstrap wants.
pub(crate) fn set_matcher(registry: &Registry, matcher: &StatsMatcher) -> Result<(), ConfigError> {
    match matcher {
        StatsMatcher::All => {}
        StatsMatcher::RejectAll => registry.set_filter(|_| false),
        StatsMatcher::Inclusion(patterns) => {
            let any = any_of(patterns)?;
            registry.set_filter(any);
        }
        StatsMatcher::Exclusion(patterns) => {
            let any = any_of(patterns)?;
            registry.set_filter(move |name| !any(name));
        }
    }
    Ok(())
}

/// Gives the histograms that the bootstrap names the buckets that it wants.
pub(crate) fn set_buckets(
    registry: &Registry,
    settings: &[(StringMatcher, Vec<f64>)],
) -> Result<(), ConfigError> {
    if settings.is_empty() {
        return Ok(());
    }
    let compiled = settings
        .iter()
        .map(|(matcher, bounds)| Ok((compile(matcher)?, Arc::from(bounds.as_slice()))))
        .collect::<Result<Vec<(Predicate, Arc<[f64]>)>, ConfigError>>()?;
    registry.set_buckets(move |name| {
        let found = compiled.iter().find(|(matches, _)| matches(name));
        found.map(|(_, bounds)| Arc::clone(bounds))
    });
    Ok(())
}

fn any_of(
    patterns: &[StringMatcher],
) -> Result<impl Fn(&str) -> bool + Send + Sync + 'static, ConfigError> {
    let compiled = patterns
        .iter()
        .map(compile)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(move |name: &str| compiled.iter().any(|matches| matches(name)))
}

type Predicate = Box<dyn Fn(&str) -> bool + Send + Sync>;

fn compile(matcher: &StringMatcher) -> Result<Predicate, ConfigError> {
    let ignore_case = matcher.ignore_case;
    let fold = move |text: &str| {
        if ignore_case {
            text.to_ascii_lowercase()
        } else {
            text.to_owned()
        }
    };
    Ok(match &matcher.pattern {
        StringPattern::Exact(text) => {
            let text = fold(text);
            Box::new(move |name| fold(name) == text)
        }
        StringPattern::Prefix(text) => {
            let text = fold(text);
            Box::new(move |name| fold(name).starts_with(&text))
        }
        StringPattern::Suffix(text) => {
            let text = fold(text);
            Box::new(move |name| fold(name).ends_with(&text))
        }
        StringPattern::Contains(text) => {
            let text = fold(text);
            Box::new(move |name| fold(name).contains(&text))
        }
        StringPattern::SafeRegex(pattern) => {
            let regex = regex::Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
                ConfigError::new("", "stats_config.stats_matcher", error.to_string())
            })?;
            Box::new(move |name| regex.is_match(name))
        }
    })
}
