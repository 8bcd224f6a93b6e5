//! Certificates for tests.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, date_time_ymd,
};
use tidegate_model::tls::{Private, Source, TlsCertificate, TrustedCa, ValidationContext};

pub(super) struct Pki {
    ca: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// What a leaf is to be.
pub(super) struct Leaf {
    pub(super) name: &'static str,
    pub(super) sans: Vec<SanType>,
    pub(super) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(super) years: (i32, i32),
}

pub(super) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

pub(super) fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

pub(super) fn source(pem: &str) -> Source {
    Source {
        bytes: pem.as_bytes().into(),
        path: "<inline>".into(),
    }
}

impl Pki {
    pub(super) fn new() -> Self {
        Self::named("ca")
    }

    pub(super) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap();
        Self {
            ca,
            issuer: Issuer::new(params, key),
        }
    }

    pub(super) fn leaf(&self, leaf: &Leaf) -> Arc<TlsCertificate> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, leaf.name);
        params.subject_alt_names.clone_from(&leaf.sans);
        params.extended_key_usages.clone_from(&leaf.usages);
        params.not_before = date_time_ymd(leaf.years.0, 1, 1);
        params.not_after = date_time_ymd(leaf.years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Arc::new(TlsCertificate {
            certificate_chain: source(&certificate.pem()),
            private_key: Private(source(&key.serialize_pem())),
            ocsp_staple: None,
        })
    }

    pub(super) fn server(&self) -> Arc<TlsCertificate> {
        self.leaf(&Leaf {
            name: "server",
            sans: vec![dns("server.test")],
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
            years: (2020, 2090),
        })
    }

    pub(super) fn client(&self) -> Arc<TlsCertificate> {
        self.leaf(&Leaf {
            name: "client",
            sans: vec![uri("spiffe://cluster.local/ns/a/sa/b")],
            usages: vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            years: (2020, 2090),
        })
    }

    pub(super) fn trust(&self) -> ValidationContext {
        ValidationContext {
            trusted_ca: Some(TrustedCa::Source(source(&self.ca.pem()))),
            ..ValidationContext::default()
        }
    }
}
