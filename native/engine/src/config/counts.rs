//! What every subscription counts, a wildcard's and a single resource's alike: `update_attempt` and its kin.

use std::time::SystemTime;

use tidegate_stats::Group;
use tidegate_stats::defs::discovery::{self as stat, Discovery};

use super::Update;
use super::resource::version_hash;

/// Where updates come by a stream, the asking is an attempt.
pub(super) fn count_asking(group: &Group<Discovery>) {
    group.shared().inc(stat::UPDATE_ATTEMPT);
}

/// An update that was taken, or `rejected`.
pub(super) fn count_update(group: &Group<Discovery>, update: &Update<'_>, rejected: bool) {
    if rejected {
        return count_rejection(group);
    }
    let stats = group.shared();
    stats.inc(stat::UPDATE_ATTEMPT);
    stats.inc(stat::UPDATE_SUCCESS);
    stats.gauge_set(
        stat::UPDATE_TIME,
        crate::time::unix_millis(SystemTime::now()),
    );
    stats.gauge_set(stat::VERSION, version_hash(&update.version));
    stats.text_set(stat::VERSION_TEXT, &update.version);
    stats.record(
        stat::UPDATE_DURATION,
        update.started.elapsed().unwrap_or_default().as_millis() as u64,
    );
}

pub(super) fn count_rejection(group: &Group<Discovery>) {
    let stats = group.shared();
    stats.inc(stat::UPDATE_ATTEMPT);
    stats.inc(stat::UPDATE_REJECTED);
}

/// No answer; `given_up`: nobody waits for one any longer.
pub(super) fn count_failure(group: &Group<Discovery>, given_up: bool) {
    let stats = group.shared();
    stats.inc(stat::UPDATE_ATTEMPT);
    stats.inc(if given_up {
        stat::INIT_FETCH_TIMEOUT
    } else {
        stat::UPDATE_FAILURE
    });
}
