//! What is wrong with a chain, as BoringSSL would say it: at which depth, in which words, with which alert.

use rustls::CertificateError;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::verify::{Peer, other};

/// Why a chain is refused.
#[derive(Debug)]
pub(crate) struct Problem {
    /// From the leaf, which is 0.
    pub(crate) depth: usize,
    /// `X509_verify_cert_error_string`.
    pub(crate) text: &'static str,
    /// The one whose alert in rustls is BoringSSL's.
    pub(crate) alert: CertificateError,
}

const EXPIRED: &str = "certificate has expired";
const NOT_YET: &str = "certificate is not yet valid";
const PURPOSE: &str = "unsupported certificate purpose";

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der)
        .ok()
        .map(|(_, certificate)| certificate)
}

/// Whether a certificate's time is now.
pub(crate) fn check_time(
    der: &CertificateDer<'_>,
    depth: usize,
    now: UnixTime,
) -> Result<(), Problem> {
    let Some(certificate) = parse(der) else {
        return Ok(());
    };
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    let text = if now < validity.not_before.timestamp() {
        NOT_YET
    } else if now > validity.not_after.timestamp() {
        EXPIRED
    } else {
        return Ok(());
    };
    Err(Problem {
        depth,
        text,
        alert: CertificateError::Expired,
    })
}

/// A leaf that is trusted itself, the one at `index` of the trusted ones.
pub(crate) fn check_alone(
    trusted: &[CertificateDer<'_>],
    index: usize,
    side: Peer,
    now: UnixTime,
    allow_expired: bool,
) -> Result<(), Problem> {
    let Some(der) = trusted.get(index) else {
        return Ok(());
    };
    if !allow_expired {
        check_time(der, 0, now)?;
    }
    let fits = parse(der).is_some_and(|certificate| {
        let usage = certificate.extended_key_usage().ok().flatten();
        usage.is_none_or(|usage| match side {
            Peer::Client => usage.value.client_auth,
            Peer::Server => usage.value.server_auth,
        })
    });
    if fits {
        Ok(())
    } else {
        Err(Problem {
            depth: 0,
            text: PURPOSE,
            alert: CertificateError::InvalidPurpose,
        })
    }
}

/// webpki's error as BoringSSL would have come to it.
pub(crate) fn explain(
    error: &webpki::Error,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trusted: &[CertificateDer<'_>],
    now: UnixTime,
) -> Problem {
    use webpki::Error;
    let problem = |depth, text, alert| Problem { depth, text, alert };
    let with_time = |expired: bool| {
        let at = std::iter::once(leaf).chain(intermediates).position(|der| {
            match check_time(der, 0, now) {
                Ok(()) => false,
                Err(problem) => (problem.text == EXPIRED) == expired,
            }
        });
        at.unwrap_or_default()
    };
    match error {
        Error::CertExpired { .. } => problem(with_time(true), EXPIRED, CertificateError::Expired),
        Error::CertNotValidYet { .. } => {
            problem(with_time(false), NOT_YET, CertificateError::NotValidYet)
        }
        Error::CertRevoked => problem(0, "certificate revoked", CertificateError::Revoked),
        Error::CrlExpired { .. } => problem(0, "CRL has expired", CertificateError::UnknownIssuer),
        Error::UnknownRevocationStatus => problem(
            0,
            "unable to get certificate CRL",
            CertificateError::UnknownIssuer,
        ),
        Error::RequiredEkuNotFoundContext(_) => {
            problem(0, PURPOSE, CertificateError::InvalidPurpose)
        }
        Error::NameConstraintViolation => problem(
            0,
            "permitted subtree violation",
            CertificateError::BadEncoding,
        ),
        Error::MaximumPathDepthExceeded | Error::PathLenConstraintViolated => problem(
            intermediates.len(),
            "certificate chain too long",
            CertificateError::UnknownIssuer,
        ),
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => {
            unknown_issuer(leaf, intermediates, trusted)
        }
        Error::EndEntityUsedAsCa => {
            problem(1, "invalid CA certificate", CertificateError::UnknownIssuer)
        }
        _ => problem(0, "unspecified certificate verification error", other()),
    }
}

/// Follows the chain as far as names lead.
fn unknown_issuer(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trusted: &[CertificateDer<'_>],
) -> Problem {
    let pool: Vec<_> = intermediates.iter().filter_map(parse).collect();
    let anchors: Vec<_> = trusted.iter().filter_map(parse).collect();
    let leaf = parse(leaf);
    let mut depth = 0;
    let mut last = leaf.as_ref();
    let mut text = "unable to get local issuer certificate";
    while let Some(certificate) = last {
        let self_signed = certificate.subject().as_raw() == certificate.issuer().as_raw();
        if self_signed {
            text = if depth == 0 {
                "self signed certificate"
            } else {
                "self signed certificate in certificate chain"
            };
            break;
        }
        let issued = |other: &&X509Certificate<'_>| {
            other.subject().as_raw() == certificate.issuer().as_raw()
                && key_ids_fit(certificate, other)
        };
        if anchors.iter().any(|anchor| issued(&anchor)) {
            return Problem {
                depth,
                text: "certificate signature failure",
                alert: CertificateError::BadSignature,
            };
        }
        let Some(next) = pool.iter().find(issued) else {
            break;
        };
        if depth >= pool.len() {
            break;
        }
        depth += 1;
        last = Some(next);
    }
    Problem {
        depth,
        text,
        alert: CertificateError::UnknownIssuer,
    }
}

/// Whether the key that a certificate says it was signed with can be another's; where one says nothing, it can.
fn key_ids_fit(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    use x509_parser::extensions::ParsedExtension;
    let wanted =
        certificate
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref(),
                _ => None,
            });
    let own = issuer
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id),
            _ => None,
        });
    match (wanted, own) {
        (Some(wanted), Some(own)) => wanted.0 == own.0,
        _ => true,
    }
}
