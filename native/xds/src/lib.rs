//! From protobuf bytes to [`tidegate_model`], or a [`Rejected`] that names the resource, the field path and the reason.
//!
//! Decoding is pure: bytes or text in, model out; the only things ever read besides are files that a configuration names as
//! its `DataSource`. The rule of the crate is that every field that is set is either honoured or refused by its path.
//! [`fields::Fields`] enforces it: a decoder reads fields by name, and a field that is set but that nobody read is a rejection.
//! So the list of what is honoured is the decoders themselves and cannot drift from them. Where Envoy would carry on and the
//! field changes nothing here, the decoder says so with [`fields::Fields::ignore`]: that is a [`Warning`], to be
//! logged once and counted.
//!
//! Before decoding, Envoy's own validation rules, which the descriptors carry as options, are checked in its words ([`rules`]).
//!
//! This crate must not know match tables, sockets, threads or Python.

#![allow(
    clippy::unnecessary_wraps,
    reason = "decoders have one signature, also those that cannot fail"
)]

mod access_log;
mod address;
mod any;
mod bootstrap;
mod cluster;
mod compressor;
mod context;
mod cors;
mod delta;
mod discovery;
mod dump;
mod endpoint;
mod ext_authz;
mod fault;
mod fields;
mod hash_policy;
mod hcm;
mod header_mutation;
mod http2;
mod istio;
mod http_filter;
mod json;
mod jwt_authn;
mod lb;
mod listener;
mod listener_filter;
mod local_ratelimit;
mod lua;
mod matcher;
mod message;
mod metadata;
mod network_filter;
mod outlier_detection;
mod rbac;
mod references;
mod retry;
mod route;
mod route_action;
mod rules;
mod services;
mod secret_files;
mod secret_source;
mod tls;
mod tracing;
mod upstream_http;
mod v2;
mod value;
mod yaml;

#[cfg(test)]
mod tests;

use tidegate_model::Name;
use tidegate_model::cluster::{Cluster, ClusterLoadAssignment};
use tidegate_model::listener::Listener;
use tidegate_model::route::RouteConfiguration;
use tidegate_model::tls::Secret;

pub use bootstrap::{Format, Loaded, Overrides};
pub use context::Warning;
pub use delta::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, decode_delta_discovery_response,
    encode_delta_discovery_request,
};
pub use discovery::{
    DiscoveryRequest, DiscoveryResponse, decode_discovery_file, decode_discovery_response,
    encode_discovery_request, resource_name,
};

pub use http_filter::{ExtensionConfig, check_extension_type, check_terminal};
pub use references::{check_listener_clusters, check_route_clusters};

use context::{Context, Fault};

/// Type URLs of what is decoded here.
pub mod type_url {
    pub const PREFIX: &str = "type.googleapis.com/";
    pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    pub const CLUSTER_LOAD_ASSIGNMENT: &str =
        "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    pub const ROUTE_CONFIGURATION: &str =
        "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    pub const RUNTIME: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
    pub const TYPED_EXTENSION_CONFIG: &str =
        "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
}

/// A resource that cannot be honoured, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{}{}{reason}", .name, if .name.is_empty() { "" } else { ": " }, .field_path, if .field_path.is_empty() { "" } else { ": " })]
pub struct Rejected {
    /// The resource; empty when it has none, or for the bootstrap.
    pub name: String,
    /// From the root of the resource: `filter_chains[0].filters[0].typed_config.stat_prefix`; may be empty.
    pub field_path: String,
    pub reason: String,
}

impl Rejected {
    fn from_fault(name: &str, fault: Fault) -> Self {
        Self {
            name: name.to_owned(),
            field_path: fault.path,
            reason: fault.reason,
        }
    }
}

/// Decodes resources of any number, and keeps what there was to warn of.
///
/// Printing ([`Decoder::to_json`]) needs a descriptor pool of a few MiB, which the decoder then holds.
#[derive(Debug, Default)]
pub struct Decoder {
    context: Context,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// An encoded `envoy.config.listener.v3.Listener`.
    pub fn listener(&self, bytes: &[u8]) -> Result<Listener, Rejected> {
        self.resource(type_url::LISTENER, bytes, listener::listener)
    }

    /// An encoded `envoy.config.cluster.v3.Cluster`.
    pub fn cluster(&self, bytes: &[u8]) -> Result<Cluster, Rejected> {
        self.resource(type_url::CLUSTER, bytes, cluster::cluster)
    }

    /// An encoded `envoy.config.endpoint.v3.ClusterLoadAssignment`; its addresses must be IP addresses.
    pub fn cluster_load_assignment(&self, bytes: &[u8]) -> Result<ClusterLoadAssignment, Rejected> {
        self.resource(
            type_url::CLUSTER_LOAD_ASSIGNMENT,
            bytes,
            endpoint::eds_load_assignment,
        )
    }

    /// An encoded `envoy.config.route.v3.RouteConfiguration`, as RDS delivers it.
    pub fn route_configuration(&self, bytes: &[u8]) -> Result<RouteConfiguration, Rejected> {
        self.resource(
            type_url::ROUTE_CONFIGURATION,
            bytes,
            route::rds_route_configuration,
        )
    }

    /// An encoded `envoy.extensions.transport_sockets.tls.v3.Secret`; files that it names have been read.
    pub fn secret(&self, bytes: &[u8]) -> Result<Secret, Rejected> {
        self.resource(type_url::SECRET, bytes, tls::secret)
    }

    /// An encoded `envoy.config.core.v3.TypedExtensionConfig` for an HTTP filter; `accepts` says why a configuration whose
    /// message has that name will not do.
    pub fn extension_config(
        &self,
        bytes: &[u8],
        accepts: &dyn Fn(&str) -> Result<(), String>,
    ) -> Result<ExtensionConfig, Rejected> {
        self.resource(type_url::TYPED_EXTENSION_CONFIG, bytes, |fields| {
            http_filter::extension_config(fields, accepts)
        })
    }

    /// An encoded `envoy.service.runtime.v3.Runtime`: the layer's name and its values, flattened.
    pub fn runtime(&self, bytes: &[u8]) -> Result<(Name, Vec<(Name, Name)>), Rejected> {
        self.resource(type_url::RUNTIME, bytes, bootstrap::operations::runtime)
    }

    /// The payload of an `Any`, after checking that its type URL is the one wanted.
    pub fn unwrap_any<'a>(
        &self,
        wanted: &str,
        type_url: &str,
        value: &'a [u8],
    ) -> Result<&'a [u8], Rejected> {
        if type_url == wanted {
            return Ok(value);
        }
        Err(Rejected {
            name: resource_name(value).unwrap_or_default(),
            field_path: String::new(),
            reason: format!("Unexpected resource type URL {type_url}, wanted {wanted}"),
        })
    }

    /// The directories in which a rename may replace a file that an encoded
    /// `envoy.extensions.transport_sockets.tls.v3.Secret` refers to.
    pub fn secret_directories(&self, bytes: &[u8]) -> Result<Vec<String>, Rejected> {
        secret_files::directories(bytes)
            .map_err(|fault| Rejected::from_fault(&resource_name(bytes).unwrap_or_default(), fault))
    }

    /// A message as JSON the way `/config_dump` prints it: original field names, `Any` inlined under `@type`.
    ///
    /// A payload of a type that no descriptor describes is shown as an `xds.type.v3.TypedStruct` of its type URL and its bytes.
    pub fn to_json(&self, message_name: &str, bytes: &[u8]) -> Result<serde_json::Value, Rejected> {
        dump::to_json(&self.context, message_name, bytes)
            .map_err(|fault| Rejected::from_fault("", fault))
    }

    /// The encoded message that JSON describes; what does not fit is told with its path.
    pub fn from_json(
        &self,
        message_name: &str,
        value: &serde_json::Value,
    ) -> Result<Vec<u8>, Rejected> {
        json::parse(message_name, value).map_err(|fault| Rejected::from_fault("", fault))
    }

    /// What was passed over since the last call: fields that Envoy honours and that change nothing here.
    pub fn take_warnings(&self) -> Vec<Warning> {
        self.context.take_warnings()
    }

    fn resource<T>(
        &self,
        type_url: &str,
        bytes: &[u8],
        decode: impl FnOnce(&fields::Fields<'_>) -> context::Result<T>,
    ) -> Result<T, Rejected> {
        let before = self.context.warned();
        let decoded = self
            .context
            .decode(any::type_name(type_url), bytes)
            .and_then(|message| {
                rules::check(&message)?;
                fields::Fields::root(&self.context, &message, decode)
            });
        if self.context.warned() > before {
            let name = resource_name(bytes).unwrap_or_default();
            self.context.name_warnings(before, &name);
        }
        decoded
            .map_err(|fault| Rejected::from_fault(&resource_name(bytes).unwrap_or_default(), fault))
    }
}

/// [`Decoder::listener`] for a single resource.
pub fn decode_listener(bytes: &[u8]) -> Result<Listener, Rejected> {
    Decoder::new().listener(bytes)
}

/// [`Decoder::cluster`] for a single resource.
pub fn decode_cluster(bytes: &[u8]) -> Result<Cluster, Rejected> {
    Decoder::new().cluster(bytes)
}

/// [`Decoder::cluster_load_assignment`] for a single resource.
pub fn decode_cluster_load_assignment(bytes: &[u8]) -> Result<ClusterLoadAssignment, Rejected> {
    Decoder::new().cluster_load_assignment(bytes)
}

/// [`Decoder::route_configuration`] for a single resource.
pub fn decode_route_configuration(bytes: &[u8]) -> Result<RouteConfiguration, Rejected> {
    Decoder::new().route_configuration(bytes)
}
