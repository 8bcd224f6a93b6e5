//! `x-forwarded-client-cert`: what is told of the client's certificate to those behind.

use tidegate_model::hcm::{ClientCertDetails, ForwardClientCertDetails};
use tidegate_tls::TlsInfo;

/// The element that a connection adds or puts in place; `None`: it leaves the header alone, or takes it away.
pub(super) fn element(
    mode: ForwardClientCertDetails,
    details: ClientCertDetails,
    tls: &TlsInfo,
) -> Option<Vec<u8>> {
    if !matches!(
        mode,
        ForwardClientCertDetails::AppendForward | ForwardClientCertDetails::SanitizeSet
    ) {
        return None;
    }
    let peer = tls.peer.as_deref()?;
    let mut out = Vec::new();
    let mut add = |name: &str, value: &str, quote: &str| {
        if !out.is_empty() {
            out.push(b';');
        }
        for part in [name, "=", quote, value, quote] {
            out.extend_from_slice(part.as_bytes());
        }
    };
    for uri in tls.local.iter().flat_map(|local| &local.uri_sans) {
        add("By", uri, "");
    }
    add("Hash", &peer.sha256, "");
    if details.cert {
        add("Cert", &peer.pem_urlencoded(), "\"");
    }
    if details.chain {
        add("Chain", &peer.pem_chain_urlencoded(), "\"");
    }
    if details.subject {
        add("Subject", &peer.subject, "\"");
    }
    if details.uri {
        if peer.uri_sans.is_empty() {
            add("URI", "", "");
        }
        for uri in &peer.uri_sans {
            add("URI", uri, "");
        }
    }
    if details.dns {
        for name in &peer.dns_sans {
            add("DNS", name, "");
        }
    }
    Some(out)
}
