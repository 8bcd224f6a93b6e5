//! How a cluster balances: `lb_policy` with its configurations of old, `common_lb_config`, and the extensions that may stand in
//! `load_balancing_policy` instead.

use std::time::Duration;

use tidegate_model::cluster::{
    Discovery, LbConfig, LbPolicy, LeastRequest, RingHash, RingHashFunction, SlowStart,
};

use crate::context::Result;
use crate::fields::Fields;
use crate::hash_policy::hash_policies;

/// Policy and configuration of a cluster.
pub(crate) fn balancing(
    fields: &Fields<'_>,
    discovery: &Discovery,
) -> Result<(LbPolicy, LbConfig)> {
    let mut lb = fields.or_default("common_lb_config", common)?;
    if lb.use_hostname_for_hashing && !matches!(discovery, Discovery::StrictDns(_)) {
        let kind = fields.enum_name("type").to_ascii_lowercase();
        return Err(fields.fault(
            "common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing",
            format!(
                "Cannot use hostname for consistent hashing loadbalancing for cluster of type: 'envoy.cluster.{kind}'"
            ),
        ));
    }
    let mut policy = old_policy(fields, &mut lb)?;
    if let Some((extension, config)) = fields
        .opt("load_balancing_policy", load_balancing_policy)?
        .flatten()
    {
        // What the cluster itself says counts no more, but for panic and connections.
        policy = extension;
        lb = LbConfig {
            healthy_panic_threshold: lb.healthy_panic_threshold,
            close_connections_on_host_set_change: lb.close_connections_on_host_set_change,
            ..config
        };
    }
    check_provided(fields, discovery, policy)?;
    Ok((policy, lb))
}

fn common(fields: &Fields<'_>) -> Result<LbConfig> {
    fields.ignore(&["update_merge_window"], "updates are applied at once");
    fields.ignore(
        &["ignore_new_hosts_until_first_hc"],
        "there are no active health checks",
    );
    fields.ignore(
        &["override_host_status"],
        "no filter overrides the choice of a host",
    );
    fields.expect_bool("close_connections_on_host_set_change", false)?;
    let threshold = fields.opt("healthy_panic_threshold", |percent| {
        Ok(percent.opt_double("value").unwrap_or_default())
    })?;
    let locality_weighted = fields.opt("locality_weighted_lb_config", |_| Ok(()))?;
    let zone_aware = fields.opt("zone_aware_lb_config", zone_aware)?;
    let mut lb = LbConfig {
        // Rounded, as Envoy rounds.
        healthy_panic_threshold: threshold.map_or(50, |percent| percent.round() as u32),
        locality_weighted: locality_weighted.is_some(),
        fail_traffic_on_panic: zone_aware.unwrap_or_default(),
        ..LbConfig::default()
    };
    fields.opt("consistent_hashing_lb_config", |hashing| {
        consistent_hashing(hashing, &mut lb)
    })?;
    Ok(lb)
}

/// Returns `fail_traffic_on_panic`.
fn zone_aware(fields: &Fields<'_>) -> Result<bool> {
    fields.ignore(
        &["routing_enabled", "min_cluster_size"],
        "there is no local cluster, without which Envoy does not use it",
    );
    Ok(fields.bool("fail_traffic_on_panic"))
}

fn consistent_hashing(fields: &Fields<'_>, lb: &mut LbConfig) -> Result<()> {
    lb.use_hostname_for_hashing = fields.bool("use_hostname_for_hashing");
    lb.hash_balance_factor = fields.u32("hash_balance_factor");
    Ok(())
}

/// `lb_policy`.
fn old_policy(fields: &Fields<'_>, lb: &mut LbConfig) -> Result<LbPolicy> {
    let least_request = fields.opt("least_request_lb_config", |config| {
        let slow_start = config.opt("slow_start_config", slow_start)?;
        Ok((least_request(config)?, slow_start))
    })?;
    let round_robin = fields.opt("round_robin_lb_config", |config| {
        config.opt("slow_start_config", slow_start)
    })?;
    let ring_hash = fields.opt("ring_hash_lb_config", ring_hash)?;
    let table_size = fields.opt("maglev_lb_config", table_size)?;
    let name = fields.enum_name("lb_policy");
    Ok(match &*name {
        "ROUND_ROBIN" => {
            lb.slow_start = round_robin.flatten();
            LbPolicy::RoundRobin
        }
        "LEAST_REQUEST" => {
            let (policy, slow_start) = least_request.unwrap_or_default();
            lb.slow_start = slow_start;
            LbPolicy::LeastRequest(policy)
        }
        "RANDOM" => LbPolicy::Random,
        "RING_HASH" => LbPolicy::RingHash(ring_hash.unwrap_or_default()),
        "MAGLEV" => LbPolicy::Maglev {
            table_size: table_size.unwrap_or(TABLE_SIZE),
        },
        "CLUSTER_PROVIDED" => LbPolicy::ClusterProvided,
        // Then the extension says it; without one Envoy would not start.
        "LOAD_BALANCING_POLICY_CONFIG" if fields.has("load_balancing_policy") => {
            LbPolicy::RoundRobin
        }
        other => return Err(fields.fault("lb_policy", format!("{other} is not supported"))),
    })
}

fn check_provided(fields: &Fields<'_>, discovery: &Discovery, policy: LbPolicy) -> Result<()> {
    let name = fields.enum_name("lb_policy");
    let original_dst = matches!(discovery, Discovery::OriginalDst(_));
    if original_dst && policy != LbPolicy::ClusterProvided {
        return Err(fields.fault(
            "lb_policy",
            format!(
                "cluster: LB policy {name} is not valid for Cluster type ORIGINAL_DST. Only 'CLUSTER_PROVIDED' is allowed \
                 with cluster type 'ORIGINAL_DST'"
            ),
        ));
    }
    if !original_dst && policy == LbPolicy::ClusterProvided {
        return Err(fields.fault(
            "lb_policy",
            format!(
                "cluster manager: cluster provided LB specified but cluster '{}' did not provide one. Check cluster documentation.",
                fields.str("name")
            ),
        ));
    }
    Ok(())
}

fn least_request(fields: &Fields<'_>) -> Result<LeastRequest> {
    let bias = fields.opt("active_request_bias", runtime_double)?;
    let default = LeastRequest::default();
    Ok(LeastRequest {
        choice_count: fields
            .opt_u32("choice_count")
            .unwrap_or(default.choice_count),
        active_request_bias: bias.unwrap_or(default.active_request_bias).max(0.0),
        full_scan: false,
    })
}

fn runtime_double(fields: &Fields<'_>) -> Result<f64> {
    fields.ignore(&["runtime_key"], "its default value counts");
    Ok(fields.opt_double("default_value").unwrap_or_default())
}

fn slow_start(fields: &Fields<'_>) -> Result<SlowStart> {
    let aggression = fields.opt("aggression", runtime_double)?;
    let least = fields.opt("min_weight_percent", |percent| {
        Ok(percent.opt_double("value").unwrap_or_default())
    })?;
    Ok(SlowStart {
        window: fields
            .duration("slow_start_window")?
            .unwrap_or(Duration::ZERO),
        aggression: aggression
            .filter(|aggression| *aggression > 0.0)
            .unwrap_or(1.0),
        min_weight_percent: least.unwrap_or(10.0),
    })
}

fn ring_hash(fields: &Fields<'_>) -> Result<RingHash> {
    let default = RingHash::default();
    let ring = RingHash {
        hash_function: match &*fields.enum_name("hash_function") {
            "MURMUR_HASH_2" => RingHashFunction::MurmurHash2,
            _ => RingHashFunction::XxHash,
        },
        minimum_ring_size: fields
            .opt_uint("minimum_ring_size")
            .unwrap_or(default.minimum_ring_size),
        maximum_ring_size: fields
            .opt_uint("maximum_ring_size")
            .unwrap_or(default.maximum_ring_size),
    };
    if ring.minimum_ring_size > ring.maximum_ring_size {
        return Err(fields.fault(
            "minimum_ring_size",
            format!(
                "ring hash: minimum_ring_size ({}) > maximum_ring_size ({})",
                ring.minimum_ring_size, ring.maximum_ring_size
            ),
        ));
    }
    Ok(ring)
}

/// Of Maglev.
const TABLE_SIZE: u64 = 65_537;

fn table_size(fields: &Fields<'_>) -> Result<u64> {
    let size = fields.opt_uint("table_size").unwrap_or(TABLE_SIZE);
    let is_prime = size >= 2
        && (2..size)
            .take_while(|divisor| divisor * divisor <= size)
            .all(|divisor| !size.is_multiple_of(divisor));
    if !is_prime {
        return Err(fields.fault(
            "table_size",
            "The table size of maglev must be prime number",
        ));
    }
    Ok(size)
}

type Extension = (LbPolicy, LbConfig);

/// `config.cluster.v3.LoadBalancingPolicy`: the first policy counts, as Envoy knows all that we know.
fn load_balancing_policy(fields: &Fields<'_>) -> Result<Option<Extension>> {
    let mut found = None;
    fields.each("policies", |policy| {
        policy.need("typed_extension_config", |extension| {
            extension.str("name");
            if found.is_some() {
                extension.get("typed_config");
                return Ok(());
            }
            found = Some(self::extension(extension)?);
            Ok(())
        })
    })?;
    if found.is_none() {
        return Err(fields.fault("policies", "value must contain at least 1 item(s)"));
    }
    Ok(found)
}

fn extension(fields: &Fields<'_>) -> Result<Extension> {
    const PREFIX: &str = "envoy.extensions.load_balancing_policies";
    fields.need_any(
        "typed_config",
        &[
            (&format!("{PREFIX}.round_robin.v3.RoundRobin"), &|config| {
                let mut lb = locality(config, "locality_lb_config")?;
                lb.slow_start = config.opt("slow_start_config", slow_start)?;
                Ok((LbPolicy::RoundRobin, lb))
            }),
            (
                &format!("{PREFIX}.least_request.v3.LeastRequest"),
                &|config| {
                    let mut lb = locality(config, "locality_lb_config")?;
                    lb.slow_start = config.opt("slow_start_config", slow_start)?;
                    let old_full_scan = config.bool("enable_full_scan");
                    let full_scan = config.choice(
                        "selection_method",
                        &[("N_CHOICES", false), ("FULL_SCAN", true)],
                    )?;
                    let policy = LeastRequest {
                        full_scan: full_scan || old_full_scan,
                        ..least_request(config)?
                    };
                    Ok((LbPolicy::LeastRequest(policy), lb))
                },
            ),
            (&format!("{PREFIX}.random.v3.Random"), &|config| {
                Ok((LbPolicy::Random, locality(config, "locality_lb_config")?))
            }),
            (&format!("{PREFIX}.ring_hash.v3.RingHash"), &|config| {
                let mut lb = hashing(config)?;
                let old_hostname = config.bool("use_hostname_for_hashing");
                let old_factor = config.u32("hash_balance_factor");
                if !config.has("consistent_hashing_lb_config") {
                    lb.use_hostname_for_hashing = old_hostname;
                    lb.hash_balance_factor = old_factor;
                }
                Ok((LbPolicy::RingHash(ring_hash(config)?), lb))
            }),
            (&format!("{PREFIX}.maglev.v3.Maglev"), &|config| {
                let lb = hashing(config)?;
                let table_size = table_size(config)?;
                Ok((LbPolicy::Maglev { table_size }, lb))
            }),
            (
                &format!("{PREFIX}.cluster_provided.v3.ClusterProvided"),
                &|_| Ok((LbPolicy::ClusterProvided, LbConfig::default())),
            ),
        ],
    )
}

/// `common.v3.LocalityLbConfig`.
fn locality(fields: &Fields<'_>, name: &str) -> Result<LbConfig> {
    fields.or_default(name, |locality| {
        let weighted = locality.opt("locality_weighted_lb_config", |_| Ok(()))?;
        let fails = locality.opt("zone_aware_lb_config", |zone| {
            zone.ignore(
                &[
                    "force_locality_direct_routing",
                    "force_local_zone",
                    "locality_basis",
                ],
                "there is no local cluster, without which Envoy does not use it",
            );
            zone_aware(zone)
        })?;
        Ok(LbConfig {
            locality_weighted: weighted.is_some(),
            fail_traffic_on_panic: fails.unwrap_or_default(),
            ..LbConfig::default()
        })
    })
}

fn hashing(fields: &Fields<'_>) -> Result<LbConfig> {
    let weighted = fields.opt("locality_weighted_lb_config", |_| Ok(()))?;
    let mut lb = LbConfig {
        locality_weighted: weighted.is_some(),
        ..LbConfig::default()
    };
    fields.opt("consistent_hashing_lb_config", |config| {
        consistent_hashing(config, &mut lb)?;
        lb.hash_policy = hash_policies(config)?;
        Ok(())
    })?;
    Ok(lb)
}
