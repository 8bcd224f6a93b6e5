//! The Lua filter.

use crate::def::group;

group! {
    /// `http.PREFIX.lua.[STAT_PREFIX.]`
    Lua "lua" {
        counters {
            ERRORS "errors",
            EXECUTIONS "executions",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
