//! The command line, as far as the engine honours or shows it.

use std::time::Duration;

/// Envoy's command-line options, under Envoy's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub config_path: String,
    pub config_yaml: String,
    /// 0: one worker per usable hardware thread.
    pub concurrency: usize,
    pub service_cluster: String,
    pub service_node: String,
    pub service_zone: String,
    pub restart_epoch: u32,
    pub base_id: u32,
    pub disable_hot_restart: bool,
    pub drain_time: Duration,
    /// `--drain-strategy gradual`; else immediate.
    pub drain_gradually: bool,
    pub parent_shutdown_time: Duration,
    pub validate_only: bool,
    pub log_level: String,
    pub component_log_level: String,
    /// Empty: Envoy's default format.
    pub log_format: String,
    pub log_format_escaped: bool,
    /// Empty: standard error.
    pub log_path: String,
    pub file_flush_interval: Duration,
    /// `--busy-poll-us`: workers poll so long before they sleep; zero never.
    pub busy_poll: Duration,
    pub file_flush_min_size_kb: u32,
    pub admin_address_path: String,
    pub local_address_ip_version: String,
    pub allow_unknown_static_fields: bool,
    pub reject_unknown_dynamic_fields: bool,
    pub ignore_unknown_dynamic_fields: bool,
    pub skip_deprecated_logs: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config_path: String::new(),
            config_yaml: String::new(),
            concurrency: 0,
            service_cluster: String::new(),
            service_node: String::new(),
            service_zone: String::new(),
            restart_epoch: 0,
            base_id: 0,
            disable_hot_restart: false,
            drain_time: Duration::from_mins(10),
            drain_gradually: true,
            parent_shutdown_time: Duration::from_mins(15),
            validate_only: false,
            log_level: "info".to_owned(),
            component_log_level: String::new(),
            log_format: String::new(),
            log_format_escaped: false,
            log_path: String::new(),
            file_flush_interval: Duration::from_secs(10),
            busy_poll: Duration::ZERO,
            file_flush_min_size_kb: 64,
            admin_address_path: String::new(),
            local_address_ip_version: "v4".to_owned(),
            allow_unknown_static_fields: false,
            reject_unknown_dynamic_fields: false,
            ignore_unknown_dynamic_fields: false,
            skip_deprecated_logs: false,
        }
    }
}

impl Options {
    /// Worker threads.
    pub(crate) fn workers(&self) -> usize {
        match self.concurrency {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }
}
