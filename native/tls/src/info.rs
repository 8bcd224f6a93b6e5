//! What is known of an established connection and of a certificate, in the forms that logs, headers and `/certs` print.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::digest;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use crate::error::TlsError;

/// An established connection.
#[derive(Debug)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`, as `%DOWNSTREAM_TLS_VERSION%` prints it and the counter `ssl.versions.` names it.
    pub version: &'static str,
    /// BoringSSL's name (`ECDHE-ECDSA-AES128-GCM-SHA256`, `TLS_AES_128_GCM_SHA256`).
    pub cipher: &'static str,
    /// BoringSSL's name of the key exchange group (`X25519`, `P-256`), empty for a TLS 1.2 session that was resumed.
    pub curve: &'static str,
    /// The peer's signature algorithm (`ecdsa_secp256r1_sha256`), empty where it made no signature.
    pub signature_algorithm: &'static str,
    /// The protocol agreed on by ALPN; empty: none.
    pub alpn: Box<[u8]>,
    /// The server name that the client asked for, lower case; empty: none.
    pub sni: Box<str>,
    pub resumed: bool,
    /// The certificate that was shown to the peer, if any.
    pub local: Option<Arc<CertificateInfo>>,
    pub peer: Option<Rc<PeerCertificate>>,
    /// Whether the peer's certificate satisfied all that was demanded, and something was demanded.
    pub validated: bool,
}

/// The peer's certificate and what it came with. Shared by the connections of a thread that show the same.
#[derive(Debug)]
pub struct PeerCertificate {
    pub info: CertificateInfo,
    /// As sent, the leaf first.
    pub chain: Vec<CertificateDer<'static>>,
}

impl std::ops::Deref for PeerCertificate {
    type Target = CertificateInfo;

    fn deref(&self) -> &CertificateInfo {
        &self.info
    }
}

/// A certificate, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    pub uri_sans: Vec<Box<str>>,
    pub dns_sans: Vec<Box<str>>,
    pub ip_sans: Vec<IpAddr>,
    pub email_sans: Vec<Box<str>>,
    /// Dotted OID and the value as text, for those whose value is a string.
    pub other_sans: Vec<(Box<str>, Box<str>)>,
    /// RFC 2253: `CN=a,OU=b,O=c`; may be empty.
    pub subject: Box<str>,
    pub issuer: Box<str>,
    /// Lower case hexadecimal.
    pub serial: Box<str>,
    /// Lower case hexadecimal.
    pub sha256: Box<str>,
    /// Lower case hexadecimal.
    pub sha1: Box<str>,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    /// All names in the certificate's order, as Envoy lists them when none of them matches.
    pub sans: Vec<Box<str>>,
    /// Whether it has a subjectAltName extension at all.
    pub has_sans: bool,
}

/// What Envoy leaves as it is in `x-forwarded-client-cert`: the unreserved characters of RFC 3986.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

impl PeerCertificate {
    /// Of a chain as sent; the same again if a connection of this thread has it.
    pub(crate) fn shared(chain: &[CertificateDer<'_>]) -> Result<Rc<Self>, TlsError> {
        const MOST: usize = 64;
        thread_local! {
            static KNOWN: RefCell<Vec<Rc<PeerCertificate>>> = const { RefCell::new(Vec::new()) };
        }
        KNOWN.with_borrow_mut(|known| {
            if let Some(found) = known.iter().position(|known| known.chain == chain) {
                // The last one asked for goes to the front, where it is found at once.
                if let Some(before) = known.get_mut(..=found) {
                    before.rotate_right(1);
                }
            } else {
                let leaf = chain
                    .first()
                    .ok_or_else(|| TlsError::internal("no certificate"))?;
                let certificate = Self {
                    info: CertificateInfo::of(leaf)?,
                    chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
                };
                known.truncate(MOST - 1);
                known.insert(0, Rc::new(certificate));
            }
            let first = known.first().cloned();
            first.ok_or_else(|| TlsError::internal("no certificate"))
        })
    }

    /// The leaf as PEM, percent-encoded as in the `Cert` field of `x-forwarded-client-cert`.
    pub fn pem_urlencoded(&self) -> String {
        self.chain.first().map(url_pem).unwrap_or_default()
    }

    /// All that was sent as PEM, percent-encoded as in the `Chain` field.
    pub fn pem_chain_urlencoded(&self) -> String {
        self.chain.iter().map(url_pem).collect()
    }
}

fn url_pem(der: &CertificateDer<'_>) -> String {
    utf8_percent_encode(&pem(der), UNRESERVED).to_string()
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::with_capacity(text.len() + text.len() / 64 + 64);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at_checked(64).unwrap_or((rest, ""));
        pem.push_str(line);
        pem.push('\n');
        rest = behind;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

impl CertificateInfo {
    /// Reads a DER certificate.
    pub(crate) fn of(der: &[u8]) -> Result<Self, TlsError> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|_| TlsError::internal("certificate that cannot be read"))?;
        let mut info = Self {
            uri_sans: Vec::new(),
            dns_sans: Vec::new(),
            ip_sans: Vec::new(),
            email_sans: Vec::new(),
            other_sans: Vec::new(),
            subject: rfc2253(certificate.subject()),
            issuer: rfc2253(certificate.issuer()),
            serial: serial(certificate.raw_serial()),
            sha256: hex(digest::digest(&digest::SHA256, der).as_ref()),
            sha1: hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der).as_ref()),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            sans: Vec::new(),
            has_sans: false,
        };
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            info.has_sans = true;
            for name in &names.value.general_names {
                info.add(name);
            }
        }
        Ok(info)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        let text = match name {
            GeneralName::URI(text) => {
                self.uri_sans.push((*text).into());
                (*text).into()
            }
            GeneralName::DNSName(text) => {
                self.dns_sans.push((*text).into());
                (*text).into()
            }
            GeneralName::RFC822Name(text) => {
                self.email_sans.push((*text).into());
                (*text).into()
            }
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let Ok(ip) = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)) else {
                    return;
                };
                self.ip_sans.push(ip);
                ip.to_string().into()
            }
            GeneralName::OtherName(oid, value) => {
                let Some(text) = string_value(value) else {
                    return;
                };
                let name = oid.to_id_string().into();
                self.other_sans.push((name, text.as_str().into()));
                text.into()
            }
            _ => return,
        };
        self.sans.push(text);
    }
}

/// The text of an `otherName`: `[0] EXPLICIT` around a string.
fn string_value(value: &[u8]) -> Option<String> {
    let inside = |bytes: &'_ [u8]| -> Option<(u8, Vec<u8>)> {
        let (_, any) = x509_parser::asn1_rs::Any::from_der(bytes).ok()?;
        Some((any.tag().0 as u8, any.data.to_vec()))
    };
    let (tag, mut content) = inside(value)?;
    let mut kind = tag;
    if tag == 0 {
        (kind, content) = inside(&content)?;
    }
    // UTF8String, PrintableString, IA5String, VisibleString.
    matches!(kind, 12 | 19 | 22 | 26).then(|| String::from_utf8(content).ok())?
}

pub(crate) fn hex(bytes: &[u8]) -> Box<str> {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

/// As BoringSSL prints a number: without the byte that only says that it is positive.
fn serial(bytes: &[u8]) -> Box<str> {
    let start = bytes.iter().position(|byte| *byte != 0);
    match start.and_then(|start| bytes.get(start..)) {
        Some(bytes) => hex(bytes),
        None => "00".into(),
    }
}

/// A name as `XN_FLAG_RFC2253` prints it: the last part first.
fn rfc2253(name: &X509Name<'_>) -> Box<str> {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (index, part) in parts.iter().rev().enumerate() {
        if index > 0 {
            text.push(',');
        }
        for (index, attribute) in part.iter().enumerate() {
            if index > 0 {
                text.push('+');
            }
            let known = short_name(attribute.attr_type());
            match (known, attribute.as_str()) {
                (Some(kind), Ok(value)) => {
                    text.push_str(kind);
                    text.push('=');
                    escape(value, &mut text);
                }
                (kind, _) => {
                    match kind {
                        Some(kind) => text.push_str(kind),
                        None => text.push_str(&attribute.attr_type().to_id_string()),
                    }
                    text.push_str("=#");
                    let value = attribute.attr_value();
                    let _ = write!(text, "{:02X}{:02X}", value.tag().0, value.data.len());
                    for byte in value.data {
                        let _ = write!(text, "{byte:02X}");
                    }
                }
            }
        }
    }
    text.into()
}

fn short_name(oid: &Oid<'_>) -> Option<&'static str> {
    Some(match oid.to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.13" => "description",
        "2.5.4.17" => "postalCode",
        "2.5.4.41" => "name",
        "2.5.4.42" => "GN",
        "2.5.4.43" => "initials",
        "2.5.4.44" => "generationQualifier",
        "2.5.4.46" => "dnQualifier",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// RFC 2253's escapes; bytes beyond ASCII as `\xx`.
fn escape(value: &str, text: &mut String) {
    let last = value.len().wrapping_sub(1);
    for (index, byte) in value.bytes().enumerate() {
        let special = matches!(byte, b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';')
            || (index == 0 && matches!(byte, b' ' | b'#'))
            || (index == last && byte == b' ');
        if special {
            text.push('\\');
            text.push(char::from(byte));
        } else if byte.is_ascii_graphic() || byte == b' ' {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "\\{byte:02X}");
        }
    }
}

/// A certificate as `/certs` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateDetails {
    /// A file or `<inline>`.
    pub path: Arc<str>,
    pub info: Arc<CertificateInfo>,
}
