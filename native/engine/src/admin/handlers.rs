//! The table of endpoints: what there is, which of them change something, and what they take.

use std::fmt::Write as _;

use hyper::{Method, StatusCode};

use super::{
    Asked, Page, certs, clusters, config_dump, control, home, listeners, logging, runtime,
    server_info, stats,
};
use crate::engine::Core;

/// A parameter, as `/help` and the home page show it.
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) input: Input,
}

pub(super) enum Input {
    Flag,
    Text,
    OneOf(&'static [&'static str]),
}

/// An endpoint.
pub(super) struct Handler {
    /// Without the slash.
    pub(super) path: &'static str,
    pub(super) help: &'static str,
    /// Wants POST.
    pub(super) mutates: bool,
    pub(super) params: &'static [Param],
    page: fn(&Core, &Asked) -> Page,
}

const fn get(
    path: &'static str,
    help: &'static str,
    params: &'static [Param],
    page: fn(&Core, &Asked) -> Page,
) -> Handler {
    Handler {
        path,
        help,
        mutates: false,
        params,
        page,
    }
}

const fn post(
    path: &'static str,
    help: &'static str,
    params: &'static [Param],
    page: fn(&Core, &Asked) -> Page,
) -> Handler {
    Handler {
        path,
        help,
        mutates: true,
        params,
        page,
    }
}

const fn param(name: &'static str, help: &'static str, input: Input) -> Param {
    Param { name, help, input }
}

/// By path, as Envoy lists them.
pub(super) const HANDLERS: &[Handler] = &[
    get("", "Admin home page", &[], home::page),
    get("certs", "print certs on machine", &[], certs::page),
    get(
        "clusters",
        "upstream cluster status",
        &[param(
            "filter",
            "Regular expression (Google re2) for filtering clusters by name",
            Input::Text,
        )],
        clusters::page,
    ),
    get(
        "config_dump",
        "dump current Envoy configs",
        &[
            param("resource", "The resource to dump", Input::Text),
            param(
                "mask",
                "The mask to apply. When both resource and mask are specified, the mask is applied to every element in the desired \
                 repeated field so that only a subset of fields are returned. The mask is parsed as a Protobuf::FieldMask",
                Input::Text,
            ),
            param(
                "name_regex",
                "Dump only the currently loaded configurations whose names match the specified regex. Can be used with both resource \
                 and mask query parameters.",
                Input::Text,
            ),
            param(
                "include_eds",
                "Dump currently loaded configuration including EDS. See the response definition for more information",
                Input::Flag,
            ),
        ],
        config_dump::page,
    ),
    get(
        "contention",
        "dump current Envoy mutex contention stats (if enabled)",
        &[],
        control::contention,
    ),
    post(
        "drain_listeners",
        "drain listeners",
        &[
            param(
                "graceful",
                "When draining listeners, enter a graceful drain period prior to closing listeners. This behaviour and duration is \
                 configurable via server options or CLI",
                Input::Flag,
            ),
            param(
                "skip_exit",
                "When draining listeners, drain the connections but never stop the listeners. The graceful parameter has no effect \
                 when this is set, since the drain period only delays stopping the listeners",
                Input::Flag,
            ),
            param(
                "inboundonly",
                "Drains all inbound listeners. traffic_direction field in envoy_v3_api_msg_config.listener.v3.Listener is used to \
                 determine whether a listener is inbound or outbound.",
                Input::Flag,
            ),
        ],
        control::drain_listeners,
    ),
    post(
        "healthcheck/fail",
        "cause the server to fail health checks",
        &[],
        control::health_check_fail,
    ),
    post(
        "healthcheck/ok",
        "cause the server to pass health checks",
        &[],
        control::health_check_ok,
    ),
    get("help", "print out list of admin commands", &[], help),
    get(
        "hot_restart_version",
        "print the hot restart compatibility version",
        &[],
        control::hot_restart_version,
    ),
    get(
        "init_dump",
        "dump current Envoy init manager information (experimental)",
        &[param(
            "mask",
            "The desired component to dump unready targets. The mask is parsed as a Protobuf::FieldMask. For example, get the unready \
             targets of all listeners with /init_dump?mask=listener`",
            Input::Text,
        )],
        config_dump::init_dump,
    ),
    get(
        "listeners",
        "print listener info",
        &[param(
            "format",
            "File format to use",
            Input::OneOf(&["text", "json"]),
        )],
        listeners::page,
    ),
    post(
        "logging",
        "query/change logging levels",
        &[
            param(
                "paths",
                "Change multiple logging levels by setting to <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>. If fine \
                 grain logging is enabled, use __FILE__ or a glob experision as the logger name. For example, source/common*:warning",
                Input::Text,
            ),
            param(
                "group",
                "Change given logger group to desired level, set to <logger_group_name>:<desired_level>. logger_group_name must be a \
                 logger name.",
                Input::Text,
            ),
            param(
                "level",
                "desired logging level, this will change all loggers's level",
                Input::OneOf(&[
                    "", "trace", "debug", "info", "warning", "error", "critical", "off",
                ]),
            ),
        ],
        logging::page,
    ),
    get(
        "memory",
        "print current allocation/heap usage",
        &[],
        server_info::memory,
    ),
    post("quitquitquit", "exit the server", &[], control::quit),
    get(
        "ready",
        "print server state, return 200 if LIVE, otherwise return 503",
        &[],
        server_info::ready,
    ),
    post(
        "reopen_logs",
        "reopen access logs",
        &[],
        control::reopen_logs,
    ),
    post(
        "reset_counters",
        "reset all counters to zero",
        &[],
        stats::reset_counters,
    ),
    get("runtime", "print runtime values", &[], runtime::page),
    post(
        "runtime_modify",
        "Adds or modifies runtime values as passed in query parameters. To delete a previously added key, use an empty string as the \
         value. Note that deletion only applies to overrides added via this endpoint; values loaded from disk can be modified via \
         override but not deleted. E.g. ?key1=value1&key2=value2...",
        &[],
        runtime::modify,
    ),
    get(
        "server_info",
        "print server version/status information",
        &[],
        server_info::page,
    ),
    get(
        "stats",
        "print server stats",
        &[
            param(
                "usedonly",
                "Only include stats that have been written by system since restart",
                Input::Flag,
            ),
            param(
                "filter",
                "Regular expression (Google re2) for filtering stats",
                Input::Text,
            ),
            param("invert_filter", "Invert the filter regex", Input::Flag),
            param(
                "format",
                "Format to use",
                Input::OneOf(&["html", "text", "json", "prometheus"]),
            ),
            param(
                "type",
                "Stat types to include.",
                Input::OneOf(&["All", "Counters", "Histograms", "Gauges", "TextReadouts"]),
            ),
            param(
                "histogram_buckets",
                "Histogram bucket display mode",
                Input::OneOf(&["cumulative", "disjoint", "detailed", "summary"]),
            ),
        ],
        stats::page,
    ),
    get(
        "stats/prometheus",
        "print server stats in prometheus format",
        &[
            param(
                "usedonly",
                "Only include stats that have been written by system since restart",
                Input::Flag,
            ),
            param(
                "text_readouts",
                "Render text_readouts as new gaugues with value 0 (increases Prometheus data size)",
                Input::Flag,
            ),
            param(
                "filter",
                "Regular expression (Google re2) for filtering stats",
                Input::Text,
            ),
            param("invert_filter", "Invert the filter regex", Input::Flag),
        ],
        stats::prometheus,
    ),
];

/// The answer to a path.
pub(super) fn page(core: &Core, path: &str, asked: &Asked) -> Page {
    let path = path.strip_prefix('/').unwrap_or(path);
    let Some(handler) = HANDLERS.iter().find(|handler| handler.path == path) else {
        return Page::error(
            StatusCode::NOT_FOUND,
            format!("invalid path. {}", help_text()),
        );
    };
    if handler.mutates && asked.method != Method::POST {
        return Page::error(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("Method {} not allowed, POST required.", asked.method),
        );
    }
    (handler.page)(core, asked)
}

fn help(_: &Core, _: &Asked) -> Page {
    Page::text(help_text())
}

fn help_text() -> String {
    // Writing to a string cannot fail.
    let mut text = "admin commands are:\n".to_owned();
    for handler in HANDLERS {
        let wants = if handler.mutates { " (POST)" } else { "" };
        let _ = writeln!(text, "  /{}{wants}: {}", handler.path, handler.help);
        for param in handler.params {
            let _ = write!(text, "      {}: {}", param.name, param.help);
            if let Input::OneOf(choices) = param.input {
                let _ = write!(text, "; One of ({})", choices.join(", "));
            }
            text.push('\n');
        }
    }
    text
}
