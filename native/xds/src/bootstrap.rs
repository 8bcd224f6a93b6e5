//! `config.bootstrap.v3.Bootstrap`: text or bytes in, everything the process starts from out.

mod dynamic;
mod operations;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use prost_reflect::{DynamicMessage, Value};
use tidegate_model::Name;
use tidegate_model::bootstrap::{Bootstrap, Node, StatsConfig};
use tidegate_model::cluster::{Cluster, Discovery, TcpKeepalive};

use crate::context::{Context, Fault, Result};
use crate::fields::Fields;
use crate::references::check_listener_clusters;
use crate::{Decoder, Rejected, cluster, json, listener, rules, v2, yaml};

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
    /// `major.minor.patch`: goes into `user_agent_build_version`, as Envoy's own does.
    pub user_agent_version: &'a str,
    /// More about the build: `revision.sha` and the like.
    pub user_agent_metadata: &'a [(&'a str, &'a str)],
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
    http2_keepalive: Option<(Duration, Duration)>,
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
    let proto = message.encode_to_vec();
    let wire = WireBootstrap::decode(proto.as_slice())
        .map_err(|error| Fault::whole(format!("the bootstrap, encoded: {error}")))?;
    let statics = wire.static_resources.unwrap_or_default();
    Ok(Loaded {
        node: wire.node,
        static_listeners: named(statics.listeners),
        static_clusters: named(statics.clusters),
        proto,
        ads_authority: extra.authority,
        ads_tcp_keepalive: extra.tcp_keepalive,
        ads_http2_keepalive: extra.http2_keepalive,
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
    ];
    for (name, word) in words {
        if !word.is_empty() {
            set(&mut node, name, Value::String(word.to_owned()))?;
        }
    }
    if !overrides.user_agent_version.is_empty() {
        let build = build_version(context, overrides)?;
        set(&mut node, "user_agent_build_version", Value::Message(build))?;
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

fn build_version(context: &Context, overrides: &Overrides<'_>) -> Result<DynamicMessage> {
    let mut numbers = overrides
        .user_agent_version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or_default());
    let metadata: serde_json::Map<String, serde_json::Value> = overrides
        .user_agent_metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), serde_json::Value::from(*value)))
        .collect();
    let document = serde_json::json!({
        "version": {
            "major_number": numbers.next().unwrap_or_default(),
            "minor_number": numbers.next().unwrap_or_default(),
            "patch": numbers.next().unwrap_or_default(),
        },
        "metadata": metadata,
    });
    json::parse(context, "envoy.config.core.v3.BuildVersion", &document)
}

fn set(message: &mut DynamicMessage, name: &str, value: Value) -> Result<()> {
    message
        .try_set_field_by_name(name, value)
        .map_err(|error| Fault::whole(format!("{name}: {error}")))
}

/// The encoded parts of a `Bootstrap` that others want as they are.
#[derive(Clone, PartialEq, prost::Message)]
struct WireBootstrap {
    #[prost(bytes = "vec", tag = "1")]
    node: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    static_resources: Option<WireStatics>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireStatics {
    #[prost(bytes = "vec", repeated, tag = "1")]
    listeners: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    clusters: Vec<Vec<u8>>,
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
        dynamic::dynamic_resources(dynamic, &clusters, extra)
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
        .any(|cluster| matches!(cluster.discovery, Discovery::Eds { .. }));
    if (discovers || eds) && (node.id.is_empty() || node.cluster.is_empty()) {
        return Err(fields.fault(
            "node",
            "node 'id' and 'cluster' are required. Set it either in 'node' config or via --service-node and \
             --service-cluster options.",
        ));
    }
    let (runtime, admin_layer) =
        fields.or_default("layered_runtime", operations::layered_runtime)?;
    Ok(Bootstrap {
        node,
        admin: fields.opt("admin", operations::admin)?.flatten(),
        listeners,
        clusters,
        dynamic,
        stats: fields
            .opt("stats_config", operations::stats_config)?
            .unwrap_or(StatsConfig {
                use_all_default_tags: true,
                ..StatsConfig::default()
            }),
        stats_sinks: fields.each("stats_sinks", operations::stats_sink)?,
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

type Clusters = Vec<Arc<Cluster>>;
type Statics = (Vec<Arc<tidegate_model::listener::Listener>>, Clusters);

fn static_resources(fields: &Fields<'_>) -> Result<Statics> {
    fields.refuse("secrets", "TLS is not supported")?;
    let mut listeners = fields.each("listeners", |fields| {
        listener::listener(fields).map(Arc::new)
    })?;
    let clusters = fields.each("clusters", |fields| cluster::cluster(fields).map(Arc::new))?;
    let mut names = HashSet::with_capacity(clusters.len());
    for (at, cluster) in clusters.iter().enumerate() {
        if !names.insert(&*cluster.name) {
            return Err(fields.fault(
                &format!("clusters[{at}].name"),
                format!("cluster manager: duplicate cluster '{}'", cluster.name),
            ));
        }
    }
    for (at, listener) in listeners.iter().enumerate() {
        check_listener_clusters(listener, |name| names.contains(name)).map_err(|rejected| {
            fields.fault(
                &format!("listeners[{at}].{}", rejected.field_path),
                rejected.reason,
            )
        })?;
    }
    // A later listener of the same name is an update of the earlier one, as Envoy has it.
    let mut last: HashMap<Name, usize> = HashMap::with_capacity(listeners.len());
    for (at, listener) in listeners.iter().enumerate() {
        last.insert(listener.name.clone(), at);
    }
    let mut at = 0..;
    listeners.retain(|listener| last.get(&listener.name).copied() == at.next());
    Ok((listeners, clusters))
}
