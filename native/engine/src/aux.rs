//! The aux thread: one tokio loop for what may use ordinary async libraries (admin, DNS, statistics).
//!
//! It is told what to do through a channel and reaches the configuration only through the engine's core.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_dataplane::DrainScope;
use tidegate_rt::Clock;
use tidegate_stats::defs::dns as dns_stat;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::admin::{self, AdminSocket};
use crate::config::{DnsJob, DnsOutcome, Manager};
use crate::dns::Dns;
use crate::engine::Core;
use crate::events::Event;
use crate::stats_flush::StatsFlush;

/// DNS answers that arrive within this time are published together.
const DNS_BATCH: Duration = Duration::from_millis(5);

/// How often a drain looks whether connections are left.
const DRAIN_CHECK: Duration = Duration::from_millis(50);

/// What the aux thread is asked to do.
pub(crate) enum Order {
    /// Resolve these from now on.
    Dns(Vec<DnsJob>),
    /// Report when the connections are gone or the time is over.
    WatchDrain(Duration),
    /// Close the listeners when the time is over.
    StopListenersAfter(Duration, DrainScope),
    Stop,
}

/// The sending end.
pub(crate) type Orders = UnboundedSender<Order>;

/// Starts the thread.
pub(crate) fn start(
    core: Arc<Core>,
    orders: UnboundedReceiver<Order>,
    admin: Option<AdminSocket>,
    flush: StatsFlush,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()?;
    std::thread::Builder::new()
        .name("aux".to_owned())
        .spawn(move || runtime.block_on(run(core, orders, admin, flush)))
}

async fn run(
    core: Arc<Core>,
    mut orders: UnboundedReceiver<Order>,
    admin: Option<AdminSocket>,
    flush: StatsFlush,
) {
    if let Some(admin) = admin {
        tokio::spawn(admin::serve(Arc::clone(&core), admin));
    }
    tokio::spawn(flush_statistics(Arc::clone(&core), flush));
    tokio::spawn(detect_outliers(Arc::clone(&core)));
    let (outcomes, answers) = unbounded_channel();
    tokio::spawn(take_answers(Arc::clone(&core), answers));
    let stats = core.registry.group::<dns_stat::Dns>("dns.cares.");
    let mut dns = Dns::new(outcomes, stats.shared());
    while let Some(order) = orders.recv().await {
        match order {
            Order::Dns(jobs) => dns.set(jobs),
            Order::WatchDrain(limit) => {
                tokio::spawn(watch_drain(Arc::clone(&core), limit));
            }
            Order::StopListenersAfter(time, scope) => {
                let core = Arc::clone(&core);
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    core.drain_listeners(scope, true);
                });
            }
            Order::Stop => return,
        }
    }
}

async fn flush_statistics(core: Arc<Core>, mut flush: StatsFlush) {
    let mut ticks = tokio::time::interval(core.loaded.bootstrap.stats_flush_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let workers = core.lock().dataplane().map(|all| Arc::clone(all.shared()));
        flush.flush(workers.as_deref());
        core.with_manager(Manager::forget_drained);
        flush.count_certificates(&core.lock().tls_contexts());
    }
}

/// Judges hosts when the intervals of outlier detection are over. A new configuration may have sooner ones.
async fn detect_outliers(core: Arc<Core>) {
    loop {
        let now = Clock::precise();
        let due = core
            .lock()
            .dataplane()
            .and_then(|dataplane| dataplane.detect_outliers(now));
        match due {
            Some(due) => {
                let wait = tokio::time::timeout(due.since(now), core.configured.notified());
                let _in_time = wait.await;
            }
            None => core.configured.notified().await,
        }
    }
}

/// Publishes what DNS says, several answers at once when many arrive.
async fn take_answers(core: Arc<Core>, mut answers: UnboundedReceiver<DnsOutcome>) {
    while let Some(first) = answers.recv().await {
        let mut batch = vec![first];
        tokio::time::sleep(DNS_BATCH).await;
        while let Ok(more) = answers.try_recv() {
            batch.push(more);
        }
        core.with_manager(|manager| manager.resolved(batch));
    }
}

async fn watch_drain(core: Arc<Core>, limit: Duration) {
    let deadline = Instant::now() + limit;
    while core.downstream_connections() > 0 && Instant::now() < deadline {
        tokio::time::sleep(DRAIN_CHECK).await;
    }
    core.events.raise(Event::Drained);
}
