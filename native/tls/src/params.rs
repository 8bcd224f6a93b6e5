//! `TlsParameters` as rustls wants them: versions, cipher suites, groups, signature algorithms, and BoringSSL's names
//! for them.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, ALL_KX_GROUPS, default_provider};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::sign::{Signer, SigningKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CipherSuite, NamedGroup, ProtocolVersion, SignatureAlgorithm, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use tidegate_model::tls::{TlsParameters, TlsVersion};

use crate::error::TlsError;

/// Cipher suites of TLS 1.2 in Envoy's default order; those of TLS 1.3 cannot be configured, there or here.
const CIPHERS: &[(&str, CipherSuite)] = &[
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
];

const TLS13_CIPHERS: &[(&str, CipherSuite)] = &[
    (
        "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
];

const CURVES: &[(&str, NamedGroup)] = &[
    ("X25519", NamedGroup::X25519),
    ("P-256", NamedGroup::secp256r1),
    ("P-384", NamedGroup::secp384r1),
    ("P-521", NamedGroup::secp521r1),
    ("X25519MLKEM768", NamedGroup::X25519MLKEM768),
];

const SIGNATURES: &[(&str, SignatureScheme)] = &[
    (
        "ecdsa_secp256r1_sha256",
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ),
    ("rsa_pss_rsae_sha256", SignatureScheme::RSA_PSS_SHA256),
    ("rsa_pkcs1_sha256", SignatureScheme::RSA_PKCS1_SHA256),
    (
        "ecdsa_secp384r1_sha384",
        SignatureScheme::ECDSA_NISTP384_SHA384,
    ),
    ("rsa_pss_rsae_sha384", SignatureScheme::RSA_PSS_SHA384),
    ("rsa_pkcs1_sha384", SignatureScheme::RSA_PKCS1_SHA384),
    ("rsa_pss_rsae_sha512", SignatureScheme::RSA_PSS_SHA512),
    ("rsa_pkcs1_sha512", SignatureScheme::RSA_PKCS1_SHA512),
    (
        "ecdsa_secp521r1_sha512",
        SignatureScheme::ECDSA_NISTP521_SHA512,
    ),
    ("ed25519", SignatureScheme::ED25519),
];

/// Names that BoringSSL knows too.
const CURVE_ALIASES: &[(&str, &str)] = &[
    ("prime256v1", "P-256"),
    ("secp384r1", "P-384"),
    ("secp521r1", "P-521"),
    ("x25519", "X25519"),
];

fn curve(name: &str) -> Option<NamedGroup> {
    let alias = CURVE_ALIASES.iter().find(|(alias, _)| *alias == name);
    let name = alias.map_or(name, |(_, name)| name);
    let found = CURVES.iter().find(|(known, _)| *known == name);
    found.map(|(_, group)| *group)
}

pub(crate) fn cipher_name(suite: CipherSuite) -> &'static str {
    let mut all = CIPHERS.iter().chain(TLS13_CIPHERS);
    all.find(|(_, known)| *known == suite)
        .map_or("", |(name, _)| name)
}

pub(crate) fn curve_name(group: NamedGroup) -> &'static str {
    let found = CURVES.iter().find(|(_, known)| *known == group);
    found.map_or("", |(name, _)| name)
}

pub(crate) fn signature_name(scheme: SignatureScheme) -> &'static str {
    let found = SIGNATURES.iter().find(|(_, known)| *known == scheme);
    found.map_or("", |(name, _)| name)
}

pub(crate) const fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "TLSv1.2",
    }
}

/// The ciphers and groups of one context.
pub(crate) struct Parameters {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    /// Empty: all.
    pub(crate) signatures: Vec<SignatureScheme>,
}

impl Parameters {
    /// `default_max`: of the side that the context is for.
    pub(crate) fn new(params: &TlsParameters, default_max: TlsVersion) -> Result<Self, TlsError> {
        let min = params.min_version.unwrap_or(TlsVersion::V1_2);
        let max = params.max_version.unwrap_or(default_max.max(min));
        let mut versions = Vec::with_capacity(2);
        if max >= TlsVersion::V1_3 {
            versions.push(&TLS13);
        }
        if min <= TlsVersion::V1_2 {
            versions.push(&TLS12);
        }
        if versions.is_empty() {
            return Err(TlsError::configuration("no TLS version is left"));
        }
        let mut provider = default_provider();
        provider.cipher_suites = cipher_suites(params);
        provider.kx_groups = groups(params);
        let signatures = params
            .signature_algorithms
            .iter()
            .filter_map(|name| {
                let found = SIGNATURES.iter().find(|(known, _)| *known == &**name);
                found.map(|(_, scheme)| *scheme)
            })
            .collect();
        Ok(Self {
            provider: Arc::new(provider),
            versions,
            signatures,
        })
    }
}

impl Parameters {
    /// The same with ChaCha20-Poly1305 before AES-128-GCM.
    pub(crate) fn chacha_first(&self) -> Arc<CryptoProvider> {
        let mut provider = CryptoProvider::clone(&self.provider);
        let is_chacha = |suite: &SupportedCipherSuite| {
            matches!(
                suite.suite(),
                CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                    | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
            )
        };
        // Stable: within each half the order stays.
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.tls13().is_none() && !is_chacha(suite));
        Arc::new(provider)
    }
}

fn cipher_suites(params: &TlsParameters) -> Vec<SupportedCipherSuite> {
    let by_id = |id: CipherSuite| {
        let mut all = ALL_CIPHER_SUITES.iter();
        all.find(|suite| suite.suite() == id).copied()
    };
    let tls13 = TLS13_CIPHERS.iter().map(|(_, id)| *id);
    let tls12: Vec<CipherSuite> = if params.cipher_suites.is_empty() {
        CIPHERS.iter().map(|(_, id)| *id).collect()
    } else {
        let find = |name: &Arc<str>| CIPHERS.iter().find(|(known, _)| *known == &**name);
        let found = params.cipher_suites.iter().filter_map(find);
        found.map(|(_, id)| *id).collect()
    };
    tls13.chain(tls12).filter_map(by_id).collect()
}

fn groups(params: &TlsParameters) -> Vec<&'static dyn SupportedKxGroup> {
    // Envoy's default is X25519MLKEM768 only where it is asked for.
    let wanted: Vec<NamedGroup> = if params.ecdh_curves.is_empty() {
        vec![NamedGroup::X25519, NamedGroup::secp256r1]
    } else {
        let names = params.ecdh_curves.iter();
        names.filter_map(|name| curve(name)).collect()
    };
    let by_name = |name: NamedGroup| {
        let mut all = ALL_KX_GROUPS.iter();
        all.find(|group| group.name() == name).copied()
    };
    wanted.into_iter().filter_map(by_name).collect()
}

/// A key that signs with the given schemes only; with all that it can where none are given.
pub(crate) fn limited(
    key: Arc<dyn SigningKey>,
    schemes: &[SignatureScheme],
) -> Arc<dyn SigningKey> {
    if schemes.is_empty() {
        return key;
    }
    Arc::new(Limited {
        key,
        schemes: schemes.to_vec(),
    })
}

#[derive(Debug)]
struct Limited {
    key: Arc<dyn SigningKey>,
    schemes: Vec<SignatureScheme>,
}

impl SigningKey for Limited {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let both: Vec<_> = self
            .schemes
            .iter()
            .copied()
            .filter(|scheme| offered.contains(scheme))
            .collect();
        self.key.choose_scheme(&both)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.key.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}
