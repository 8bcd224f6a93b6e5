//! Connections between our own two sides; the other implementations are the business of `tests/differential`.

mod matrix;
mod pki;
mod splits;

use std::sync::Arc;

use tidegate_model::tls::{
    Certificates, CommonTlsContext, DownstreamTlsContext, SessionTickets, TlsCertificate,
    TlsParameters, TlsVersion, UpstreamTlsContext, Validation, ValidationContext,
};

use crate::session::{ClientOptions, Session};
use crate::slot::{ClientSlot, ServerSlot};
use crate::{ClientContext, ServerContext, TlsError};

pub(super) fn common(
    certificates: Vec<Arc<TlsCertificate>>,
    validation: Option<ValidationContext>,
) -> CommonTlsContext {
    CommonTlsContext {
        certificates: Certificates::Given(certificates),
        validation: validation.map_or(Validation::None, |given| Validation::Given(Arc::new(given))),
        params: TlsParameters {
            max_version: Some(TlsVersion::V1_3),
            ..TlsParameters::default()
        },
        ..CommonTlsContext::default()
    }
}

pub(super) fn downstream(common: CommonTlsContext) -> DownstreamTlsContext {
    DownstreamTlsContext {
        common,
        require_client_certificate: false,
        session_tickets: SessionTickets::Internal,
        stateful_session_resumption: true,
        session_timeout: None,
        full_scan_certs_on_sni_mismatch: false,
        prefer_client_ciphers: false,
    }
}

pub(super) fn upstream(common: CommonTlsContext, sni: &str) -> UpstreamTlsContext {
    UpstreamTlsContext {
        common,
        sni: sni.into(),
        auto_host_sni: false,
        auto_sni_san_validation: false,
        max_session_keys: 1,
        enforce_rsa_key_usage: false,
    }
}

pub(super) fn server_context(config: DownstreamTlsContext) -> Arc<ServerContext> {
    ServerSlot::new(Arc::new(config)).unwrap().load().unwrap()
}

pub(super) fn client_context(config: UpstreamTlsContext) -> Arc<ClientContext> {
    ClientSlot::new(Arc::new(config)).unwrap().load().unwrap()
}

/// Two sessions and the bytes between them.
pub(super) struct Pair {
    pub(super) client: Session,
    pub(super) server: Session,
    pub(super) to_server: Vec<u8>,
    pub(super) to_client: Vec<u8>,
}

/// What one side has come to.
pub(super) type Outcome = Result<(), TlsError>;

impl Pair {
    pub(super) fn new(client: &Arc<ClientContext>, server: &Arc<ServerContext>) -> Self {
        let mut pair = Self {
            client: Session::client(client, &ClientOptions::default()).unwrap(),
            server: Session::server(server),
            to_server: Vec::new(),
            to_client: Vec::new(),
        };
        pair.client.start(&mut pair.to_server).unwrap();
        pair
    }

    /// Lets both talk until neither has more to say; plaintext is not expected.
    pub(super) fn shake(&mut self) -> (Outcome, Outcome) {
        let (mut client, mut server) = (Ok(()), Ok(()));
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            let mut bytes = std::mem::take(&mut self.to_server);
            if server.is_ok()
                && let Err(error) = deliver(&mut self.server, &mut bytes, &mut self.to_client)
            {
                server = Err(error);
            }
            let mut bytes = std::mem::take(&mut self.to_client);
            if client.is_ok()
                && let Err(error) = deliver(&mut self.client, &mut bytes, &mut self.to_server)
            {
                client = Err(error);
            }
        }
        (client, server)
    }
}

/// All of the bytes at once; the plaintext.
pub(super) fn deliver(
    session: &mut Session,
    bytes: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<Vec<u8>, TlsError> {
    let held = session.held();
    let mut buf = vec![0; held];
    session.restore(&mut buf);
    buf.append(bytes);
    let filled = buf.len();
    let received = session.receive(&mut buf, filled, out)?;
    buf.truncate(received.plaintext);
    Ok(buf)
}

#[test]
fn plain_text_both_ways_in_both_versions() {
    let pki = pki::Pki::new();
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let mut own = common(vec![pki.server()], None);
        own.alpn_protocols = vec!["h2".into(), "http/1.1".into()];
        let server = server_context(downstream(own));
        let mut theirs = common(Vec::new(), Some(pki.trust()));
        theirs.params.max_version = Some(version);
        theirs.alpn_protocols = vec!["http/1.1".into()];
        let client = client_context(upstream(theirs, "server.test"));
        let mut pair = Pair::new(&client, &server);
        let (client_end, server_end) = pair.shake();
        client_end.unwrap();
        server_end.unwrap();
        let info = pair.server.info().unwrap();
        assert_eq!(&*info.sni, "server.test");
        assert_eq!(&*info.alpn, b"http/1.1");
        assert!(info.peer.is_none());
        let info = pair.client.info().unwrap();
        let expected = match version {
            TlsVersion::V1_2 => ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
            TlsVersion::V1_3 => ("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
        };
        assert_eq!((info.version, info.cipher), expected);
        assert_eq!(info.curve, "X25519");
        assert_eq!(info.signature_algorithm, "ecdsa_secp256r1_sha256");
        assert!(info.validated);
        let peer = info.peer.as_ref().unwrap();
        assert_eq!(*peer.dns_sans, [Box::from("server.test")]);

        let big = vec![7; 100_000];
        let mut out = Vec::new();
        pair.client
            .send(&[b"hello ", b"", b"there", &big], &mut out)
            .unwrap();
        let plain = deliver(&mut pair.server, &mut out, &mut pair.to_client).unwrap();
        assert_eq!(plain, [b"hello there".as_slice(), &big].concat());
        pair.server.send(&[&big], &mut out).unwrap();
        let plain = deliver(&mut pair.client, &mut out, &mut pair.to_server).unwrap();
        assert_eq!(plain, big);
        assert!(pair.to_server.is_empty() && pair.to_client.is_empty());

        pair.client.close_notify(&mut out);
        let length = out.len();
        let received = pair
            .server
            .receive(&mut out, length, &mut pair.to_client)
            .unwrap();
        assert!(received.closed && received.plaintext == 0);
    }
}

#[test]
fn without_a_common_protocol_there_is_none() {
    let pki = pki::Pki::new();
    let mut own = common(vec![pki.server()], None);
    own.alpn_protocols = vec!["h2".into()];
    let server = server_context(downstream(own));
    let mut theirs = common(Vec::new(), Some(pki.trust()));
    theirs.alpn_protocols = vec!["istio".into()];
    let client = client_context(upstream(theirs, "server.test"));
    let mut pair = Pair::new(&client, &server);
    let (client_end, server_end) = pair.shake();
    client_end.unwrap();
    server_end.unwrap();
    assert!(pair.client.info().unwrap().alpn.is_empty());
    assert!(pair.server.info().unwrap().alpn.is_empty());
}

#[test]
fn sessions_are_resumed_and_still_know_the_peer() {
    let pki = pki::Pki::new();
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let server = server_context(downstream(common(vec![pki.server()], Some(pki.trust()))));
        let mut theirs = common(vec![pki.client()], Some(pki.trust()));
        theirs.params.max_version = Some(version);
        let client = client_context(upstream(theirs, "server.test"));
        for round in 0..3 {
            let mut pair = Pair::new(&client, &server);
            let (client_end, server_end) = pair.shake();
            client_end.unwrap();
            server_end.unwrap();
            let info = pair.server.info().unwrap();
            assert_eq!(info.resumed, round > 0, "{version:?}");
            assert!(info.validated);
            let peer = info.peer.as_ref().unwrap();
            assert_eq!(
                *peer.uri_sans,
                [Box::from("spiffe://cluster.local/ns/a/sa/b")]
            );
            assert_eq!(info.local.as_ref().unwrap().subject, "CN=server".into());
            assert_eq!(pair.client.info().unwrap().resumed, round > 0);
        }
    }
}

#[test]
fn chacha_and_aes_128_are_equal_and_nothing_else() {
    let pki = pki::Pki::new();
    let server = server_context(downstream(common(vec![pki.server()], None)));
    let (aes, aes256, chacha) = (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    );
    for (offered, chosen) in [
        (vec![aes256, chacha, aes], chacha),
        (vec![aes256, aes, chacha], aes),
        (vec![chacha], chacha),
        (vec![aes256], aes256),
    ] {
        let mut theirs = common(Vec::new(), Some(pki.trust()));
        theirs.params.max_version = Some(TlsVersion::V1_2);
        theirs.params.cipher_suites = offered.iter().map(|name| (*name).into()).collect();
        let client = client_context(upstream(theirs, "server.test"));
        let mut pair = Pair::new(&client, &server);
        let (client_end, server_end) = pair.shake();
        client_end.unwrap();
        server_end.unwrap();
        assert_eq!(pair.server.info().unwrap().cipher, chosen, "{offered:?}");
    }
}

#[test]
fn every_name_of_the_model_is_spoken() {
    use crate::params::{Parameters, cipher_name};
    use tidegate_model::tls::{CIPHER_SUITES, ECDH_CURVES, SIGNATURE_ALGORITHMS};
    let names = |all: &[&str]| all.iter().map(|name| (*name).into()).collect();
    let params = TlsParameters {
        cipher_suites: CIPHER_SUITES
            .iter()
            .map(|(name, _)| (*name).into())
            .collect(),
        ecdh_curves: names(ECDH_CURVES),
        signature_algorithms: names(SIGNATURE_ALGORITHMS),
        ..TlsParameters::default()
    };
    let made = Parameters::new(&params, TlsVersion::V1_3).unwrap();
    let suites = &made.provider.cipher_suites;
    let spoken: Vec<_> = suites
        .iter()
        .map(|suite| cipher_name(suite.suite()))
        .collect();
    assert!(CIPHER_SUITES.iter().all(|(name, _)| spoken.contains(name)));
    assert_eq!(made.provider.kx_groups.len(), ECDH_CURVES.len());
    assert_eq!(made.signatures.len(), SIGNATURE_ALGORITHMS.len());
}
