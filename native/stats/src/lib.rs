//! Counters, gauges and histograms under Envoy's names, without a lock or a shared cache line on the way of a request.
//!
//! A *group* is all metrics below one prefix (`cluster.NAME.`): a static definition ([`GroupDef`], written with the `group!`
//! macro in [`defs`]) plus the prefix. Each thread that counts has a [`Local`] handle of the group, backed by cells that only
//! this thread writes (plain relaxed load and store); a scrape sums over the threads. Threads that are not workers write
//! through [`Shared`], with atomic additions. A group costs some hundred bytes until a thread counts in it, and disappears
//! with the last [`Group`] handle.
//!
//! ```
//! use tidegate_stats::{Registry, defs::cluster};
//!
//! let registry = Registry::new(2);
//! let group = registry.group::<cluster::Traffic>("cluster.reviews.");
//! let stats = group.local(0); // in worker 0
//! stats.inc(cluster::UPSTREAM_RQ_TOTAL);
//! stats.gauge_inc(cluster::UPSTREAM_RQ_ACTIVE);
//! stats.record(cluster::UPSTREAM_RQ_TIME, 12); // milliseconds
//! stats.code(cluster::UPSTREAM_RQ, 200); // upstream_rq_200 and upstream_rq_2xx
//! ```
//!
//! This crate must not know what is counted, nor do any I/O: it renders text, others send it.

#![recursion_limit = "256"]

mod def;
pub mod defs;
mod histogram;
mod registry;
pub mod render;
mod tags;

pub use def::{Codes, Counter, Def, Gauge, GroupDef, Histogram, Text};
pub use histogram::{BUCKET_BOUNDS, HistogramSnapshot, QUANTILES};
pub use registry::{
    Group, Local, LocalSeries, NamedCounter, Registry, Sample, SeriesKind, SeriesLabels,
    SeriesName, Shared, Value,
};
pub use tags::{Extracted, TagRules};
