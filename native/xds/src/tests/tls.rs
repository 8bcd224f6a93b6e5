//! TLS contexts and secrets: what istiod sends arrives, and what cannot be honoured has its path.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tidegate_model::matcher::StringPattern;
use tidegate_model::tls::{
    Certificates, SanType, SecretConfigSource, SecretValue, SessionTickets, TlsVersion, Validation,
};

use super::{PREFIX, encode, with};
use crate::context::{Context, Result};
use crate::fields::Fields;
use crate::{Decoder, rules, tls};

const TYPES: &str = "envoy.extensions.transport_sockets.tls.v3.";

fn decode<T>(
    kind: &str,
    value: &Json,
    decoder: impl FnOnce(&Fields<'_>) -> Result<T>,
) -> (Result<T>, usize) {
    let name = format!("{TYPES}{kind}");
    let bytes = encode(&name, value);
    let context = Context::default();
    let message = context.decode(&name, &bytes).unwrap();
    let decoded = rules::check(&message).and_then(|()| Fields::root(&context, &message, decoder));
    (decoded, context.take_warnings().len())
}

fn sds(name: &str) -> Json {
    json!({
        "name": name,
        "sds_config": {
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "sds-grpc" } }]
            },
            "initial_fetch_timeout": "0s",
            "resource_api_version": "V3"
        }
    })
}

/// As istiod has them for a sidecar.
fn common() -> Json {
    json!({
        "alpn_protocols": ["istio-peer-exchange", "h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [sds("default")],
        "combined_validation_context": {
            "default_validation_context": {
                "match_subject_alt_names": [{ "prefix": "spiffe://cluster.local/" }]
            },
            "validation_context_sds_secret_config": sds("ROOTCA")
        },
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_2",
            "tls_maximum_protocol_version": "TLSv1_3",
            "cipher_suites": [
                "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256", "AES128-GCM-SHA256"
            ]
        }
    })
}

fn server() -> Json {
    json!({ "common_tls_context": common(), "require_client_certificate": true })
}

fn client() -> Json {
    json!({ "common_tls_context": common(), "sni": "outbound_.9080_._.a.b.svc.cluster.local" })
}

#[test]
fn istiods_contexts() {
    let (context, warnings) = decode("DownstreamTlsContext", &server(), tls::downstream);
    let context = context.unwrap();
    assert_eq!(warnings, 1, "a cipher suite without ECDHE");
    assert!(context.require_client_certificate && context.stateful_session_resumption);
    assert_eq!(context.session_tickets, SessionTickets::Internal);
    let common = &context.common;
    assert_eq!(common.alpn_protocols.len(), 3);
    assert_eq!(common.params.max_version, Some(TlsVersion::V1_3));
    assert_eq!(
        *common.params.cipher_suites,
        [
            "ECDHE-ECDSA-AES256-GCM-SHA384".into(),
            "ECDHE-RSA-AES128-GCM-SHA256".into()
        ]
    );
    let secrets = context.secrets();
    let names: Vec<_> = secrets.iter().map(|secret| &*secret.name).collect();
    assert_eq!(names, ["default", "ROOTCA"]);
    for secret in &secrets {
        assert_eq!(secret.initial_fetch_timeout, None);
        let SecretConfigSource::Grpc(source) = &secret.source else {
            panic!("{:?}", secret.source)
        };
        assert!(&*source.cluster_name == "sds-grpc" && !source.delta);
    }
    let Validation::Combined { default, .. } = &common.validation else {
        panic!("{:?}", common.validation)
    };
    let kinds: Vec<_> = default
        .subject_alt_names
        .iter()
        .map(|san| san.kind.clone())
        .collect();
    assert_eq!(
        kinds,
        [
            SanType::Dns,
            SanType::Uri,
            SanType::Email,
            SanType::IpAddress
        ]
    );

    let (context, _) = decode("UpstreamTlsContext", &client(), tls::upstream);
    let context = context.unwrap();
    assert_eq!(&*context.sni, "outbound_.9080_._.a.b.svc.cluster.local");
    assert_eq!(context.max_session_keys, 1);
}

#[test]
fn everything_else_that_is_honoured() {
    let value = json!({
        "common_tls_context": {
            "tls_certificates": [{
                "certificate_chain": { "inline_string": "chain" },
                "private_key": { "inline_string": "key" },
                "ocsp_staple": { "inline_bytes": "c3RhcGxl" }
            }, {}],
            "validation_context": {
                "trusted_ca": { "inline_string": "ca" },
                "crl": { "inline_string": "crl" },
                "match_typed_subject_alt_names": [
                    { "san_type": "URI", "matcher": { "exact": "spiffe://a" } },
                    { "san_type": "OTHER_NAME", "oid": "1.2.3", "matcher": { "exact": "x" } }
                ],
                "verify_certificate_hash": [
                    "df:6f:f7:2f:e9:11:65:21:26:8f:6f:2d:d4:96:6f:51:df:47:98:83:fe:70:37:b3:9f:75:91:6a:c3:04:9d:1a"
                ],
                "verify_certificate_spki": ["NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A="],
                "trust_chain_verification": "ACCEPT_UNTRUSTED",
                "allow_expired_certificate": true,
                "only_verify_leaf_cert_crl": true,
                "max_verify_depth": 3
            },
            "tls_params": { "ecdh_curves": ["X25519:P-256"], "signature_algorithms": ["ed25519"] },
            "key_log": { "path": "/tmp/keys" }
        },
        "disable_stateless_session_resumption": true,
        "disable_stateful_session_resumption": true,
        "session_timeout": "60s",
        "full_scan_certs_on_sni_mismatch": true,
        "prefer_client_ciphers": true
    });
    let (context, warnings) = decode("DownstreamTlsContext", &value, tls::downstream);
    let context = context.unwrap();
    assert_eq!(warnings, 0);
    assert_eq!(context.session_tickets, SessionTickets::Disabled);
    assert_eq!(context.session_timeout, Some(Duration::from_mins(1)));
    assert!(!context.stateful_session_resumption && context.full_scan_certs_on_sni_mismatch);
    let Certificates::Given(given) = &context.common.certificates else {
        panic!("{:?}", context.common.certificates)
    };
    assert_eq!(given.len(), 1, "one that says nothing is passed over");
    assert_eq!(&*given[0].certificate_chain.path, "<inline>");
    assert!(format!("{given:?}").contains("private_key: [redacted]"));
    let Validation::Given(validation) = &context.common.validation else {
        panic!("{:?}", context.common.validation)
    };
    assert_eq!(validation.hash_pins[0][0], 0xdf);
    assert_eq!(validation.spki_pins.len(), 1);
    assert_eq!(validation.subject_alt_names.len(), 2);
    assert_eq!(
        validation.subject_alt_names[0].matcher.pattern,
        StringPattern::Exact("spiffe://a".into())
    );
    assert!(validation.accept_untrusted && validation.max_verify_depth == Some(3));
}

/// Some extension.
fn any() -> Json {
    json!({ "@type": format!("{PREFIX}envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer") })
}

#[test]
fn what_cannot_be_honoured() {
    let given = json!({ "tls_certificates": [{
        "certificate_chain": { "inline_string": "c" }, "private_key": { "inline_string": "k" }
    }] });
    let server = json!({ "common_tls_context": given });
    let in_common = |field: &str| format!("/common_tls_context/{field}");
    let validation = |value: Json| (in_common("validation_context"), value);
    let params = |value: Json| (in_common("tls_params"), value);
    let cases: Vec<((String, Json), &str, &str)> = vec![
        (
            (in_common("tls_certificates"), json!([])),
            "common_tls_context.tls_certificates",
            "No TLS certificates found for server context",
        ),
        (
            (
                in_common("tls_certificate_sds_secret_configs"),
                json!([sds("a")]),
            ),
            "common_tls_context.tls_certificates",
            "SDS and non-SDS TLS certificates may not be mixed in server contexts",
        ),
        (
            (in_common("tls_certificates/0/private_key"), Json::Null),
            "common_tls_context.tls_certificates[0].private_key",
            "Failed to load incomplete private key from path: ",
        ),
        (
            (
                in_common("tls_certificates/0/password"),
                json!({ "inline_string": "p" }),
            ),
            "common_tls_context.tls_certificates[0].password",
            "is not supported",
        ),
        (
            (
                in_common("custom_handshaker"),
                json!({ "name": "x", "typed_config": any() }),
            ),
            "common_tls_context.custom_handshaker",
            "is not supported",
        ),
        (
            (
                in_common("key_log"),
                json!({ "path": "p", "local_address_range": [{ "address_prefix": "10.0.0.0", "prefix_len": 8 }] }),
            ),
            "common_tls_context.key_log.local_address_range",
            "all connections or none",
        ),
        (
            validation(json!({ "match_typed_subject_alt_names": [
                { "san_type": "URI", "matcher": { "exact": "a" } }
            ] })),
            "common_tls_context.validation_context",
            "SAN-based verification of peer certificates without trusted CA is insecure and not allowed",
        ),
        (
            validation(json!({ "crl": { "inline_string": "x" } })),
            "common_tls_context.validation_context",
            "Failed to load CRL from <inline> without trusted CA",
        ),
        (
            validation(json!({ "verify_certificate_hash": ["00".repeat(31) + "zz"] })),
            "common_tls_context.validation_context.verify_certificate_hash",
            "Invalid hex-encoded SHA-256",
        ),
        (
            validation(
                json!({ "custom_validator_config": { "name": "spiffe", "typed_config": any() } }),
            ),
            "common_tls_context.validation_context.custom_validator_config",
            "is not supported",
        ),
        (
            params(json!({ "tls_minimum_protocol_version": "TLSv1_0" })),
            "common_tls_context.tls_params.tls_minimum_protocol_version",
            "TLSv1_0 is not supported",
        ),
        (
            params(json!({ "cipher_suites": ["AES128-SHA"] })),
            "common_tls_context.tls_params.cipher_suites",
            "AES128-SHA is not supported",
        ),
        (
            params(json!({ "cipher_suites": ["NO-SUCH"] })),
            "common_tls_context.tls_params.cipher_suites",
            "The following ciphers were rejected when tried individually: NO-SUCH",
        ),
        (
            params(json!({ "ecdh_curves": ["P-7"] })),
            "common_tls_context.tls_params.ecdh_curves",
            "Failed to initialize ECDH curves P-7",
        ),
        (
            ("/ocsp_staple_policy".to_owned(), json!("MUST_STAPLE")),
            "ocsp_staple_policy",
            "MUST_STAPLE is not supported",
        ),
        (
            ("/require_sni".to_owned(), json!(true)),
            "require_sni",
            "is not supported",
        ),
        (
            (
                "/session_ticket_keys".to_owned(),
                json!({ "keys": [{ "inline_string": "short" }] }),
            ),
            "session_ticket_keys.keys[0]",
            "Incorrect TLS session ticket key length. Length 5, expected length 80.",
        ),
    ];
    for ((pointer, value), path, reason) in cases {
        let changed = with(server.clone(), &[(&pointer, value)]);
        let fault = decode("DownstreamTlsContext", &changed, tls::downstream)
            .0
            .expect_err(path);
        assert_eq!(fault.path, path, "{}", fault.reason);
        assert!(fault.reason.contains(reason), "{path}: {}", fault.reason);
    }
    let renegotiates = json!({ "allow_renegotiation": true });
    let fault = decode("UpstreamTlsContext", &renegotiates, tls::upstream)
        .0
        .expect_err("renegotiation");
    assert_eq!(fault.path, "allow_renegotiation");
}

#[test]
fn secrets() {
    let decoder = Decoder::new();
    let name = format!("{TYPES}Secret");
    let bytes = encode(
        &name,
        &json!({ "name": "ROOTCA", "validation_context": { "trusted_ca": { "inline_bytes": "Y2E=" } } }),
    );
    let secret = decoder.secret(&bytes).unwrap();
    assert_eq!(&*secret.name, "ROOTCA");
    assert!(matches!(secret.value, SecretValue::ValidationContext(_)));
    let bytes = encode(&name, &json!({ "name": "none" }));
    let rejected = decoder.secret(&bytes).unwrap_err();
    assert_eq!((&*rejected.name, &*rejected.field_path), ("none", "type"));
}
