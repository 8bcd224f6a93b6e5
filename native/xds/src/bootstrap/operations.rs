//! What operators see and turn: the admin address, runtime layers, statistics and where they are sent.

use std::sync::Arc;

use tidegate_model::Name;
use tidegate_model::bootstrap::{
    Admin, Node, RtdsLayer, StatsConfig, StatsMatcher, StatsSink, StatsTag, StatsTagValue,
};
use tidegate_model::cluster::Cluster;

use crate::context::Result;
use crate::fields::Fields;
use crate::message::Value;
use crate::{access_log, address, cluster, matcher, value};

/// Static layers, flattened, and whether there is an admin layer.
/// Static values, whether there is an admin layer, and what RTDS delivers.
type Layers = (Vec<(Name, Name)>, bool, Vec<RtdsLayer>);

pub(super) fn layered_runtime(fields: &Fields<'_>) -> Result<Layers> {
    let mut rtds: Vec<RtdsLayer> = Vec::new();
    let mut runtime: Vec<(Name, Name)> = Vec::new();
    let mut names: Vec<Name> = Vec::new();
    let mut admin = false;
    let layers = fields.each("layers", |layer| {
        let name = layer.string("name");
        let entries = layer
            .get("static_layer")
            .and_then(Value::as_message)
            .map(value::from_struct);
        let is_admin = layer.opt("admin_layer", |_| Ok(()))?.is_some();
        let delivered = layer.opt("rtds_layer", |rtds| {
            let (source, timeout) = rtds.need("rtds_config", cluster::config_source)?;
            Ok(RtdsLayer {
                name: rtds.string("name"),
                source,
                initial_fetch_timeout: timeout,
            })
        })?;
        Ok((name, entries, is_admin, delivered))
    })?;
    for (at, (name, entries, is_admin, delivered)) in layers.into_iter().enumerate() {
        if names.contains(&name) {
            return Err(fields.fault(
                &format!("layers[{at}].name"),
                format!("Duplicate layer name: {name}"),
            ));
        }
        names.push(name);
        if is_admin && admin {
            return Err(fields.fault(
                &format!("layers[{at}].admin_layer"),
                "Too many admin layers specified in LayeredRuntime, at most one may be specified",
            ));
        }
        admin |= is_admin;
        if let Some(entries) = entries {
            if !rtds.is_empty() {
                return Err(fields.fault(
                    &format!("layers[{at}].static_layer"),
                    "a static layer over an RTDS layer is not supported",
                ));
            }
            flatten("", &entries, &mut runtime);
        }
        if delivered.is_some() && admin {
            return Err(fields.fault(
                &format!("layers[{at}].rtds_layer"),
                "an RTDS layer over the admin layer is not supported",
            ));
        }
        rtds.extend(delivered);
    }
    Ok((runtime, admin, rtds))
}

/// `{"a": {"b": 1}}` as `a.b = 1`; a later entry replaces an earlier one. A fractional percent keeps its form.
fn flatten(prefix: &str, value: &serde_json::Value, out: &mut Vec<(Name, Name)>) {
    match value {
        serde_json::Value::Object(entries)
            if !entries.contains_key("numerator") && !entries.contains_key("denominator") =>
        {
            for (key, value) in entries {
                let name = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                flatten(&name, value, out);
            }
        }
        value => {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            out.retain(|(name, _)| &**name != prefix);
            out.push((Name::from(prefix), Name::from(text)));
        }
    }
}

pub(super) fn admin(fields: &Fields<'_>) -> Result<Option<Admin>> {
    fields.ignore(
        &["ignore_global_conn_limit"],
        "there is no global connection limit",
    );
    let mut paths: Vec<Name> = fields.opt_string("access_log_path").into_iter().collect();
    paths.extend(
        fields
            .each("access_log", access_log::access_log)?
            .into_iter()
            .map(|log| log.path.clone()),
    );
    let profile_path = fields.opt_string("profile_path");
    let address = fields.opt("address", address::admin)?;
    Ok(address.map(|address| Admin {
        address,
        access_log_paths: paths,
        profile_path,
    }))
}

pub(super) fn stats_config(fields: &Fields<'_>) -> Result<StatsConfig> {
    let buckets = fields.each("histogram_bucket_settings", |settings| {
        settings.refuse("bins", "histograms have the bins that they have")?;
        let name = settings.need("match", matcher::string)?;
        let bounds = settings.get("buckets").and_then(Value::as_list);
        let mut bounds: Vec<f64> = bounds
            .unwrap_or_default()
            .iter()
            .filter_map(Value::as_float)
            .collect();
        bounds.sort_by(f64::total_cmp);
        Ok((name, bounds))
    })?;
    let tags = fields.each("stats_tags", |tag| {
        let value = if tag.has("regex") {
            // Its own kind of expression, which the statistics compile.
            StatsTagValue::Regex(Name::from(tag.str("regex")))
        } else {
            StatsTagValue::Fixed(tag.string("fixed_value"))
        };
        Ok(StatsTag {
            name: tag.string("tag_name"),
            value,
        })
    })?;
    let matcher = fields.opt("stats_matcher", |matcher| {
        let list = |name: &str| matcher.opt(name, |list| list.each("patterns", matcher::string));
        if let Some(patterns) = list("inclusion_list")? {
            return Ok(StatsMatcher::Inclusion(patterns));
        }
        if let Some(patterns) = list("exclusion_list")? {
            return Ok(StatsMatcher::Exclusion(patterns));
        }
        Ok(if matcher.bool("reject_all") {
            StatsMatcher::RejectAll
        } else {
            StatsMatcher::All
        })
    })?;
    Ok(StatsConfig {
        use_all_default_tags: fields.opt_bool("use_all_default_tags").unwrap_or(true),
        tags,
        matcher: matcher.unwrap_or_default(),
        buckets,
    })
}

pub(super) fn stats_sink(
    fields: &Fields<'_>,
    node: &Node,
    clusters: &[Arc<Cluster>],
) -> Result<StatsSink> {
    fields.str("name");
    let prefix = |sink: &Fields<'_>| {
        sink.opt_string("prefix")
            .unwrap_or_else(|| Name::from("envoy"))
    };
    let statsd = |sink: &Fields<'_>| {
        if sink.has("tcp_cluster_name") {
            let cluster = sink.string("tcp_cluster_name");
            if node.id.is_empty() || node.cluster.is_empty() {
                let required = format!("tcp statsd: {}", super::NODE_REQUIRED);
                return Err(sink.fault("tcp_cluster_name", required));
            }
            if !clusters.iter().any(|known| known.name == cluster) {
                let unknown = format!("tcp statsd: unknown cluster '{cluster}'");
                return Err(sink.fault("tcp_cluster_name", unknown));
            }
            return Ok(StatsSink::TcpStatsd {
                cluster,
                prefix: prefix(sink),
            });
        }
        Ok(StatsSink::Statsd {
            address: sink.need("address", address::datagrams)?,
            prefix: prefix(sink),
        })
    };
    let dog = |sink: &Fields<'_>| {
        Ok(StatsSink::DogStatsd {
            address: sink.need("address", address::datagrams)?,
            prefix: prefix(sink),
            max_bytes_per_datagram: sink.opt_uint("max_bytes_per_datagram").unwrap_or_default(),
        })
    };
    fields.need_any(
        "typed_config",
        &[
            ("envoy.config.metrics.v3.StatsdSink", &statsd),
            ("envoy.config.metrics.v3.DogStatsdSink", &dog),
        ],
    )
}

/// The limit of `global_downstream_max_connections`, the one resource monitor there is. Actions are refused: they need
/// monitors that report pressure.
pub(super) fn overload_manager(fields: &Fields<'_>) -> Result<Option<u64>> {
    fields.ignore(&["refresh_interval"], "the one monitor is always exact");
    let limits = fields.each("resource_monitors", |monitor| {
        monitor.str("name");
        monitor.need_any(
            "typed_config",
            &[(
                "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                &|config: &Fields<'_>| Ok(config.int("max_active_downstream_connections").max(0).cast_unsigned()),
            )],
        )
    })?;
    Ok(limits.last().copied())
}

/// Extensions that the process starts with.
pub(super) fn bootstrap_extension(fields: &Fields<'_>) -> Result<()> {
    fields.str("name");
    fields.need_any(
        "typed_config",
        &[
            (
                "envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
                &|config: &Fields<'_>| {
                    config.ignore(
                        &["buffer_size_kb"],
                        "no internal listener is accepted that could use it",
                    );
                    Ok(())
                },
            ),
            ("istio.workload.BootstrapExtension", &|config: &Fields<'_>| {
                config.ignore(
                    &["config_source"],
                    "workloads are not subscribed to: peers are known by what they tell of themselves",
                );
                Ok(())
            }),
        ],
    )
}

/// `application_log_config`: the line format, in spdlog's syntax.
pub(super) fn application_log(fields: &Fields<'_>) -> Result<Option<Name>> {
    let format = fields.opt("log_format", |format| Ok(format.opt_string("text_format")))?;
    Ok(format.flatten())
}

/// `service.runtime.v3.Runtime`: a layer's name and its values.
pub(crate) fn runtime(fields: &Fields<'_>) -> Result<(Name, Vec<(Name, Name)>)> {
    let mut values = Vec::new();
    let layer = fields.get("layer").and_then(Value::as_message);
    if let Some(entries) = layer.map(value::from_struct) {
        flatten("", &entries, &mut values);
    }
    Ok((fields.string("name"), values))
}
