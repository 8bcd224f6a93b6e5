//! Own certificates: read from PEM, and chosen by what the peer can do with them.

use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SupportedCipherSuite};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tidegate_model::tls::TlsCertificate;

use crate::error::TlsError;
use crate::info::{CertificateDetails, CertificateInfo};
use crate::scratch;

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) info: Arc<CertificateInfo>,
    pub(crate) path: Arc<str>,
    is_ecdsa: bool,
    has_ocsp: bool,
    must_staple: bool,
}

impl Identity {
    pub(crate) fn of(
        certificate: &TlsCertificate,
        schemes: &[SignatureScheme],
    ) -> Result<Self, TlsError> {
        let source = &certificate.certificate_chain;
        let bad_chain = || {
            TlsError::configuration(format!(
                "Failed to load certificate chain from {}",
                source.path
            ))
        };
        let chain = certificates(&source.bytes).map_err(|_| bad_chain())?;
        let leaf = chain.first().ok_or_else(bad_chain)?;
        let info = CertificateInfo::of(leaf).map_err(|_| bad_chain())?;
        let key_source = &certificate.private_key.0;
        let bad_key = |cause: &str| {
            TlsError::configuration(format!(
                "Failed to load private key from {}, Cause: {cause}",
                key_source.path
            ))
        };
        let key = PrivateKeyDer::from_pem_slice(&key_source.bytes).map_err(|error| {
            bad_key(match error {
                pem::Error::NoItemsFound => {
                    "error:0900006e:PEM routines:OPENSSL_internal:NO_START_LINE"
                }
                _ => "error:09000066:PEM routines:OPENSSL_internal:BAD_BASE64_DECODE",
            })
        })?;
        let key = any_supported_type(&key).map_err(|error| bad_key(&error.to_string()))?;
        let is_ecdsa = key.algorithm() == SignatureAlgorithm::ECDSA;
        let key = crate::params::limited(key, schemes);
        let mut certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => {
                return Err(TlsError::configuration(format!(
                    "Failed to load private key from {}, Cause: error:0b000074:X.509 certificate \
                     routines:OPENSSL_internal:KEY_VALUES_MISMATCH",
                    key_source.path
                )));
            }
        }
        certified.ocsp = certificate
            .ocsp_staple
            .as_ref()
            .map(|staple| staple.bytes.to_vec());
        let leaf = certified.cert.first().ok_or_else(bad_chain)?;
        Ok(Self {
            is_ecdsa,
            has_ocsp: certified.ocsp.is_some(),
            must_staple: must_staple(leaf),
            info: Arc::new(info),
            path: Arc::clone(&source.path),
            certified: Arc::new(certified),
        })
    }

    pub(crate) fn details(&self) -> CertificateDetails {
        CertificateDetails {
            path: Arc::clone(&self.path),
            info: Arc::clone(&self.info),
        }
    }

    /// The names by which it is chosen: its DNS names, the common name where it has none.
    fn names(&self) -> Vec<String> {
        if !self.info.dns_sans.is_empty() {
            let lower = |name: &str| name.to_ascii_lowercase();
            return self.info.dns_sans.iter().map(|name| lower(name)).collect();
        }
        common_name(&self.info.subject).into_iter().collect()
    }
}

fn common_name(subject: &str) -> Option<String> {
    let name = subject.split(',').find_map(|part| part.strip_prefix("CN="));
    name.map(str::to_ascii_lowercase)
}

/// Whether the certificate has the TLS feature extension that demands a stapled OCSP response (RFC 7633).
fn must_staple(der: &[u8]) -> bool {
    use x509_parser::prelude::FromDer;
    let Ok((_, certificate)) = x509_parser::certificate::X509Certificate::from_der(der) else {
        return false;
    };
    certificate
        .extensions()
        .iter()
        .any(|extension| extension.oid.to_id_string() == "1.3.6.1.5.5.7.1.24")
}

/// All certificates of a PEM text, in order.
pub(crate) fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(bytes).collect()
}

/// A server's certificates, by Envoy's rules: those with the name that is asked for before those with a wildcard for
/// it, the first of all where none has it; among equals the one whose kind of key the client can verify, ECDSA first.
#[derive(Debug)]
pub(crate) struct ServerIdentities {
    pub(crate) identities: Vec<Arc<Identity>>,
    names: Vec<Vec<String>>,
    pub(crate) full_scan: bool,
}

impl ServerIdentities {
    pub(crate) fn new(identities: Vec<Arc<Identity>>, full_scan: bool) -> Self {
        let names = identities.iter().map(|identity| identity.names()).collect();
        Self {
            identities,
            names,
            full_scan,
        }
    }

    fn with_name<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Arc<Identity>> {
        let has = move |names: &Vec<String>| names.iter().any(|own| own == name);
        let pairs = self.identities.iter().zip(&self.names);
        pairs
            .filter(move |(_, names)| has(names))
            .map(|(identity, _)| identity)
    }

    fn choose(&self, name: Option<&str>, ecdsa: bool) -> Option<&Arc<Identity>> {
        if let [only] = self.identities.as_slice() {
            return Some(only);
        }
        let best = |candidates: &mut dyn Iterator<Item = &'_ Arc<Identity>>| -> Option<usize> {
            let mut fallback = None;
            for identity in candidates {
                let at = self
                    .identities
                    .iter()
                    .position(|known| Arc::ptr_eq(known, identity));
                if identity.is_ecdsa == ecdsa {
                    return at;
                }
                // An RSA certificate serves those who know ECDSA too.
                if !identity.is_ecdsa && fallback.is_none() {
                    fallback = at;
                }
            }
            fallback
        };
        let mut found = None;
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            found = best(&mut self.with_name(name));
            if found.is_none()
                && let Some((_, rest)) = name.split_once('.')
            {
                let wildcard = format!("*.{rest}");
                found = best(&mut self.with_name(&wildcard));
            }
            if found.is_none() && !self.full_scan {
                return self.identities.first();
            }
        }
        let found = found.or_else(|| best(&mut self.identities.iter()));
        found
            .and_then(|at| self.identities.get(at))
            .or_else(|| self.identities.first())
    }
}

impl ResolvesServerCert for ServerIdentities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let ecdsa = hello
            .signature_schemes()
            .iter()
            .any(|scheme| is_ecdsa(*scheme))
            && takes_ecdsa(hello.cipher_suites());
        let name = hello.server_name();
        let identity = self.choose(name, ecdsa)?;
        scratch::with(|scratch| {
            scratch.server_name = name.map(Into::into);
            scratch.local = Some(Arc::clone(identity));
        });
        if identity.must_staple && !identity.has_ocsp {
            scratch::with(|scratch| {
                scratch.failure = Some(crate::error::Reason::OcspCbError.error());
            });
            return None;
        }
        Some(Arc::clone(&identity.certified))
    }
}

const fn is_ecdsa(scheme: SignatureScheme) -> bool {
    matches!(
        scheme,
        SignatureScheme::ECDSA_NISTP256_SHA256
            | SignatureScheme::ECDSA_NISTP384_SHA384
            | SignatureScheme::ECDSA_NISTP521_SHA512
            | SignatureScheme::ECDSA_SHA1_Legacy
    )
}

/// Whether a suite is offered that an ECDSA certificate can be used with; all of TLS 1.3's can.
fn takes_ecdsa(offered: &[rustls::CipherSuite]) -> bool {
    rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES
        .iter()
        .filter(|suite| match suite {
            SupportedCipherSuite::Tls13(_) => true,
            SupportedCipherSuite::Tls12(suite) => suite.sign.iter().any(|scheme| is_ecdsa(*scheme)),
        })
        .any(|suite| offered.contains(&suite.suite()))
}

/// A client's certificate, shown to whoever asks, as BoringSSL does.
#[derive(Debug)]
pub(crate) struct ClientIdentity(pub(crate) Option<Arc<Identity>>);

impl ResolvesClientCert for ClientIdentity {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let identity = self.0.as_ref()?;
        identity.certified.key.choose_scheme(schemes)?;
        scratch::with(|scratch| scratch.local = Some(Arc::clone(identity)));
        Some(Arc::clone(&identity.certified))
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
