//! `extensions.transport_sockets.tls.v3`: TLS contexts, certificates, what a peer must show, and secrets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Name;
use crate::matcher::StringMatcher;

/// `transport_socket` of a filter chain.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum DownstreamTransport {
    #[default]
    RawBuffer,
    Tls(Arc<DownstreamTlsContext>),
}

/// `transport_socket` of a cluster or of one of its `transport_socket_matches`.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum UpstreamTransport {
    #[default]
    RawBuffer,
    Tls(Arc<UpstreamTlsContext>),
}

/// `Cluster.TransportSocketMatch`.
#[derive(Debug, Clone, PartialEq)]
pub struct TransportSocketMatch {
    pub name: Name,
    /// Sorted by key; each must be in an endpoint's `envoy.transport_socket_match` metadata with the same value.
    /// Values as compact JSON (`"istio"`, `1`, `true`).
    pub criteria: Vec<(Name, Name)>,
    pub transport: UpstreamTransport,
}

/// `DownstreamTlsContext`.
#[derive(Debug, Clone, PartialEq)]
pub struct DownstreamTlsContext {
    pub common: CommonTlsContext,
    pub require_client_certificate: bool,
    pub session_tickets: SessionTickets,
    /// TLS 1.2 session IDs; default on.
    pub stateful_session_resumption: bool,
    /// How long a session can be resumed; `None`: Envoy's default (2 hours up to TLS 1.2, 2 days).
    pub session_timeout: Option<Duration>,
    /// Look through all certificates when the server name is in none of them; default: take the first.
    pub full_scan_certs_on_sni_mismatch: bool,
    pub prefer_client_ciphers: bool,
}

/// Where the keys of session tickets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionTickets {
    /// Made by the process.
    Internal,
    Keys(SessionTicketKeys),
    Sds(SecretRef),
    /// `disable_stateless_session_resumption`.
    Disabled,
}

/// `UpstreamTlsContext`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTlsContext {
    pub common: CommonTlsContext,
    /// Empty: no server name is sent, unless `auto_host_sni`.
    pub sni: Name,
    /// The host's `hostname` is the server name.
    pub auto_host_sni: bool,
    /// The server name must be among the DNS names of the peer's certificate.
    pub auto_sni_san_validation: bool,
    /// Sessions kept for resumption; default 1, 0: none.
    pub max_session_keys: u32,
    pub enforce_rsa_key_usage: bool,
}

/// `CommonTlsContext`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CommonTlsContext {
    pub params: TlsParameters,
    pub certificates: Certificates,
    pub validation: Validation,
    pub alpn_protocols: Vec<Name>,
    pub key_log: Option<KeyLog>,
}

/// Own certificates: given, or by name from SDS.
#[derive(Debug, Clone, PartialEq)]
pub enum Certificates {
    Given(Vec<Arc<TlsCertificate>>),
    Sds(Vec<SecretRef>),
}

impl Default for Certificates {
    fn default() -> Self {
        Self::Given(Vec::new())
    }
}

/// What is demanded of the peer's certificate.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Validation {
    #[default]
    None,
    Given(Arc<ValidationContext>),
    Sds(SecretRef),
    /// `combined_validation_context`: SDS's context on top of the default one, field by field.
    Combined {
        default: Arc<ValidationContext>,
        secret: SecretRef,
    },
}

/// `SdsSecretConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretRef {
    pub name: Name,
    pub source: SecretConfigSource,
    /// `None`: for ever. Default 15 s.
    pub initial_fetch_timeout: Option<Duration>,
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretConfigSource {
    /// Without an `sds_config`: a secret of the bootstrap's `static_resources.secrets`.
    Static,
    Ads,
    /// `path_config_source.path`.
    Path(Name),
    /// `api_config_source` of a gRPC type: a stream of its own.
    Grpc(Arc<GrpcSource>),
}

/// `ApiConfigSource` with one `envoy_grpc` service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrpcSource {
    pub cluster_name: Name,
    /// Empty: the cluster's name.
    pub authority: Name,
    /// `DELTA_GRPC`.
    pub delta: bool,
    pub initial_metadata: Vec<(Name, Name)>,
}

/// The cipher suites of TLS 1.2 that are spoken, by the names of OpenSSL and of IANA, in Envoy's default order.
pub const CIPHER_SUITES: &[(&str, &str)] = &[
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    ),
];

/// The key exchange groups that are spoken, by all names that BoringSSL has for them.
pub const ECDH_CURVES: &[&str] = &[
    "X25519",
    "x25519",
    "P-256",
    "prime256v1",
    "P-384",
    "secp384r1",
    "X25519MLKEM768",
];

/// The signature algorithms that are spoken.
pub const SIGNATURE_ALGORITHMS: &[&str] = &[
    "ecdsa_secp256r1_sha256",
    "rsa_pss_rsae_sha256",
    "rsa_pkcs1_sha256",
    "ecdsa_secp384r1_sha384",
    "rsa_pss_rsae_sha384",
    "rsa_pkcs1_sha384",
    "rsa_pss_rsae_sha512",
    "rsa_pkcs1_sha512",
    "ecdsa_secp521r1_sha512",
    "ed25519",
];

/// `TlsParameters`; empty lists: the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsParameters {
    /// `None`: TLS 1.2.
    pub min_version: Option<TlsVersion>,
    /// `None`: the side's default, 1.3 for servers and 1.2 for clients.
    pub max_version: Option<TlsVersion>,
    /// Names as BoringSSL has them, groups of equal preference opened out.
    pub cipher_suites: Vec<Name>,
    pub ecdh_curves: Vec<Name>,
    pub signature_algorithms: Vec<Name>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// `TlsKeyLog`, of all connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLog {
    pub path: Name,
}

/// A `DataSource` that has been read, and where it was, as `/certs` and error texts say it.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    pub bytes: Arc<[u8]>,
    /// A file's path, or `<inline>`.
    pub path: Name,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.path, self.bytes.len())
    }
}

/// Bytes that are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Private(pub Source);

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// `TlsCertificate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsCertificate {
    /// PEM, the leaf first.
    pub certificate_chain: Source,
    /// PEM.
    pub private_key: Private,
    /// DER.
    pub ocsp_staple: Option<Source>,
}

/// `CertificateValidationContext`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ValidationContext {
    pub trusted_ca: Option<TrustedCa>,
    /// SHA-256 of the leaf's public key, one must match.
    pub spki_pins: Vec<[u8; 32]>,
    /// SHA-256 of the leaf, one must match.
    pub hash_pins: Vec<[u8; 32]>,
    /// One must match, where there are any.
    pub subject_alt_names: Vec<SubjectAltNameMatcher>,
    /// PEM.
    pub crl: Option<Source>,
    pub allow_expired_certificate: bool,
    /// Let through what the chain's verification refuses, and say so.
    pub accept_untrusted: bool,
    pub only_verify_leaf_cert_crl: bool,
    /// Certificates between the leaf and the root; `None`: BoringSSL's 100.
    pub max_verify_depth: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedCa {
    /// PEM.
    Source(Source),
}

/// `SubjectAltNameMatcher`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectAltNameMatcher {
    pub kind: SanType,
    pub matcher: StringMatcher,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SanType {
    Email,
    Dns,
    Uri,
    IpAddress,
    /// By its dotted OID.
    OtherName(Name),
}

/// `TlsSessionTicketKeys`: 80 bytes each; the first encrypts, all decrypt.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionTicketKeys(pub Vec<Arc<[u8]>>);

impl fmt::Debug for SessionTicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} keys, redacted]", self.0.len())
    }
}

/// `Secret`.
#[derive(Debug, Clone, PartialEq)]
pub struct Secret {
    pub name: Name,
    pub value: SecretValue,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SecretValue {
    TlsCertificate(Arc<TlsCertificate>),
    ValidationContext(Arc<ValidationContext>),
    SessionTicketKeys(SessionTicketKeys),
    Generic(Private),
}

impl UpstreamTransport {
    /// The secrets that it waits for.
    pub fn secrets(&self) -> Vec<SecretRef> {
        match self {
            Self::RawBuffer => Vec::new(),
            Self::Tls(context) => context.common.secrets(),
        }
    }
}

impl ValidationContext {
    /// What must not be demanded without a trusted CA.
    ///
    /// # Errors
    /// In Envoy's words.
    pub fn check(&self) -> Result<(), String> {
        if self.trusted_ca.is_some() {
            return Ok(());
        }
        if let Some(crl) = &self.crl {
            return Err(format!(
                "Failed to load CRL from {} without trusted CA",
                crl.path
            ));
        }
        if !self.subject_alt_names.is_empty() {
            return Err(
                "SAN-based verification of peer certificates without trusted CA is insecure and not allowed"
                    .to_owned(),
            );
        }
        if self.allow_expired_certificate {
            return Err(
                "Certificate validity period is always ignored without trusted CA".to_owned(),
            );
        }
        Ok(())
    }
}

impl CommonTlsContext {
    /// The secrets that it waits for, each once.
    pub fn secrets(&self) -> Vec<SecretRef> {
        let mut secrets: Vec<SecretRef> = Vec::new();
        let mut add = |secret: &SecretRef| {
            if !secrets.contains(secret) {
                secrets.push(secret.clone());
            }
        };
        if let Certificates::Sds(certificates) = &self.certificates {
            certificates.iter().for_each(&mut add);
        }
        match &self.validation {
            Validation::Sds(secret) | Validation::Combined { secret, .. } => add(secret),
            Validation::None | Validation::Given(_) => {}
        }
        secrets
    }
}

impl DownstreamTlsContext {
    /// The secrets that it waits for.
    pub fn secrets(&self) -> Vec<SecretRef> {
        let mut secrets = self.common.secrets();
        if let SessionTickets::Sds(secret) = &self.session_tickets {
            secrets.push(secret.clone());
        }
        secrets
    }
}
