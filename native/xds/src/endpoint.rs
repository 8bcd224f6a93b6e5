//! `config.endpoint.v3.ClusterLoadAssignment`.

use tidegate_model::Name;
use tidegate_model::cluster::{
    ClusterLoadAssignment, HealthStatus, LbEndpoint, Locality, LocalityLbEndpoints, Name0,
};

use crate::context::Result;
use crate::fields::Fields;
use crate::message::{Encoded, Value};
use crate::{address, istio, matcher, metadata, tls};

/// Endpoints that EDS delivers: IP addresses.
pub(crate) fn eds_load_assignment(fields: &Fields<'_>) -> Result<ClusterLoadAssignment> {
    load_assignment(fields, false)
}

/// Endpoints; names among them only where `dns`.
pub(crate) fn load_assignment(fields: &Fields<'_>, dns: bool) -> Result<ClusterLoadAssignment> {
    let mut assignment = ClusterLoadAssignment {
        cluster_name: fields.string("cluster_name"),
        localities: fields.each("endpoints", |locality| locality_endpoints(locality, dns))?,
        overprovisioning_factor: 140,
        weighted_priority_health: false,
        drop_overloads: Vec::new(),
    };
    fields.opt("policy", |policy| {
        policy.ignore(
            &["endpoint_stale_after"],
            "endpoints stay until the next assignment",
        );
        if let Some(factor) = policy.opt_u32("overprovisioning_factor") {
            assignment.overprovisioning_factor = factor;
        }
        assignment.weighted_priority_health = policy.bool("weighted_priority_health");
        assignment.drop_overloads = policy.each("drop_overloads", |drop| {
            let share = drop.need("drop_percentage", matcher::fraction)?;
            Ok((drop.string("category"), share))
        })?;
        Ok(())
    })?;
    Ok(assignment)
}

fn locality_endpoints(fields: &Fields<'_>, dns: bool) -> Result<LocalityLbEndpoints> {
    if !transport_socket_match(fields, &[]).is_empty() {
        return Err(fields.fault(
            "metadata",
            format!("{} of a locality is not supported", tls::MATCH_METADATA),
        ));
    }
    fields.ignore(&["proximity"], "Envoy does not implement it either");
    let endpoints = fields.each("lb_endpoints", |endpoint| lb_endpoint(endpoint, dns))?;
    let weights: u64 = endpoints
        .iter()
        .map(|endpoint| u64::from(endpoint.load_balancing_weight))
        .sum();
    if weights > u64::from(u32::MAX) {
        return Err(fields.fault(
            "lb_endpoints",
            format!(
                "The sum of weights of all endpoints in a locality exceeds {}",
                u32::MAX
            ),
        ));
    }
    Ok(LocalityLbEndpoints {
        locality: fields
            .opt("locality", |locality| {
                Ok(Locality {
                    region: Name0(locality.string("region")),
                    zone: Name0(locality.string("zone")),
                    sub_zone: Name0(locality.string("sub_zone")),
                })
            })?
            .unwrap_or_default(),
        endpoints,
        load_balancing_weight: fields.opt_u32("load_balancing_weight"),
        priority: fields.u32("priority"),
    })
}

fn lb_endpoint(fields: &Fields<'_>, dns: bool) -> Result<LbEndpoint> {
    let transport_socket_match = transport_socket_match(fields, &[metadata::LB]);
    let health = fields.choice(
        "health_status",
        &[
            ("UNKNOWN", HealthStatus::Unknown),
            ("HEALTHY", HealthStatus::Healthy),
            ("UNHEALTHY", HealthStatus::Unhealthy),
            ("DRAINING", HealthStatus::Draining),
            ("TIMEOUT", HealthStatus::Timeout),
            ("DEGRADED", HealthStatus::Degraded),
        ],
    )?;
    let (address, hostname) = fields.need("endpoint", |endpoint| {
        endpoint.ignore(
            &["health_check_config"],
            "there are no active health checks",
        );
        let address = endpoint.need("address", |fields| address::endpoint(fields, dns))?;
        Ok((address, endpoint.string("hostname")))
    })?;
    Ok(LbEndpoint {
        address,
        hostname,
        health,
        load_balancing_weight: fields.opt_u32("load_balancing_weight").unwrap_or(1),
        transport_socket_match,
        workload: istio::endpoint_workload(fields),
        lb_metadata: metadata::lb(fields),
    })
}

/// What `metadata` says for the choice of a transport socket; the rest of it has no reader, but for `read`.
fn transport_socket_match(fields: &Fields<'_>, read: &[&str]) -> Vec<(Name, Name)> {
    let metadata = fields.get("metadata").and_then(Value::as_message);
    let Some(Ok(metadata)) = metadata.map(Encoded::read) else {
        return Vec::new();
    };
    let entries = metadata.get("filter_metadata").and_then(Value::as_map);
    let entries = entries.unwrap_or_default();
    let is_match = |key: &Value<'_>| key.as_str() == Some(tls::MATCH_METADATA);
    let is_read = |key: &Value<'_>| key.as_str().is_some_and(|key| read.contains(&key));
    if entries
        .iter()
        .any(|(key, _)| !is_match(key) && !is_read(key))
    {
        fields.ignore(
            &["metadata"],
            "metadata has no reader but for the choice of a transport socket and for retries: subsets are not supported",
        );
    }
    let found = entries.iter().find(|(key, _)| is_match(key));
    found
        .and_then(|(_, labels)| labels.as_message())
        .map(tls::labels)
        .unwrap_or_default()
}
