//! Refusals: each has the whole path and a reason, in Envoy's words where Envoy has them.

mod clusters;
mod listeners;
mod routes;

use serde_json::{Value as Json, json};

use super::{CLUSTER, LISTENER, ROUTES, cluster, listener, outcome, route_configuration, with};
use crate::{Decoder, decode_cluster, decode_listener};

const CHAIN: &str = "filter_chains[0]";
const MANAGER: &str = "filter_chains[0].filters[0].typed_config";
const IN_MANAGER: &str = "/filter_chains/0/filters/0/typed_config";
const ROUTE: &str = "virtual_hosts[0].routes[0]";
const IN_ROUTE: &str = "/virtual_hosts/0/routes/0";

#[track_caller]
fn refused(message_name: &str, base: Json, changes: &[(&str, Json)], path: &str, reason: &str) {
    let rejected = outcome(message_name, &with(base, changes)).expect_err("accepted");
    assert_eq!(rejected.field_path, path, "{rejected}");
    assert!(
        rejected.reason.contains(reason),
        "{:?} does not say {reason:?}",
        rejected.reason
    );
}

#[track_caller]
fn listener_refused(changes: &[(&str, Json)], path: &str, reason: &str) {
    refused(LISTENER, listener(), changes, path, reason);
}

#[track_caller]
fn manager_refused(field: &str, value: Json, path: &str, reason: &str) {
    listener_refused(
        &[(&format!("{IN_MANAGER}/{field}"), value)],
        &format!("{MANAGER}.{path}"),
        reason,
    );
}

#[track_caller]
fn cluster_refused(changes: &[(&str, Json)], path: &str, reason: &str) {
    refused(CLUSTER, cluster(), changes, path, reason);
}

#[track_caller]
fn route_refused(field: &str, value: Json, path: &str, reason: &str) {
    refused(
        ROUTES,
        route_configuration(),
        &[(&format!("{IN_ROUTE}/{field}"), value)],
        &format!("{ROUTE}.{path}"),
        reason,
    );
}

#[test]
fn bytes_that_are_no_message() {
    let rejected = decode_listener(b"\xff\xff\xff").unwrap_err();
    assert_eq!(
        (rejected.name.as_str(), rejected.field_path.as_str()),
        ("", "")
    );
    assert!(
        rejected
            .reason
            .starts_with("Unable to parse as envoy.config.listener.v3.Listener"),
        "{rejected}"
    );
}

#[test]
fn a_field_that_the_descriptors_lack() {
    let mut bytes = super::encode(CLUSTER, &cluster());
    // Field 4000, a varint: not in any version of the API that we know.
    bytes.extend_from_slice(&[0x80, 0xfa, 0x01, 0x01]);
    let rejected = decode_cluster(&bytes).unwrap_err();
    assert_eq!(rejected.name, "backend");
    assert_eq!(
        rejected.reason,
        "unknown field 4000 of envoy.config.cluster.v3.Cluster"
    );
}

#[test]
fn a_resource_of_another_type() {
    let decoder = Decoder::new();
    let bytes = super::encode(CLUSTER, &cluster());
    let rejected = decoder
        .unwrap_any(crate::type_url::LISTENER, crate::type_url::CLUSTER, &bytes)
        .unwrap_err();
    assert!(
        rejected.reason.contains(crate::type_url::CLUSTER),
        "{rejected}"
    );
    assert!(
        decoder
            .unwrap_any(crate::type_url::CLUSTER, crate::type_url::CLUSTER, &bytes)
            .is_ok()
    );
}

#[test]
fn a_rejection_names_its_resource_and_reads_as_a_line() {
    let bytes = super::encode(
        CLUSTER,
        &with(cluster(), &[("/lb_subset_config", json!({}))]),
    );
    let rejected = decode_cluster(&bytes).unwrap_err();
    assert_eq!(
        rejected.to_string(),
        "backend: lb_subset_config: is not supported"
    );
}

#[test]
fn damaged_bytes_are_refused_or_read_but_never_a_panic() {
    let good = super::encode(LISTENER, &listener());
    let decoder = Decoder::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let mut refused = 0;
    for _ in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(3) {
                0 => bytes[at] ^= 1 << next(8),
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, next(256) as u8),
            }
        }
        refused += usize::from(decoder.listener(&bytes).is_err());
        let _ = decoder.to_json(LISTENER, &bytes);
    }
    assert!(refused > 2000, "{refused}");
}
