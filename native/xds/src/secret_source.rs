//! `SdsSecretConfig`: the name of a secret, and where it comes from.

use std::sync::Arc;
use std::time::Duration;

use tidegate_model::tls::{GrpcSource, SecretConfigSource, SecretRef};

use crate::cluster::path_and_timeout;
use crate::context::Result;
use crate::fields::Fields;

pub(crate) fn secret_ref(fields: &Fields<'_>) -> Result<SecretRef> {
    let (source, initial_fetch_timeout) = fields
        .opt("sds_config", config_source)?
        .unwrap_or((SecretConfigSource::Static, None));
    Ok(SecretRef {
        name: fields.string("name"),
        source,
        initial_fetch_timeout,
    })
}

/// `ConfigSource` of a secret, which may have a gRPC stream of its own.
fn config_source(fields: &Fields<'_>) -> Result<(SecretConfigSource, Option<Duration>)> {
    let (path, timeout) = path_and_timeout(fields)?;
    let source = if let Some(path) = path {
        SecretConfigSource::Path(path)
    } else if let Some(source) = fields.opt("api_config_source", grpc)? {
        SecretConfigSource::Grpc(Arc::new(source))
    } else {
        fields.refuse(
            "self",
            "only ads, path_config_source and api_config_source are supported",
        )?;
        fields.need("ads", |_| Ok(()))?;
        SecretConfigSource::Ads
    };
    Ok((source, timeout))
}

fn grpc(fields: &Fields<'_>) -> Result<GrpcSource> {
    fields.ignore(&["refresh_delay", "request_timeout"], "it is for REST");
    fields.ignore(
        &["rate_limit_settings"],
        "requests are paced by the answers to them",
    );
    // It is there in any case; a server has to keep it for the stream.
    fields.bool("set_node_on_first_message_only");
    let delta = fields.choice("api_type", &[("GRPC", false), ("DELTA_GRPC", true)])?;
    fields.choice("transport_api_version", &[("AUTO", ()), ("V3", ())])?;
    let mut services = fields.each("grpc_services", |service| {
        service.ignore(&["timeout"], "a stream has no end");
        let initial_metadata = service.each("initial_metadata", |header| {
            Ok((header.string("key"), header.string("value")))
        })?;
        service.need("envoy_grpc", |grpc| {
            grpc.ignore(
                &["max_receive_message_length", "skip_envoy_headers"],
                "the xDS client has no such limit",
            );
            Ok(GrpcSource {
                cluster_name: grpc.string("cluster_name"),
                authority: grpc.string("authority"),
                delta,
                initial_metadata: initial_metadata.clone(),
            })
        })
    })?;
    match (services.pop(), services.is_empty()) {
        (Some(service), true) => Ok(service),
        _ => Err(fields.fault(
            "grpc_services",
            "SDS: exactly one gRPC service must be given",
        )),
    }
}
