//! What log lines and headers tell of TLS: certificates and what the handshake has agreed on.

use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use tidegate_model::format::{TimeFormat, TlsField};
use tidegate_tls::{CertificateInfo, TlsInfo};

use super::time;

/// Appends the value; false: there is none.
pub(super) fn write(info: &TlsInfo, field: TlsField, out: &mut Vec<u8>) -> bool {
    let before = out.len();
    let peer = info.peer.as_deref();
    let of_peer = peer.map(|peer| &**peer);
    let local = info.local.as_deref();
    match field {
        TlsField::Version => out.extend_from_slice(info.version.as_bytes()),
        TlsField::Cipher => out.extend_from_slice(info.cipher.as_bytes()),
        TlsField::Group => out.extend_from_slice(info.curve.as_bytes()),
        TlsField::ServerName => out.extend_from_slice(info.sni.as_bytes()),
        TlsField::PeerUriSan => names(of_peer, |of| &of.uri_sans, out),
        TlsField::PeerDnsSan => names(of_peer, |of| &of.dns_sans, out),
        TlsField::PeerEmailSan => names(of_peer, |of| &of.email_sans, out),
        TlsField::PeerIpSan => addresses(of_peer, out),
        TlsField::PeerOthernameSan => other_names(of_peer, out),
        TlsField::LocalUriSan => names(local, |of| &of.uri_sans, out),
        TlsField::LocalDnsSan => names(local, |of| &of.dns_sans, out),
        TlsField::LocalEmailSan => names(local, |of| &of.email_sans, out),
        TlsField::LocalIpSan => addresses(local, out),
        TlsField::LocalOthernameSan => other_names(local, out),
        TlsField::LocalSubject => text(local, |of| &of.subject, out),
        TlsField::PeerSubject => text(of_peer, |of| &of.subject, out),
        TlsField::PeerIssuer => text(of_peer, |of| &of.issuer, out),
        TlsField::PeerSerial => text(of_peer, |of| &of.serial, out),
        TlsField::PeerFingerprint256 => text(of_peer, |of| &of.sha256, out),
        TlsField::PeerFingerprint1 => text(of_peer, |of| &of.sha1, out),
        TlsField::PeerCert => {
            if let Some(peer) = peer {
                out.extend_from_slice(peer.pem_urlencoded().as_bytes());
            }
        }
    }
    out.len() > before
}

/// When the peer's certificate begins or ends to be valid; false: there is none.
pub(super) fn write_time(
    info: &TlsInfo,
    end: bool,
    format: &TimeFormat,
    out: &mut Vec<u8>,
) -> bool {
    let Some(peer) = &info.peer else {
        return false;
    };
    let seconds = if end { peer.not_after } else { peer.not_before };
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    time::write(format, UNIX_EPOCH + since, out);
    true
}

fn text(
    certificate: Option<&CertificateInfo>,
    which: impl Fn(&CertificateInfo) -> &str,
    out: &mut Vec<u8>,
) {
    if let Some(certificate) = certificate {
        out.extend_from_slice(which(certificate).as_bytes());
    }
}

fn names(
    certificate: Option<&CertificateInfo>,
    which: impl Fn(&CertificateInfo) -> &Vec<Box<str>>,
    out: &mut Vec<u8>,
) {
    let all = certificate.map(which).into_iter().flatten();
    for (at, name) in all.enumerate() {
        separate(at, out);
        out.extend_from_slice(name.as_bytes());
    }
}

fn addresses(certificate: Option<&CertificateInfo>, out: &mut Vec<u8>) {
    let all = certificate.map(|of| &of.ip_sans).into_iter().flatten();
    for (at, address) in all.enumerate() {
        separate(at, out);
        // A vector takes what it is given.
        let _ = write!(out, "{address}");
    }
}

fn other_names(certificate: Option<&CertificateInfo>, out: &mut Vec<u8>) {
    let all = certificate.map(|of| &of.other_sans).into_iter().flatten();
    for (at, (_, value)) in all.enumerate() {
        separate(at, out);
        out.extend_from_slice(value.as_bytes());
    }
}

fn separate(at: usize, out: &mut Vec<u8>) {
    if at > 0 {
        out.push(b',');
    }
}
