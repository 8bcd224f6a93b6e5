//! What a peer must show, checked in Envoy's order: the chain, then names, then hashes.
//!
//! Chains are webpki's; on top of it comes what BoringSSL, as Envoy sets it up, does differently: any certificate of
//! `trusted_ca` ends a chain (`X509_V_FLAG_PARTIAL_CHAIN`), the leaf itself included, and has to be valid in time like
//! the others.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, ServerName, TrustAnchor, UnixTime,
};
use tidegate_model::tls::{TrustedCa, ValidationContext};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::chain;
use crate::error::{Failure, Reason, TlsError};
use crate::identity;
use crate::info::{CertificateDetails, CertificateInfo, PeerCertificate};
use crate::san::{SanMatcher, any_listed, dns_matches};
use crate::scratch;

/// A validation context, compiled.
#[derive(Debug)]
pub(crate) struct Verifier {
    side: Peer,
    anchors: Vec<TrustAnchor<'static>>,
    pub(crate) trusted: Vec<CertificateDer<'static>>,
    revoked: Vec<CertRevocationList<'static>>,
    only_leaf_crl: bool,
    allow_expired: bool,
    accept_untrusted: bool,
    max_depth: Option<u32>,
    sans: Vec<SanMatcher>,
    spki_pins: Vec<[u8; 32]>,
    hash_pins: Vec<[u8; 32]>,
    /// The server name that was asked for must be among the DNS names.
    sni_san: bool,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
    schemes: Vec<SignatureScheme>,
    path: Option<Arc<str>>,
    require: bool,
    /// Of a client, in TLS 1.2.
    enforce_rsa_key_usage: bool,
}

/// Who shows the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Client,
    Server,
}

impl Verifier {
    pub(crate) fn new(
        context: Option<&ValidationContext>,
        side: Peer,
        require: bool,
        sni_san: bool,
        algorithms: WebPkiSupportedAlgorithms,
        signatures: &[SignatureScheme],
    ) -> Result<Self, TlsError> {
        let supported = algorithms.supported_schemes();
        let schemes = if signatures.is_empty() {
            supported
        } else {
            let wanted = signatures.iter().copied();
            wanted.filter(|one| supported.contains(one)).collect()
        };
        let mut verifier = Self {
            side,
            anchors: Vec::new(),
            trusted: Vec::new(),
            revoked: Vec::new(),
            only_leaf_crl: false,
            allow_expired: false,
            accept_untrusted: false,
            max_depth: None,
            sans: Vec::new(),
            spki_pins: Vec::new(),
            hash_pins: Vec::new(),
            sni_san,
            hints: Vec::new(),
            algorithms,
            schemes,
            path: None,
            require,
            enforce_rsa_key_usage: true,
        };
        if let Some(context) = context {
            verifier.add(context)?;
        }
        if sni_san && verifier.anchors.is_empty() {
            return Err(TlsError::configuration(
                "'auto_sni_san_validation' was configured without configuring a trusted CA",
            ));
        }
        Ok(verifier)
    }

    /// `enforce_rsa_key_usage: false`.
    pub(crate) const fn tolerate_rsa_key_usage(mut self) -> Self {
        self.enforce_rsa_key_usage = false;
        self
    }

    fn add(&mut self, context: &ValidationContext) -> Result<(), TlsError> {
        self.only_leaf_crl = context.only_verify_leaf_cert_crl;
        self.allow_expired = context.allow_expired_certificate;
        self.accept_untrusted = context.accept_untrusted;
        self.max_depth = context.max_verify_depth;
        self.spki_pins.clone_from(&context.spki_pins);
        self.hash_pins.clone_from(&context.hash_pins);
        for matcher in &context.subject_alt_names {
            self.sans.push(SanMatcher::new(matcher)?);
        }
        if let Some(TrustedCa::Source(source)) = &context.trusted_ca {
            let bad = || {
                TlsError::configuration(format!(
                    "Failed to load trusted CA certificates from {}",
                    source.path
                ))
            };
            let trusted = identity::certificates(&source.bytes).map_err(|_| bad())?;
            for certificate in &trusted {
                let anchor = anchor_from_trusted_cert(certificate).map_err(|_| bad())?;
                let subject = DistinguishedName::in_sequence(&anchor.subject);
                let known = |hint: &DistinguishedName| hint.as_ref() == subject.as_ref();
                if self.side == Peer::Client && !self.hints.iter().any(known) {
                    self.hints.push(subject);
                }
                self.anchors.push(anchor.to_owned());
            }
            let first = trusted.first().ok_or_else(bad)?;
            CertificateInfo::of(first).map_err(|_| bad())?;
            self.path = Some(Arc::clone(&source.path));
            self.trusted = trusted;
            // A bundle may carry revocation lists too.
            self.add_crls(&source.bytes).map_err(|()| bad())?;
        }
        if let Some(source) = &context.crl {
            self.add_crls(&source.bytes).map_err(|()| {
                TlsError::configuration(format!("Failed to load CRL from {}", source.path))
            })?;
        }
        Ok(())
    }

    fn add_crls(&mut self, pem: &[u8]) -> Result<(), ()> {
        for crl in CertificateRevocationListDer::pem_slice_iter(pem) {
            let crl = crl.map_err(|_| ())?;
            let crl = OwnedCertRevocationList::from_der(&crl).map_err(|_| ())?;
            self.revoked.push(CertRevocationList::from(crl));
        }
        Ok(())
    }

    /// The trusted certificates, read again: they are asked for rarely, and may be many.
    pub(crate) fn details(&self) -> Vec<CertificateDetails> {
        let Some(path) = &self.path else {
            return Vec::new();
        };
        let infos = self.trusted.iter().map(|der| CertificateInfo::of(der));
        infos
            .filter_map(Result::ok)
            .map(|info| CertificateDetails {
                path: Arc::clone(path),
                info: Arc::new(info),
            })
            .collect()
    }

    fn has_pins(&self) -> bool {
        !self.sans.is_empty() || !self.spki_pins.is_empty() || !self.hash_pins.is_empty()
    }

    /// Whether a certificate is asked for, and looked at.
    pub(crate) fn is_active(&self) -> bool {
        !self.anchors.is_empty() || self.accept_untrusted || self.has_pins()
    }

    /// Whether a client without a certificate is turned away.
    fn is_mandatory(&self) -> bool {
        (self.has_pins() && !self.accept_untrusted) || (self.require && !self.anchors.is_empty())
    }

    /// Whether the chain is validated; an error with the alert that it has in rustls's terms.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: Option<&str>,
        now: UnixTime,
    ) -> Result<bool, (TlsError, CertificateError)> {
        let mut validated = false;
        if !self.anchors.is_empty() {
            match self.verify_chain(leaf, intermediates, now) {
                Ok(()) => validated = true,
                Err(_) if self.accept_untrusted => return Ok(false),
                Err(problem) => {
                    let details = format!(
                        "verify cert failed: X509_verify_cert: certificate verification error at depth {}: {}",
                        problem.depth, problem.text
                    );
                    let error = TlsError::verification(&details, Failure::VerifyError);
                    return Err((error, problem.alert));
                }
            }
        }
        match self.verify_leaf(leaf, name) {
            Ok(pinned) => {
                if pinned || validated || self.accept_untrusted {
                    Ok(pinned || validated)
                } else {
                    let error = TlsError::verification("", Failure::VerifyError);
                    Err((error, other()))
                }
            }
            Err(_) if self.accept_untrusted => Ok(false),
            Err(error) => Err((error, other())),
        }
    }

    /// Names and hashes; false where none are demanded.
    fn verify_leaf(&self, leaf: &CertificateDer<'_>, name: Option<&str>) -> Result<bool, TlsError> {
        let listed = scratch::with(|scratch| std::mem::take(&mut scratch.san_override));
        let demands_names = self.sni_san || !self.sans.is_empty() || !listed.is_empty();
        let mut pinned = false;
        if demands_names {
            let certificate = PeerCertificate::shared(std::slice::from_ref(leaf))?;
            let info = &certificate.info;
            let sans = || info.sans.join(", ");
            if !listed.is_empty() {
                if !any_listed(info, &listed) {
                    let details = format!(
                        "verify cert failed: verify SAN list, expected SANs: [{}], certificate SANs: [{}]",
                        listed.join(", "),
                        sans()
                    );
                    return Err(TlsError::verification(&details, Failure::VerifySan));
                }
                pinned = true;
            }
            let by_name = name.filter(|_| self.sni_san && listed.is_empty());
            let fits = match by_name {
                Some(name) => Some(info.dns_sans.iter().any(|san| dns_matches(name, san))),
                None if self.sans.is_empty() => None,
                None => Some(self.sans.iter().any(|matcher| matcher.matches(info))),
            };
            match fits {
                Some(true) => pinned = true,
                Some(false) => {
                    let details = format!(
                        "verify cert failed: SAN matcher, certificate SANs are [{}]",
                        sans()
                    );
                    return Err(TlsError::verification(&details, Failure::VerifySan));
                }
                None => {}
            }
        }
        if !self.spki_pins.is_empty() || !self.hash_pins.is_empty() {
            let has = |pins: &[[u8; 32]], bytes: &[u8]| {
                let found = digest(&SHA256, bytes);
                pins.iter().any(|pin| pin.as_slice() == found.as_ref())
            };
            let by_hash = !self.hash_pins.is_empty() && has(&self.hash_pins, leaf);
            let by_key = || {
                X509Certificate::from_der(leaf).is_ok_and(|(_, certificate)| {
                    has(&self.spki_pins, certificate.public_key().raw)
                })
            };
            if !by_hash && (self.spki_pins.is_empty() || !by_key()) {
                return Err(TlsError::verification(
                    "verify cert failed: cert hash and spki",
                    Failure::VerifyCertHash,
                ));
            }
            pinned = true;
        }
        Ok(pinned)
    }

    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), chain::Problem> {
        // A leaf that is trusted itself needs no issuer, but time and purpose count.
        if let Some(index) = self.trusted.iter().position(|trusted| trusted == leaf) {
            return chain::check_alone(&self.trusted, index, self.side, now, self.allow_expired);
        }
        let mut time = now;
        let mut attempts = 0;
        loop {
            let error = match self.verify_at(leaf, intermediates, time) {
                Ok(anchor) => {
                    let trusted = anchor.and_then(|anchor| self.trusted.get(anchor));
                    return match trusted.filter(|_| !self.allow_expired) {
                        Some(anchor) => chain::check_time(anchor, intermediates.len() + 1, now),
                        None => Ok(()),
                    };
                }
                Err(error) => error,
            };
            // Time does not count: look at the chain at a time when this certificate was valid.
            attempts += 1;
            let other = match &error {
                webpki::Error::CertExpired { not_after, .. } => Some(*not_after),
                webpki::Error::CertNotValidYet { not_before, .. } => Some(*not_before),
                _ => None,
            };
            match other {
                Some(other) if self.allow_expired && attempts < 8 => time = other,
                _ => {
                    return Err(chain::explain(
                        &error,
                        leaf,
                        intermediates,
                        &self.trusted,
                        now,
                    ));
                }
            }
        }
    }

    /// The index of the anchor that the chain ends in.
    fn verify_at(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Option<usize>, webpki::Error> {
        let certificate = EndEntityCert::try_from(leaf)?;
        let usage = match self.side {
            Peer::Client => KeyUsage::client_auth(),
            Peer::Server => KeyUsage::server_auth(),
        };
        let crls: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|options| {
            let depth = if self.only_leaf_crl {
                RevocationCheckDepth::EndEntity
            } else {
                RevocationCheckDepth::Chain
            };
            options
                .with_depth(depth)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let path = certificate.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            intermediates,
            now,
            usage,
            revocation,
            None,
        )?;
        let between = path.intermediate_certificates().count();
        if let Some(most) = self.max_depth
            && between > (most as usize).saturating_sub(1)
        {
            return Err(webpki::Error::MaximumPathDepthExceeded);
        }
        let anchor = path.anchor();
        Ok(self.anchors.iter().position(|known| known == anchor))
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: Option<&str>,
        now: UnixTime,
    ) -> Result<(), Error> {
        if !self.is_active() && !scratch::with(|scratch| !scratch.san_override.is_empty()) {
            return Ok(());
        }
        match self.verify(leaf, intermediates, name, now) {
            Ok(validated) => {
                scratch::with(|scratch| scratch.validated = Some(validated));
                Ok(())
            }
            Err((error, alert)) => {
                let chain = std::iter::once(leaf).chain(intermediates);
                let chain: Vec<_> = chain.cloned().collect();
                let peer = PeerCertificate::shared(&chain).ok();
                scratch::with(|scratch| {
                    scratch.failure = Some(error);
                    scratch.refused = peer;
                });
                Err(Error::InvalidCertificate(alert))
            }
        }
    }

    fn signed_12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        scratch::with(|scratch| scratch.signature = Some(signed.scheme));
        check_key_usage(certificate, self.enforce_rsa_key_usage)?;
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn signed_13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        scratch::with(|scratch| scratch.signature = Some(signed.scheme));
        check_key_usage(certificate, true)?;
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }
}

/// A leaf whose `keyUsage` forbids signatures must not have made one; RSA keys are let through in TLS 1.2 unless
/// `enforce_rsa`.
fn check_key_usage(leaf: &CertificateDer<'_>, enforce_rsa: bool) -> Result<(), Error> {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
        return Ok(());
    };
    let usage = certificate.key_usage().ok().flatten();
    if usage.is_none_or(|usage| usage.value.digital_signature()) {
        return Ok(());
    }
    let is_rsa = certificate
        .public_key()
        .parsed()
        .is_ok_and(|key| matches!(key, PublicKey::RSA(_)));
    if is_rsa && !enforce_rsa {
        return Ok(());
    }
    scratch::with(|scratch| scratch.failure = Some(Reason::KeyUsageBitIncorrect.error()));
    Err(Error::InvalidCertificate(other()))
}

/// `certificate_unknown`.
pub(crate) fn other() -> CertificateError {
    CertificateError::Other(OtherError(Arc::new(Refused)))
}

#[derive(Debug, thiserror::Error)]
#[error("the certificate is not what was demanded")]
struct Refused;

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = match name {
            ServerName::DnsName(name) => Some(name.as_ref()),
            _ => None,
        };
        self.check(leaf, intermediates, name, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed_12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed_13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.is_active()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(leaf, intermediates, None, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed_12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed_13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
