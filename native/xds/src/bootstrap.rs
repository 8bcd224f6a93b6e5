//! `config.bootstrap.v3.Bootstrap`: text or bytes in, everything the process starts from out.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use prost_reflect::{DynamicMessage, Value};
use tidegate_model::Name;
use tidegate_model::bootstrap::{
    Admin, Ads, Bootstrap, DynamicResources, Node, StatsConfig, StatsMatcher, StatsSink, StatsTag,
    StatsTagValue,
};
use tidegate_model::cluster::{Cluster, Discovery, TcpKeepalive};

use crate::context::{Context, Fault, Result};
use crate::fields::Fields;
use crate::references::check_listener_clusters;
use crate::upstream_http::Http2;
use crate::{
    Decoder, Rejected, access_log, address, cluster, json, listener, matcher, rules, v2, value,
    yaml,
};

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// The form of a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Yaml,
    Json,
    /// Encoded protobuf (`.pb`).
    Pb,
}

/// What the command line says over the bootstrap's head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides<'a> {
    /// `--config-yaml`: merged over the bootstrap as protobuf merges (lists are appended).
    pub config_yaml: &'a str,
    /// `--service-node`.
    pub node_id: &'a str,
    /// `--service-cluster`.
    pub node_cluster: &'a str,
    /// `--service-zone`.
    pub node_zone: &'a str,
    pub user_agent_name: &'a str,
    pub user_agent_version: &'a str,
}

/// A bootstrap, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub bootstrap: Bootstrap,
    /// The encoded `Bootstrap`, merged and in v3 form, for `/config_dump`.
    pub proto: Vec<u8>,
    /// The encoded `Node` for discovery requests.
    pub node: Vec<u8>,
    /// Name and encoded resource of each static listener and cluster, for `/config_dump`.
    pub static_listeners: Vec<(Name, Vec<u8>)>,
    pub static_clusters: Vec<(Name, Vec<u8>)>,
    /// `envoy_grpc.authority`; empty: the cluster's name.
    pub ads_authority: String,
    pub ads_tcp_keepalive: Option<TcpKeepalive>,
    /// `connection_keepalive` of the ADS cluster: interval and timeout.
    pub ads_http2_keepalive: Option<(Duration, Duration)>,
    /// `envoy_grpc.retry_policy.retry_back_off` of the ADS stream: base and maximum, Envoy's defaults filled in.
    pub ads_retry_back_off: (Duration, Duration),
}

/// What the ADS cluster's configuration says beyond the model.
#[derive(Default)]
struct AdsExtra {
    authority: String,
    http2: Option<Http2>,
    tcp_keepalive: Option<TcpKeepalive>,
    retry_back_off: Option<(Duration, Duration)>,
}

/// Between attempts at the ADS stream, when the bootstrap does not say otherwise.
const RETRY_BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

impl Decoder {
    /// Reads a bootstrap. v2 shapes are converted; what cannot be honoured is refused with its path.
    pub fn bootstrap(
        &self,
        contents: &[u8],
        format: Format,
        overrides: &Overrides<'_>,
    ) -> std::result::Result<Loaded, Rejected> {
        load(&self.context, contents, format, overrides)
            .map_err(|fault| Rejected::from_fault("", fault))
    }
}

fn load(
    context: &Context,
    contents: &[u8],
    format: Format,
    overrides: &Overrides<'_>,
) -> Result<Loaded> {
    let mut message = match format {
        Format::Pb => context.decode(BOOTSTRAP, contents)?,
        Format::Yaml => from_document(context, yaml::parse(utf8(contents)?)?)?,
        Format::Json => from_document(context, yaml::parse_json(utf8(contents)?)?)?,
    };
    if !overrides.config_yaml.is_empty() {
        let over = from_document(context, yaml::parse(overrides.config_yaml)?)?;
        // Encoded messages one after the other are the merged message.
        let merged = [message.encode_to_vec(), over.encode_to_vec()].concat();
        message = context.decode(BOOTSTRAP, &merged)?;
    }
    override_node(context, &mut message, overrides)?;
    rules::check(context, &message)?;
    let mut extra = AdsExtra::default();
    let mut bootstrap = Fields::root(context, &message, |fields| {
        self::bootstrap(fields, &mut extra)
    })?;
    bootstrap.warnings = context
        .take_warnings()
        .iter()
        .map(ToString::to_string)
        .collect();
    Ok(Loaded {
        node: encoded(&message, &["node"])
            .into_iter()
            .next()
            .unwrap_or_default(),
        static_listeners: named(encoded(&message, &["static_resources", "listeners"])),
        static_clusters: named(encoded(&message, &["static_resources", "clusters"])),
        proto: message.encode_to_vec(),
        ads_authority: extra.authority,
        ads_tcp_keepalive: extra.tcp_keepalive,
        ads_http2_keepalive: extra.http2.and_then(|http2| http2.keepalive),
        ads_retry_back_off: extra.retry_back_off.unwrap_or(RETRY_BACK_OFF),
        bootstrap,
    })
}

fn utf8(contents: &[u8]) -> Result<&str> {
    std::str::from_utf8(contents)
        .map_err(|error| Fault::whole(format!("the bootstrap is not UTF-8: {error}")))
}

fn from_document(context: &Context, document: serde_json::Value) -> Result<DynamicMessage> {
    if !document.is_object() {
        return Err(Fault::whole("the bootstrap is not a mapping"));
    }
    json::parse(context, BOOTSTRAP, &v2::bootstrap(document)?)
}

/// Puts the command line's words about the node into the message, so that every reader sees the same.
fn override_node(
    context: &Context,
    message: &mut DynamicMessage,
    overrides: &Overrides<'_>,
) -> Result<()> {
    let mut node = match message.get_field_by_name("node").as_deref() {
        Some(Value::Message(node)) => node.clone(),
        _ => DynamicMessage::new(context.descriptor("envoy.config.core.v3.Node")?),
    };
    let words = [
        ("id", overrides.node_id),
        ("cluster", overrides.node_cluster),
        ("user_agent_name", overrides.user_agent_name),
        ("user_agent_version", overrides.user_agent_version),
    ];
    for (name, word) in words {
        if !word.is_empty() {
            set(&mut node, name, Value::String(word.to_owned()))?;
        }
    }
    if !overrides.node_zone.is_empty()
        && let Some(Value::Message(locality)) = node.get_field_by_name_mut("locality")
    {
        set(
            locality,
            "zone",
            Value::String(overrides.node_zone.to_owned()),
        )?;
    }
    set(message, "node", Value::Message(node))
}

fn set(message: &mut DynamicMessage, name: &str, value: Value) -> Result<()> {
    message
        .try_set_field_by_name(name, value)
        .map_err(|error| Fault::whole(format!("{name}: {error}")))
}

/// The encoded messages at the end of a path of fields.
fn encoded(message: &DynamicMessage, path: &[&str]) -> Vec<Vec<u8>> {
    let Some((name, rest)) = path.split_first() else {
        return vec![message.encode_to_vec()];
    };
    match message.get_field_by_name(name).as_deref() {
        Some(Value::Message(inner)) => encoded(inner, rest),
        Some(Value::List(items)) => items
            .iter()
            .filter_map(Value::as_message)
            .flat_map(|inner| encoded(inner, rest))
            .collect(),
        _ => Vec::new(),
    }
}

fn named(resources: Vec<Vec<u8>>) -> Vec<(Name, Vec<u8>)> {
    let name = |bytes: &[u8]| Name::from(crate::resource_name(bytes).unwrap_or_default());
    resources
        .into_iter()
        .map(|bytes| (name(&bytes), bytes))
        .collect()
}

fn bootstrap(fields: &Fields<'_>, extra: &mut AdsExtra) -> Result<Bootstrap> {
    fields.ignore(&["tracing"], "spans are not reported yet");
    fields.ignore(&["watchdog", "watchdogs"], "there is no watchdog");
    fields.ignore(
        &["deferred_stat_options", "enable_dispatcher_stats"],
        "it only tunes statistics",
    );
    fields.ignore(
        &["stats_server_version_override"],
        "the version is this program's",
    );
    fields.ignore(
        &["typed_dns_resolver_config"],
        "the resolver is the one of the system's configuration",
    );
    fields.ignore(
        &[
            "inline_headers",
            "perf_tracing_file_path",
            "memory_allocator_manager",
        ],
        "it only tunes Envoy",
    );
    fields.ignore(
        &["application_log_config"],
        "the log format is given on the command line",
    );
    fields.ignore(&["flags_path"], "there are no runtime flag files");
    fields.ignore(
        &["grpc_async_client_manager_config"],
        "there is one gRPC client",
    );
    fields.ignore(
        &["node_context_params"],
        "it is for xdstp resource names, which are not in use",
    );
    fields.expect_bool("use_tcp_for_dns_lookups", false)?;
    regex_engine(fields)?;
    let node = fields.opt("node", node)?;
    let statics = fields.opt("static_resources", static_resources)?;
    let (listeners, clusters) = statics.unwrap_or_default();
    let dynamic = fields.or_default("dynamic_resources", |dynamic| {
        dynamic_resources(dynamic, &clusters, extra)
    })?;
    fields.opt("cluster_manager", |manager| {
        manager.ignore(
            &["local_cluster_name"],
            "it is for zone aware routing, which is not in use",
        );
        manager.ignore(
            &["load_stats_config", "enable_deferred_cluster_creation"],
            "loads are not reported",
        );
        Ok(())
    })?;
    let node = node.unwrap_or_else(|| Node {
        id: Name::from(""),
        cluster: Name::from(""),
    });
    let discovers = dynamic.lds.is_some() || dynamic.cds.is_some() || dynamic.ads.is_some();
    let eds = clusters
        .iter()
        .any(|(cluster, _)| matches!(cluster.discovery, Discovery::Eds { .. }));
    if (discovers || eds) && (node.id.is_empty() || node.cluster.is_empty()) {
        return Err(fields.fault(
            "node",
            "node 'id' and 'cluster' are required. Set it either in 'node' config or via --service-node and \
             --service-cluster options.",
        ));
    }
    let (runtime, admin_layer) = fields.or_default("layered_runtime", layered_runtime)?;
    Ok(Bootstrap {
        node,
        admin: fields.opt("admin", admin)?.flatten(),
        listeners,
        clusters: clusters.into_iter().map(|(cluster, _)| cluster).collect(),
        dynamic,
        stats: fields
            .opt("stats_config", stats_config)?
            .unwrap_or(StatsConfig {
                use_all_default_tags: true,
                ..StatsConfig::default()
            }),
        stats_sinks: fields.each("stats_sinks", stats_sink)?,
        stats_flush_interval: fields
            .duration("stats_flush_interval")?
            .unwrap_or(Duration::from_secs(5)),
        runtime,
        admin_layer,
        header_prefix: fields
            .opt_string("header_prefix")
            .unwrap_or_else(|| Name::from("x-envoy")),
        warnings: Vec::new(),
    })
}

fn regex_engine(fields: &Fields<'_>) -> Result<()> {
    let re2 = |_: &Fields<'_>| Ok(());
    fields
        .opt("default_regex_engine", |engine| {
            engine.str("name");
            engine.need_any(
                "typed_config",
                &[("envoy.extensions.regex_engines.v3.GoogleRE2", &re2)],
            )
        })
        .map(drop)
}

fn node(fields: &Fields<'_>) -> Result<Node> {
    // All of it goes to the management server as it is; only these two have a meaning here.
    for name in [
        "metadata",
        "dynamic_parameters",
        "locality",
        "user_agent_name",
        "user_agent_version",
        "user_agent_build_version",
        "extensions",
        "client_features",
        "listening_addresses",
    ] {
        fields.get(name);
    }
    Ok(Node {
        id: fields.string("id"),
        cluster: fields.string("cluster"),
    })
}

type Clusters = Vec<(Arc<Cluster>, Option<Http2>)>;
type Statics = (Vec<Arc<tidegate_model::listener::Listener>>, Clusters);

fn static_resources(fields: &Fields<'_>) -> Result<Statics> {
    fields.refuse("secrets", "TLS is not supported")?;
    let mut listeners = fields.each("listeners", |fields| {
        listener::listener(fields).map(Arc::new)
    })?;
    let clusters = fields.each("clusters", |fields| {
        cluster::any_cluster(fields).map(|(cluster, http2)| (Arc::new(cluster), http2))
    })?;
    for (at, (cluster, _)) in clusters.iter().enumerate() {
        if clusters
            .iter()
            .take(at)
            .any(|(other, _)| other.name == cluster.name)
        {
            return Err(fields.fault(
                &format!("clusters[{at}].name"),
                format!("cluster manager: duplicate cluster '{}'", cluster.name),
            ));
        }
    }
    for (at, listener) in listeners.iter().enumerate() {
        let exists = |name: &str| clusters.iter().any(|(cluster, _)| &*cluster.name == name);
        check_listener_clusters(listener, exists).map_err(|rejected| {
            fields.fault(
                &format!("listeners[{at}].{}", rejected.field_path),
                rejected.reason,
            )
        })?;
    }
    // A later listener of the same name is an update of the earlier one, as Envoy has it.
    let names: Vec<Name> = listeners
        .iter()
        .map(|listener| listener.name.clone())
        .collect();
    let mut at = 0;
    listeners.retain(|listener| {
        at += 1;
        !names.iter().skip(at).any(|later| *later == listener.name)
    });
    Ok((listeners, clusters))
}

fn dynamic_resources(
    fields: &Fields<'_>,
    clusters: &Clusters,
    extra: &mut AdsExtra,
) -> Result<DynamicResources> {
    let ads = fields.opt("ads_config", |ads| self::ads(ads, clusters, extra))?;
    let source = |name: &str| -> Result<_> {
        let source = fields.opt(name, cluster::config_source)?;
        let timeout = source.as_ref().and_then(|(_, timeout)| *timeout);
        Ok((source.map(|(source, _)| source), timeout))
    };
    let (lds, lds_initial_fetch_timeout) = source("lds_config")?;
    let (cds, cds_initial_fetch_timeout) = source("cds_config")?;
    Ok(DynamicResources {
        lds,
        cds,
        lds_initial_fetch_timeout,
        cds_initial_fetch_timeout,
        ads,
    })
}

fn ads(fields: &Fields<'_>, clusters: &Clusters, extra: &mut AdsExtra) -> Result<Ads> {
    fields.ignore(&["refresh_delay", "request_timeout"], "it is for REST");
    fields.ignore(
        &["rate_limit_settings"],
        "requests are paced by the answers to them",
    );
    fields.ignore(
        &["set_node_on_first_message_only"],
        "the node is in the first message of a stream",
    );
    fields.choice("api_type", &[("GRPC", ()), ("AGGREGATED_GRPC", ())])?;
    fields.choice("transport_api_version", &[("AUTO", ()), ("V3", ())])?;
    let mut services = fields.each("grpc_services", |service| {
        service.ignore(&["timeout"], "a stream has no end");
        let metadata = service.each("initial_metadata", |header| {
            Ok((header.string("key"), header.string("value")))
        })?;
        let (name, authority, back_off) = service.need("envoy_grpc", |grpc| {
            grpc.ignore(
                &["max_receive_message_length", "skip_envoy_headers"],
                "the xDS client has no such limit",
            );
            Ok((
                grpc.string("cluster_name"),
                grpc.str("authority").to_owned(),
                grpc.opt("retry_policy", retry_back_off)?.flatten(),
            ))
        })?;
        Ok((name, authority, back_off, metadata))
    })?;
    let (Some((cluster_name, authority, back_off, initial_metadata)), true) =
        (services.pop(), services.is_empty())
    else {
        return Err(fields.fault(
            "grpc_services",
            "ADS: exactly one gRPC service must be given",
        ));
    };
    let path = "grpc_services[0].envoy_grpc.cluster_name";
    let Some((cluster, http2)) = clusters
        .iter()
        .find(|(cluster, _)| cluster.name == cluster_name)
    else {
        return Err(fields.fault(
            path,
            format!(
                "gRPC client cluster '{cluster_name}' is not among the clusters of static_resources"
            ),
        ));
    };
    let targets = match &cluster.discovery {
        Discovery::Static(targets) => targets,
        Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => &dns.load_assignment,
        Discovery::Eds { .. } | Discovery::OriginalDst(_) => {
            return Err(fields.fault(
                path,
                format!(
                    "gRPC client cluster '{cluster_name}' must be STATIC, STRICT_DNS or LOGICAL_DNS"
                ),
            ));
        }
    };
    extra.authority = authority;
    extra.retry_back_off = back_off;
    extra.tcp_keepalive = cluster.tcp_keepalive;
    extra.http2 = http2.as_ref().map(|http2| Http2 {
        keepalive: http2.keepalive,
    });
    Ok(Ads {
        targets: Arc::clone(targets),
        connect_timeout: cluster.connect_timeout,
        keepalive: cluster.tcp_keepalive.and_then(|keepalive| keepalive.time),
        initial_metadata,
        cluster_name,
    })
}

/// How long to wait between attempts at the stream. Without a maximum it is ten times the base, as Envoy has it.
fn retry_back_off(fields: &Fields<'_>) -> Result<Option<(Duration, Duration)>> {
    fields.opt("retry_back_off", |back_off| {
        let base = back_off.duration("base_interval")?.unwrap_or_default();
        let max = back_off.duration("max_interval")?.unwrap_or(base * 10);
        if max < base {
            return Err(back_off.fault("max_interval", "must be no less than the base_interval"));
        }
        Ok((base, max))
    })
}

/// Static layers, flattened, and whether there is an admin layer.
fn layered_runtime(fields: &Fields<'_>) -> Result<(Vec<(Name, Name)>, bool)> {
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
        Ok((name, entries, is_admin))
    })?;
    for (at, (name, entries, is_admin)) in layers.into_iter().enumerate() {
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
            flatten("", &entries, &mut runtime);
        }
    }
    Ok((runtime, admin))
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

fn admin(fields: &Fields<'_>) -> Result<Option<Admin>> {
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

fn stats_config(fields: &Fields<'_>) -> Result<StatsConfig> {
    fields.ignore(
        &["histogram_bucket_settings"],
        "histograms have Envoy's default buckets",
    );
    let tags = fields.each("stats_tags", |tag| {
        let value = if tag.has("regex") {
            let regex = tag.str("regex");
            matcher::check_regex(tag, regex)?;
            StatsTagValue::Regex(Name::from(regex))
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
    })
}

fn stats_sink(fields: &Fields<'_>) -> Result<StatsSink> {
    fields.str("name");
    fields.need_any(
        "typed_config",
        &[("envoy.config.metrics.v3.StatsdSink", &|sink: &Fields<
            '_,
        >| {
            sink.refuse("tcp_cluster_name", "only UDP is supported")?;
            Ok(StatsSink::Statsd {
                address: sink.need("address", address::socket)?,
                prefix: sink
                    .opt_string("prefix")
                    .unwrap_or_else(|| Name::from("envoy")),
            })
        })],
    )
}
