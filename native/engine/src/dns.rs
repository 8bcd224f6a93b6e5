//! Name resolution for STRICT_DNS and LOGICAL_DNS clusters, on the aux thread.
//!
//! One task per cluster asks for each of its names, hands the answers over and sleeps until the refresh is due. It follows
//! the system's configuration (`/etc/resolv.conf` with its search list and `ndots`, `/etc/hosts`), read anew when the files
//! change, as a pod's may.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use tidegate_model::Name;
use tidegate_model::cluster::{Cluster, DnsLookupFamily};
use tidegate_rt::Rng;
use tidegate_stats::Shared;
use tidegate_stats::defs::{cluster as stat, dns};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use crate::config::{DnsJob, DnsOutcome};

/// A task per cluster.
pub(crate) struct Dns {
    tasks: HashMap<Name, (Arc<Cluster>, JoinHandle<()>)>,
    outcomes: UnboundedSender<DnsOutcome>,
    stats: Shared<dns::Dns>,
}

impl Dns {
    pub(crate) fn new(outcomes: UnboundedSender<DnsOutcome>, stats: Shared<dns::Dns>) -> Self {
        Self {
            tasks: HashMap::new(),
            outcomes,
            stats,
        }
    }

    /// Starts tasks of new (and changed) clusters, ends those of gone ones.
    pub(crate) fn set(&mut self, jobs: Vec<DnsJob>) {
        let mut before = std::mem::take(&mut self.tasks);
        for job in jobs {
            let name = Name::clone(&job.cluster.name);
            // A cluster has a task for its active and its warming version, which differ by their configuration.
            let key = if self.tasks.contains_key(&name) {
                Name::from(format!("{name}\0warming"))
            } else {
                name
            };
            let task = match before.remove(&key) {
                Some((config, task)) if Arc::ptr_eq(&config, &job.cluster) => task,
                other => {
                    if let Some((_, task)) = other {
                        task.abort();
                    }
                    tokio::spawn(run(job.clone(), self.outcomes.clone(), self.stats.clone()))
                }
            };
            self.tasks.insert(key, (job.cluster, task));
        }
        for (_, task) in before.into_values() {
            task.abort();
        }
    }
}

async fn run(job: DnsJob, outcomes: UnboundedSender<DnsOutcome>, stats: Shared<dns::Dns>) {
    let mut resolver = None;
    let mut rng = Rng::new();
    loop {
        let mut next = job.refresh_rate;
        if let Err(error) = refresh_resolver(&mut resolver, job.lookup_family) {
            // Without a configuration there is no name service, which every name then says.
            eprintln!("dns: {error}");
        }
        for (host, port) in &job.targets {
            let answer = resolve(
                resolver.as_ref().map(|(resolver, _)| resolver),
                &job,
                host,
                &stats,
            )
            .await;
            let addresses = answer.map(|(addresses, ttl)| {
                if job.respect_dns_ttl {
                    next = next.min(ttl.max(Duration::from_secs(1)));
                }
                addresses
            });
            let outcome = DnsOutcome {
                cluster: Arc::clone(&job.cluster),
                host: Name::clone(host),
                port: *port,
                addresses,
            };
            if outcomes.send(outcome).is_err() {
                return;
            }
        }
        // So that not all of a name's clients ask at once.
        let jitter = rng.below((job.jitter.as_millis() as u64).max(1));
        tokio::time::sleep(next + Duration::from_millis(jitter)).await;
    }
}

/// The addresses and how long they are valid; `None`: nobody could say.
async fn resolve(
    resolver: Option<&TokioResolver>,
    job: &DnsJob,
    host: &str,
    stats: &Shared<dns::Dns>,
) -> Option<(Vec<IpAddr>, Duration)> {
    job.membership.shared().inc(stat::UPDATE_ATTEMPT);
    stats.inc(dns::RESOLVE_TOTAL);
    stats.gauge_add(dns::PENDING_RESOLUTIONS, 1);
    let answer = match resolver {
        Some(resolver) => Some(resolver.lookup_ip(host).await),
        None => None,
    };
    stats.gauge_add(dns::PENDING_RESOLUTIONS, -1);
    match answer? {
        Ok(found) => {
            let ttl = found
                .valid_until()
                .saturating_duration_since(Instant::now());
            Some((ordered(found.iter().collect(), job.lookup_family), ttl))
        }
        Err(error) if error.is_no_records_found() => {
            // A name without addresses is an answer: the cluster is empty.
            stats.inc(dns::NOT_FOUND);
            Some((Vec::new(), job.refresh_rate))
        }
        Err(_) => {
            stats.inc(dns::GET_ADDR_FAILURE);
            None
        }
    }
}

/// `AUTO` has only the family that answered first, which the strategy may not guarantee for names in `/etc/hosts`.
fn ordered(addresses: Vec<IpAddr>, family: DnsLookupFamily) -> Vec<IpAddr> {
    let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().copied().partition(IpAddr::is_ipv6);
    match family {
        DnsLookupFamily::All => addresses,
        DnsLookupFamily::V4Only => v4,
        DnsLookupFamily::V6Only => v6,
        DnsLookupFamily::Auto if v6.is_empty() => v4,
        DnsLookupFamily::Auto => v6,
        DnsLookupFamily::V4Preferred if v4.is_empty() => v6,
        DnsLookupFamily::V4Preferred => v4,
    }
}

/// When the system's files were last written.
type Stamp = [Option<SystemTime>; 2];

fn stamp() -> Stamp {
    ["/etc/resolv.conf", "/etc/hosts"].map(|path| {
        std::fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok()
    })
}

fn refresh_resolver(
    current: &mut Option<(TokioResolver, Stamp)>,
    family: DnsLookupFamily,
) -> Result<(), String> {
    let now = stamp();
    if current.as_ref().is_some_and(|(_, before)| *before == now) {
        return Ok(());
    }
    let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
    let options = builder.options_mut();
    // Each refresh is meant to ask.
    options.cache_size = 0;
    options.ip_strategy = match family {
        DnsLookupFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        DnsLookupFamily::V4Only => LookupIpStrategy::Ipv4Only,
        DnsLookupFamily::V6Only => LookupIpStrategy::Ipv6Only,
        DnsLookupFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        DnsLookupFamily::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    let resolver = builder.build().map_err(|error| error.to_string())?;
    *current = Some((resolver, now));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_choose_among_the_addresses() {
        let (v4, v6): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "::1".parse().unwrap());
        for (family, expected) in [
            (DnsLookupFamily::Auto, vec![v6]),
            (DnsLookupFamily::V4Only, vec![v4]),
            (DnsLookupFamily::V4Preferred, vec![v4]),
            (DnsLookupFamily::All, vec![v4, v6]),
        ] {
            assert_eq!(ordered(vec![v4, v6], family), expected);
        }
        assert_eq!(ordered(vec![v4], DnsLookupFamily::Auto), vec![v4]);
    }
}
