//! `/server_info`, `/ready` and `/memory`.

use hyper::StatusCode;
use serde_json::{Value, json};
use tidegate_xds::Decoder;

use super::{Asked, Page};
use crate::config::State;
use crate::engine::Core;
use crate::options::Options;
use crate::server_log::DEFAULT_FORMAT;
use crate::stats_flush;
use crate::time;
use crate::version;

pub(super) fn ready(core: &Core, _: &Asked) -> Page {
    let state = core.state.get();
    let status = if state == State::Live {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Page::error(status, format!("{}\n", state.name()))
}

pub(super) fn memory(_: &Core, _: &Asked) -> Page {
    let memory = stats_flush::memory();
    Page::json(&json!({
        "allocated": memory.allocated.to_string(),
        "heap_size": memory.heap.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": memory.resident.to_string(),
    }))
}

pub(super) fn page(core: &Core, _: &Asked) -> Page {
    let uptime = format!("{}s", core.started.elapsed().as_secs());
    Page::json(&json!({
        "version": version::version(),
        "state": core.state.get().name(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": version::HOT_RESTART,
        "command_line_options": command_line_options(&core.options),
        "node": node(core),
        "hot_restart_initializing": false,
    }))
}

/// This page prints what is not set as well.
fn node(core: &Core) -> Value {
    let mut node = Decoder::new()
        .to_json("envoy.config.core.v3.Node", &core.loaded.node)
        .unwrap_or_default();
    if let Value::Object(fields) = &mut node {
        for (name, empty) in [
            ("id", json!("")),
            ("cluster", json!("")),
            ("extensions", json!([])),
            ("client_features", json!([])),
            ("listening_addresses", json!([])),
            ("dynamic_parameters", json!({})),
        ] {
            fields.entry(name).or_insert(empty);
        }
    }
    node
}

fn command_line_options(options: &Options) -> Value {
    json!({
        "base_id": options.base_id.to_string(),
        "concurrency": options.workers(),
        "config_path": options.config_path,
        "config_yaml": options.config_yaml,
        "allow_unknown_static_fields": options.allow_unknown_static_fields,
        "admin_address_path": options.admin_address_path,
        "local_address_ip_version": options.local_address_ip_version,
        "log_level": if options.log_level == "warn" { "warning" } else { &options.log_level },
        "component_log_level": options.component_log_level,
        "log_format": if options.log_format.is_empty() { DEFAULT_FORMAT } else { &options.log_format },
        "log_path": options.log_path,
        "service_cluster": options.service_cluster,
        "service_node": options.service_node,
        "service_zone": options.service_zone,
        "file_flush_interval": time::duration(options.file_flush_interval),
        "drain_time": time::duration(options.drain_time),
        "parent_shutdown_time": time::duration(options.parent_shutdown_time),
        "mode": "Serve",
        "disable_hot_restart": options.disable_hot_restart,
        "enable_mutex_tracing": false,
        "restart_epoch": options.restart_epoch,
        "cpuset_threads": false,
        "reject_unknown_dynamic_fields": options.reject_unknown_dynamic_fields,
        "log_format_escaped": options.log_format_escaped,
        "disabled_extensions": [],
        "ignore_unknown_dynamic_fields": options.ignore_unknown_dynamic_fields,
        "use_dynamic_base_id": false,
        "base_id_path": "",
        "drain_strategy": if options.drain_gradually { "Gradual" } else { "Immediate" },
        "enable_fine_grain_logging": false,
        "socket_path": "@envoy_domain_socket",
        "socket_mode": 0,
        "enable_core_dump": false,
        "stats_tag": [],
        "skip_hot_restart_on_no_parent": false,
        "skip_hot_restart_parent_stats": false,
        "skip_deprecated_logs": options.skip_deprecated_logs,
        "file_flush_min_size": options.file_flush_min_size_kb,
        "log_stacktrace_single_entry": false,
    })
}
