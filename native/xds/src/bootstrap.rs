//! `config.bootstrap.v3.Bootstrap`: text or bytes in, everything the process starts from out.

mod dynamic;
pub(crate) mod operations;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_model::Name;
use tidegate_model::bootstrap::{Bootstrap, Node, StatsConfig};
use tidegate_model::cluster::{Cluster, Discovery, TcpKeepalive};

use crate::context::{Context, Fault, Result, message_type, unreadable};
use crate::fields::Fields;
use crate::message::{Encoded, Message, Value};
use crate::references::check_listener_clusters;
use crate::{Decoder, Rejected, cluster, istio, json, listener, rules, tls, tracing, v2, yaml};

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
    pub proto: Bytes,
    /// The encoded `Node` for discovery requests.
    pub node: Vec<u8>,
    /// Name and encoded resource of each static listener and cluster, for `/config_dump`: parts of `proto`.
    pub static_listeners: Vec<(Name, Bytes)>,
    pub static_clusters: Vec<(Name, Bytes)>,
    /// Likewise of `static_resources.secrets`, in the order of the model's.
    pub static_secrets: Vec<(Name, Bytes)>,
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
    let mut encoded = match format {
        Format::Pb => contents.to_vec(),
        Format::Yaml => from_document(yaml::parse(utf8(contents)?)?)?,
        Format::Json => from_json(utf8(contents)?)?,
    };
    if !overrides.config_yaml.is_empty() {
        // Encoded messages one after the other are the merged message.
        encoded.extend(from_document(yaml::parse(overrides.config_yaml)?)?);
    }
    let proto = Bytes::from(override_node(&encoded, overrides)?);
    drop(encoded);
    let message = context.decode(BOOTSTRAP, &proto)?;
    rules::check(&message)?;
    let mut extra = AdsExtra::default();
    let mut bootstrap = Fields::root(context, &message, |fields| {
        self::bootstrap(fields, &mut extra)
    })?;
    bootstrap.warnings = context
        .take_warnings()
        .iter()
        .map(ToString::to_string)
        .collect();
    let top = context.read(&message)?;
    let statics = top.get("static_resources").and_then(Value::as_message);
    let statics = statics.map(|statics| context.read(statics)).transpose()?;
    let parts = |name: &str| {
        let list = statics.as_ref().and_then(|statics| statics.get(name));
        let list = list.and_then(Value::as_list).unwrap_or_default().iter();
        list.filter_map(Value::as_message)
            .map(|part| joined(&proto, part))
            .collect::<Vec<Bytes>>()
    };
    let own_name = |bytes: &[u8]| Name::from(crate::resource_name(bytes).unwrap_or_default());
    let cluster_names = bootstrap
        .clusters
        .iter()
        .map(|cluster| cluster.name.clone());
    Ok(Loaded {
        node: contents_of(&top, "node"),
        static_listeners: parts("listeners")
            .into_iter()
            .map(|bytes| (own_name(&bytes), bytes))
            .collect(),
        static_secrets: parts("secrets")
            .into_iter()
            .map(|bytes| (own_name(&bytes), bytes))
            .collect(),
        static_clusters: cluster_names.zip(parts("clusters")).collect(),
        ads_authority: extra.authority,
        ads_tcp_keepalive: extra.tcp_keepalive,
        ads_http2_keepalive: extra.http2_keepalive,
        ads_retry_back_off: extra.retry_back_off.unwrap_or(RETRY_BACK_OFF),
        bootstrap,
        proto: proto.clone(),
    })
}

/// A message inside `whole` as a part of it.
fn joined(whole: &Bytes, part: &Encoded<'_>) -> Bytes {
    let mut pieces = part.pieces();
    match (pieces.next(), pieces.next()) {
        (Some(only), None) => whole.slice_ref(only),
        _ => Bytes::from(part.pieces().collect::<Vec<_>>().concat()),
    }
}

/// The encoded message in a field; empty when it is not set.
fn contents_of(message: &Message<'_>, name: &str) -> Vec<u8> {
    let found = message.get(name).and_then(Value::as_message);
    found.map_or_else(Vec::new, |found| {
        found.pieces().collect::<Vec<_>>().concat()
    })
}

fn utf8(contents: &[u8]) -> Result<&str> {
    std::str::from_utf8(contents)
        .map_err(|error| Fault::whole(format!("the bootstrap is not UTF-8: {error}")))
}

/// Most text is right and v3: it is read in one pass. The rest goes the long way, which knows what is wrong and converts v2.
fn from_json(text: &str) -> Result<Vec<u8>> {
    if !v2::is_suspect(text)
        && let Some(encoded) = json::parse_text(BOOTSTRAP, text)?
    {
        return Ok(encoded);
    }
    from_document(yaml::parse_json(text)?)
}

fn from_document(document: serde_json::Value) -> Result<Vec<u8>> {
    if !document.is_object() {
        return Err(Fault::whole("the bootstrap is not a mapping"));
    }
    json::parse(BOOTSTRAP, &v2::bootstrap(document)?)
}

/// Puts the command line's words about the node into the message, so that every reader sees the same.
fn override_node(encoded: &[u8], overrides: &Overrides<'_>) -> Result<Vec<u8>> {
    let bootstrap = Encoded::new(message_type(BOOTSTRAP)?, encoded);
    let kind = message_type("envoy.config.core.v3.Node")?;
    let broken = |error| unreadable(bootstrap.kind(), &error);
    let mut node = contents_of(&bootstrap.read().map_err(broken)?, "node");
    let with = |node: Vec<u8>, name: &str, value: &[u8]| {
        Encoded::new(kind, &node).with(name, value).map_err(broken)
    };
    let words = [
        ("id", overrides.node_id),
        ("cluster", overrides.node_cluster),
        ("user_agent_name", overrides.user_agent_name),
    ];
    for (name, word) in words {
        if !word.is_empty() {
            node = with(node, name, word.as_bytes())?;
        }
    }
    if !overrides.user_agent_version.is_empty() {
        let version = build_version(overrides)?;
        node = with(node, "user_agent_build_version", &version)?;
    }
    if !overrides.node_zone.is_empty() {
        let locality = contents_of(
            &Encoded::new(kind, &node).read().map_err(broken)?,
            "locality",
        );
        let locality = Encoded::new(message_type("envoy.config.core.v3.Locality")?, &locality);
        let zone = overrides.node_zone.as_bytes();
        let locality = locality.with("zone", zone).map_err(broken)?;
        node = with(node, "locality", &locality)?;
    }
    bootstrap.with("node", &node).map_err(broken)
}

fn build_version(overrides: &Overrides<'_>) -> Result<Vec<u8>> {
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
    json::parse("envoy.config.core.v3.BuildVersion", &document)
}

/// Of what tells others who it is.
const NODE_REQUIRED: &str = "node 'id' and 'cluster' are required. Set it either in 'node' config or via \
     --service-node and --service-cluster options.";

fn bootstrap(fields: &Fields<'_>, extra: &mut AdsExtra) -> Result<Bootstrap> {
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
    fields.each("bootstrap_extensions", operations::bootstrap_extension)?;
    regex_engine(fields)?;
    let node = fields.opt("node", node)?;
    let statics = fields.opt("static_resources", static_resources)?;
    let (listeners, clusters, secrets) = statics.unwrap_or_default();
    let dynamic = fields.or_default("dynamic_resources", |dynamic| {
        dynamic::dynamic_resources(dynamic, &clusters, extra)
    })?;
    let upstream_bind = fields.opt("cluster_manager", |manager| {
        manager.ignore(
            &["local_cluster_name"],
            "it is for zone aware routing, which is not in use",
        );
        manager.ignore(
            &["load_stats_config", "enable_deferred_cluster_creation"],
            "loads are not reported",
        );
        manager.opt("upstream_bind_config", cluster::bind_config)
    })?;
    let node = node.unwrap_or_else(|| Node {
        zone: Name::from(""),
        id: Name::from(""),
        cluster: Name::from(""),
        metadata: Arc::default(),
    });
    let discovers = dynamic.lds.is_some() || dynamic.cds.is_some() || dynamic.ads.is_some();
    let eds = clusters
        .iter()
        .any(|cluster| matches!(cluster.discovery, Discovery::Eds { .. }));
    if (discovers || eds) && (node.id.is_empty() || node.cluster.is_empty()) {
        return Err(fields.fault("node", NODE_REQUIRED));
    }
    let stats_sinks = fields.each("stats_sinks", |sink| {
        operations::stats_sink(sink, &node, &clusters)
    })?;
    let (runtime, admin_layer, rtds) =
        fields.or_default("layered_runtime", operations::layered_runtime)?;
    Ok(Bootstrap {
        upstream_bind: upstream_bind.flatten(),
        node,
        admin: fields.opt("admin", operations::admin)?.flatten(),
        listeners,
        clusters,
        secrets,
        dynamic,
        stats: fields
            .opt("stats_config", operations::stats_config)?
            .unwrap_or(StatsConfig {
                use_all_default_tags: true,
                ..StatsConfig::default()
            }),
        stats_sinks,
        stats_flush_interval: fields
            .duration("stats_flush_interval")?
            .unwrap_or(Duration::from_secs(5)),
        runtime,
        admin_layer,
        rtds,
        header_prefix: fields
            .opt_string("header_prefix")
            .unwrap_or_else(|| Name::from("x-envoy")),
        tracing: fields
            .opt("tracing", |tracing| tracing.opt("http", tracing::provider))?
            .flatten(),
        max_active_downstream_connections: fields
            .opt("overload_manager", operations::overload_manager)?
            .flatten(),
        log_format: fields
            .opt("application_log_config", operations::application_log)?
            .flatten(),
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
    // All of it goes to the management server as it is; only these have a meaning here.
    // All of it goes to the management server as it is; few parts have a meaning here.
    for name in [
        "dynamic_parameters",
        "user_agent_name",
        "user_agent_version",
        "user_agent_build_version",
        "extensions",
        "client_features",
        "listening_addresses",
    ] {
        fields.get(name);
    }
    let zone = fields.opt("locality", |locality| {
        locality.get("region");
        locality.get("sub_zone");
        Ok(locality.string("zone"))
    })?;
    Ok(Node {
        zone: zone.unwrap_or_default(),
        id: fields.string("id"),
        cluster: fields.string("cluster"),
        metadata: Arc::new(istio::node_metadata(fields)),
    })
}

type Clusters = Vec<Arc<Cluster>>;
type Statics = (
    Vec<Arc<tidegate_model::listener::Listener>>,
    Clusters,
    Vec<Arc<tidegate_model::tls::Secret>>,
);

fn static_resources(fields: &Fields<'_>) -> Result<Statics> {
    let secrets = fields.each("secrets", |fields| tls::secret(fields).map(Arc::new))?;
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
    Ok((listeners, clusters, secrets))
}
