//! `extensions.transport_sockets.tls.v3`: transport sockets, TLS contexts, certificates and secrets.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tidegate_model::Name;
use tidegate_model::matcher::StringMatcher;
use tidegate_model::tls::{
    CIPHER_SUITES, Certificates, CommonTlsContext, DownstreamTlsContext, DownstreamTransport,
    ECDH_CURVES, KeyLog, Private, SIGNATURE_ALGORITHMS, SanType, Secret, SecretValue,
    SessionTicketKeys, SessionTickets, Source, SubjectAltNameMatcher, TlsCertificate,
    TlsParameters, TlsVersion, TransportSocketMatch, TrustedCa, UpstreamTlsContext,
    UpstreamTransport, Validation, ValidationContext,
};

use crate::context::{Result, Warning};
use crate::fields::Fields;
use crate::message::{Encoded, Value};
use crate::secret_source::secret_ref;
use crate::{matcher, value};

const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
const DOWNSTREAM: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const UPSTREAM: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
/// The metadata namespace that [`TransportSocketMatch`] looks at.
pub(crate) const MATCH_METADATA: &str = "envoy.transport_socket_match";

/// `transport_socket` of a filter chain.
pub(crate) fn downstream_transport(fields: &Fields<'_>) -> Result<DownstreamTransport> {
    let socket = fields.opt("transport_socket", |socket| {
        socket.str("name");
        socket.need_any(
            "typed_config",
            &[
                (RAW_BUFFER, &|_: &Fields<'_>| {
                    Ok(DownstreamTransport::RawBuffer)
                }),
                (DOWNSTREAM, &|context: &Fields<'_>| {
                    let decoded = downstream(context)?;
                    Ok(DownstreamTransport::Tls(Arc::new(decoded)))
                }),
            ],
        )
    })?;
    Ok(socket.unwrap_or_default())
}

/// `transport_socket` of a cluster or a match.
pub(crate) fn upstream_transport(fields: &Fields<'_>) -> Result<UpstreamTransport> {
    let socket = fields.opt("transport_socket", |socket| {
        socket.str("name");
        socket.need_any(
            "typed_config",
            &[
                (RAW_BUFFER, &|_: &Fields<'_>| {
                    Ok(UpstreamTransport::RawBuffer)
                }),
                (UPSTREAM, &|context: &Fields<'_>| {
                    let decoded = upstream(context)?;
                    Ok(UpstreamTransport::Tls(Arc::new(decoded)))
                }),
            ],
        )
    })?;
    Ok(socket.unwrap_or_default())
}

/// `transport_socket_matches` of a cluster.
pub(crate) fn transport_socket_matches(fields: &Fields<'_>) -> Result<Vec<TransportSocketMatch>> {
    fields.each("transport_socket_matches", |entry| {
        let criteria = entry.get("match").and_then(Value::as_message);
        Ok(TransportSocketMatch {
            name: entry.string("name"),
            criteria: criteria.map(labels).unwrap_or_default(),
            transport: upstream_transport(entry)?,
        })
    })
}

/// A `Struct` as names and compact JSON, sorted by name.
pub(crate) fn labels(fields: &Encoded<'_>) -> Vec<(Name, Name)> {
    let serde_json::Value::Object(entries) = value::from_struct(fields) else {
        return Vec::new();
    };
    let mut labels: Vec<(Name, Name)> = entries
        .iter()
        .map(|(key, value)| (Name::from(key.as_str()), Name::from(value.to_string())))
        .collect();
    labels.sort();
    labels
}

pub(crate) fn downstream(fields: &Fields<'_>) -> Result<DownstreamTlsContext> {
    let common = fields.or_default("common_tls_context", |common| self::common(common, None))?;
    match &common.certificates {
        Certificates::Given(given) if given.is_empty() => {
            return Err(fields.fault(
                "common_tls_context.tls_certificates",
                "No TLS certificates found for server context",
            ));
        }
        _ => {}
    }
    // The others need to know when a response expires, which nothing here reads.
    fields.choice("ocsp_staple_policy", &[("LENIENT_STAPLING", ())])?;
    let keys = fields.opt("session_ticket_keys", session_ticket_keys)?;
    let sds = fields.opt("session_ticket_keys_sds_secret_config", secret_ref)?;
    let disabled = fields.bool("disable_stateless_session_resumption");
    let session_tickets = match (keys, sds, disabled) {
        (Some(keys), _, _) => SessionTickets::Keys(keys),
        (_, Some(secret), _) => SessionTickets::Sds(secret),
        (_, _, true) => SessionTickets::Disabled,
        _ => SessionTickets::Internal,
    };
    Ok(DownstreamTlsContext {
        common,
        require_client_certificate: fields.bool("require_client_certificate"),
        session_tickets,
        stateful_session_resumption: !fields.bool("disable_stateful_session_resumption"),
        session_timeout: fields.duration("session_timeout")?,
        full_scan_certs_on_sni_mismatch: fields.bool("full_scan_certs_on_sni_mismatch"),
        prefer_client_ciphers: fields.bool("prefer_client_ciphers"),
    })
}

pub(crate) fn upstream(fields: &Fields<'_>) -> Result<UpstreamTlsContext> {
    if fields.bool("allow_renegotiation") {
        return Err(fields.fault("allow_renegotiation", "renegotiation is not supported"));
    }
    let sni = fields.string("sni");
    if sni.contains('\0') {
        return Err(fields.fault("sni", "SNI names containing NULL-byte are not allowed"));
    }
    let common = fields.or_default("common_tls_context", |common| {
        self::common(common, Some(Side::Client))
    })?;
    Ok(UpstreamTlsContext {
        common,
        sni,
        auto_host_sni: fields.bool("auto_host_sni"),
        auto_sni_san_validation: fields.bool("auto_sni_san_validation"),
        max_session_keys: fields.opt_u32("max_session_keys").unwrap_or(1),
        enforce_rsa_key_usage: fields.opt_bool("enforce_rsa_key_usage").unwrap_or(true),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
}

fn common(fields: &Fields<'_>, side: Option<Side>) -> Result<CommonTlsContext> {
    let given = fields.each("tls_certificates", |certificate| {
        let empty = ["certificate_chain", "private_key"]
            .iter()
            .all(|name| !certificate.has(name));
        // Envoy skips those that say nothing.
        (!empty).then(|| tls_certificate(certificate)).transpose()
    })?;
    let given: Vec<_> = given.into_iter().flatten().map(Arc::new).collect();
    let sds = fields.each("tls_certificate_sds_secret_configs", secret_ref)?;
    if side.is_none() && !given.is_empty() && !sds.is_empty() {
        return Err(fields.fault(
            "tls_certificates",
            "SDS and non-SDS TLS certificates may not be mixed in server contexts",
        ));
    }
    if side.is_some() && given.len() + sds.len() > 1 {
        return Err(fields.fault(
            "tls_certificates",
            "Multiple TLS certificates are not supported for client contexts",
        ));
    }
    let given_context = fields.opt("validation_context", |context| {
        let validation = validation_context(context)?;
        validation
            .check()
            .map_err(|reason| context.here(reason))
            .map(|()| Validation::Given(Arc::new(validation)))
    })?;
    let sds_context = fields.opt("validation_context_sds_secret_config", |secret| {
        secret_ref(secret).map(Validation::Sds)
    })?;
    let combined = fields.opt("combined_validation_context", |combined| {
        Ok(Validation::Combined {
            default: Arc::new(combined.need("default_validation_context", validation_context)?),
            secret: combined.need("validation_context_sds_secret_config", secret_ref)?,
        })
    })?;
    let alpn_protocols = fields.strings("alpn_protocols");
    if alpn_protocols
        .iter()
        .any(|name| name.is_empty() || name.len() > 255)
    {
        return Err(fields.fault("alpn_protocols", "Invalid ALPN protocol string"));
    }
    Ok(CommonTlsContext {
        params: fields.or_default("tls_params", parameters)?,
        certificates: if sds.is_empty() {
            Certificates::Given(given)
        } else {
            Certificates::Sds(sds)
        },
        validation: given_context
            .or(sds_context)
            .or(combined)
            .unwrap_or_default(),
        alpn_protocols,
        key_log: fields.opt("key_log", key_log)?,
    })
}

fn key_log(fields: &Fields<'_>) -> Result<KeyLog> {
    for name in ["local_address_range", "remote_address_range"] {
        fields.refuse(name, "keys are logged for all connections or none")?;
    }
    Ok(KeyLog {
        path: fields.string("path"),
    })
}

fn parameters(fields: &Fields<'_>) -> Result<TlsParameters> {
    let version = |name: &str| {
        fields.choice(
            name,
            &[
                ("TLS_AUTO", None),
                ("TLSv1_2", Some(TlsVersion::V1_2)),
                ("TLSv1_3", Some(TlsVersion::V1_3)),
            ],
        )
    };
    let min_version = version("tls_minimum_protocol_version")?;
    let max_version = version("tls_maximum_protocol_version")?;
    if min_version > max_version && max_version.is_some() {
        return Err(fields.fault(
            "tls_minimum_protocol_version",
            "the minimum is above the maximum",
        ));
    }
    let only_tls13 = min_version == Some(TlsVersion::V1_3);
    Ok(TlsParameters {
        min_version,
        max_version,
        cipher_suites: cipher_suites(fields, only_tls13)?,
        ecdh_curves: named(fields, "ecdh_curves", ECDH_CURVES, "ECDH curves")?,
        signature_algorithms: named(
            fields,
            "signature_algorithms",
            SIGNATURE_ALGORITHMS,
            "TLS signature algorithms",
        )?,
    })
}

/// Names that BoringSSL knows and that nothing here speaks: of old ways of exchanging keys or protecting records.
const OTHER_CIPHERS: &[&str] = &[
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "AES128-SHA256",
    "DES-CBC3-SHA",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-PSK-AES256-CBC-SHA",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "PSK-AES128-CBC-SHA",
    "PSK-AES256-CBC-SHA",
];

/// Those that are spoken, in order; others that BoringSSL knows are left out with a warning as long as one remains.
fn cipher_suites(fields: &Fields<'_>, only_tls13: bool) -> Result<Vec<Name>> {
    const FIELD: &str = "cipher_suites";
    let configured = fields.strings(FIELD);
    let mut spoken = Vec::new();
    let mut left_out = Vec::new();
    for entry in &configured {
        // An entry may be a list, and a group of equal preference.
        for name in entry.split([':', '[', ']', '|', ',', ' ']) {
            if name.is_empty() {
                continue;
            }
            if let Some(known) = CIPHER_SUITES
                .iter()
                .find(|known| known.0 == name || known.1 == name)
            {
                spoken.push(Name::from(known.0));
            } else if OTHER_CIPHERS.contains(&name) {
                left_out.push(name);
            } else {
                return Err(fields.fault(
                    FIELD,
                    format!(
                        "Failed to initialize cipher suites {}. The following ciphers were rejected when tried \
                         individually: {name}",
                        configured.join(":")
                    ),
                ));
            }
        }
    }
    // TLS 1.3 has its own suites, which cannot be configured.
    if !left_out.is_empty() && spoken.is_empty() && !only_tls13 {
        return Err(fields.fault(
            FIELD,
            format!(
                "{} is not supported: only ECDHE with AES-GCM or ChaCha20-Poly1305 is",
                left_out.join(", ")
            ),
        ));
    }
    if !left_out.is_empty() {
        fields.context.warn(Warning {
            resource: String::new(),
            message: "envoy.extensions.transport_sockets.tls.v3.TlsParameters".to_owned(),
            field_path: format!("{}.{FIELD}", fields.path()),
            reason: "suites without ECDHE or without AEAD are not offered",
        });
    }
    Ok(spoken)
}

fn named(fields: &Fields<'_>, field: &str, known: &[&str], what: &str) -> Result<Vec<Name>> {
    let configured = fields.strings(field);
    let mut names = Vec::with_capacity(configured.len());
    for entry in &configured {
        for name in entry.split(':') {
            if !known.contains(&name) {
                return Err(fields.fault(
                    field,
                    format!("Failed to initialize {what} {}", configured.join(":")),
                ));
            }
            names.push(Name::from(name));
        }
    }
    Ok(names)
}

/// A `DataSource` with the place it came from; `None` when it is not set or empty.
fn source(fields: &Fields<'_>, name: &str) -> Result<Option<Source>> {
    let source = fields.opt(name, |source| {
        let path = match source.str("filename") {
            "" => Name::from("<inline>"),
            path => Name::from(path),
        };
        source.ignore(&["watched_directory"], "SDS watches its files");
        Ok(Source {
            bytes: matcher::data_source(source)?.bytes,
            path,
        })
    })?;
    Ok(source.filter(|source| !source.bytes.is_empty()))
}

fn tls_certificate(fields: &Fields<'_>) -> Result<TlsCertificate> {
    // Files are watched where SDS delivers them; see the engine.
    fields.opt("watched_directory", |directory| {
        directory.str("path");
        Ok(())
    })?;
    let chain = source(fields, "certificate_chain")?;
    let key = source(fields, "private_key")?;
    let Some(certificate_chain) = chain else {
        return Err(fields.fault(
            "certificate_chain",
            "Failed to load incomplete certificate from : certificate chain not set",
        ));
    };
    let Some(private_key) = key else {
        return Err(fields.fault(
            "private_key",
            "Failed to load incomplete private key from path: ",
        ));
    };
    Ok(TlsCertificate {
        certificate_chain,
        private_key: Private(private_key),
        ocsp_staple: source(fields, "ocsp_staple")?,
    })
}

fn validation_context(fields: &Fields<'_>) -> Result<ValidationContext> {
    fields.opt("watched_directory", |directory| {
        directory.str("path");
        Ok(())
    })?;
    let mut subject_alt_names = fields.each("match_typed_subject_alt_names", typed_san)?;
    let legacy = fields.each("match_subject_alt_names", matcher::string)?;
    if subject_alt_names.is_empty() {
        subject_alt_names = legacy.into_iter().flat_map(any_san).collect();
    }
    let hash_pins = fields
        .strings("verify_certificate_hash")
        .iter()
        .map(|text| {
            let wrong = || {
                fields.fault(
                    "verify_certificate_hash",
                    format!("Invalid hex-encoded SHA-256 {text}"),
                )
            };
            hex(&text.replace(':', "")).ok_or_else(wrong)
        })
        .collect::<Result<_>>()?;
    let spki_pins = fields
        .strings("verify_certificate_spki")
        .iter()
        .map(|text| {
            let wrong = || {
                fields.fault(
                    "verify_certificate_spki",
                    format!("Invalid base64-encoded SHA-256 {text}"),
                )
            };
            let bytes = BASE64.decode(text.as_bytes()).map_err(|_| wrong())?;
            <[u8; 32]>::try_from(bytes).map_err(|_| wrong())
        })
        .collect::<Result<_>>()?;
    Ok(ValidationContext {
        trusted_ca: source(fields, "trusted_ca")?.map(TrustedCa::Source),
        spki_pins,
        hash_pins,
        subject_alt_names,
        crl: source(fields, "crl")?,
        allow_expired_certificate: fields.bool("allow_expired_certificate"),
        accept_untrusted: fields.choice(
            "trust_chain_verification",
            &[("VERIFY_TRUST_CHAIN", false), ("ACCEPT_UNTRUSTED", true)],
        )?,
        only_verify_leaf_cert_crl: fields.bool("only_verify_leaf_cert_crl"),
        max_verify_depth: fields.opt_u32("max_verify_depth"),
    })
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn typed_san(fields: &Fields<'_>) -> Result<SubjectAltNameMatcher> {
    let kind = match &*fields.enum_name("san_type") {
        "EMAIL" => SanType::Email,
        "DNS" => SanType::Dns,
        "URI" => SanType::Uri,
        "IP_ADDRESS" => SanType::IpAddress,
        "OTHER_NAME" => match fields.opt_string("oid") {
            Some(oid) => SanType::OtherName(oid),
            None => return Err(fields.fault("oid", "OTHER_NAME san type requires oid")),
        },
        other => return Err(fields.fault("san_type", format!("{other} is not supported"))),
    };
    Ok(SubjectAltNameMatcher {
        kind,
        matcher: fields.need("matcher", matcher::string)?,
    })
}

/// A matcher of old is one for each of these kinds, in Envoy's order.
fn any_san(matcher: StringMatcher) -> impl Iterator<Item = SubjectAltNameMatcher> {
    [
        SanType::Dns,
        SanType::Uri,
        SanType::Email,
        SanType::IpAddress,
    ]
    .into_iter()
    .map(move |kind| SubjectAltNameMatcher {
        kind,
        matcher: matcher.clone(),
    })
}

fn session_ticket_keys(fields: &Fields<'_>) -> Result<SessionTicketKeys> {
    let keys = fields.each("keys", |key| {
        let key_bytes = matcher::data_source(key)?.bytes;
        if key_bytes.len() == 80 {
            Ok(key_bytes)
        } else {
            Err(key.here(format!(
                "Incorrect TLS session ticket key length. Length {}, expected length 80.",
                key_bytes.len()
            )))
        }
    })?;
    Ok(SessionTicketKeys(keys))
}

/// `Secret`.
pub(crate) fn secret(fields: &Fields<'_>) -> Result<Secret> {
    let certificate = fields.opt("tls_certificate", |certificate| {
        tls_certificate(certificate).map(|found| SecretValue::TlsCertificate(Arc::new(found)))
    })?;
    let context = fields.opt("validation_context", |context| {
        validation_context(context).map(|found| SecretValue::ValidationContext(Arc::new(found)))
    })?;
    let keys = fields.opt("session_ticket_keys", |keys| {
        session_ticket_keys(keys).map(SecretValue::SessionTicketKeys)
    })?;
    let generic = fields.opt("generic_secret", |generic| {
        generic.refuse("secrets", "only one secret is supported")?;
        let found = source(generic, "secret")?.ok_or_else(|| generic.here("value is required"))?;
        Ok(SecretValue::Generic(Private(found)))
    })?;
    let value = certificate.or(context).or(keys).or(generic);
    Ok(Secret {
        name: fields.string("name"),
        value: value.ok_or_else(|| fields.fault("type", "value is required"))?,
    })
}
