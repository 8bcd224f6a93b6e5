//! TLS as the load generator speaks it: the client's side of one connection over rustls' unbuffered interface, records
//! opened in the driver's buffer. Must cost little, and the same whoever answers: TLS 1.3 only, one cipher suite and one
//! key exchange, full handshakes, and neither the certificate nor its signature verified. Knows nothing of HTTP.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tidegate_rt::{Sent, Socket};

/// What a record adds to at most 16 KiB of plaintext: header, kind and tag.
const OVERHEAD: usize = 5 + 1 + 16;
const MAX_PLAINTEXT: usize = 16 * 1024;
/// Room for a ClientHello; more is made when it is wanted.
const MESSAGE: usize = 512;

/// What all connections share.
#[derive(Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Client {
    /// Asks for the server `name`; it is not compared with the certificate.
    pub fn new(name: &str) -> Result<Self, String> {
        let error = |error| format!("--tls {name}: {error}");
        let provider = CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|wrong| error(wrong.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            name: ServerName::try_from(name.to_owned())
                .map_err(|wrong| error(wrong.to_string()))?,
        })
    }

    /// A new connection's session; it speaks when something is to be sent.
    pub fn session(&self) -> Result<Box<Session>, String> {
        let connection =
            UnbufferedClientConnection::new(Arc::clone(&self.config), self.name.clone())
                .map_err(text)?;
        Ok(Box::new(Session {
            connection,
            queued: Vec::new(),
            held: Vec::new(),
            out: Vec::new(),
            sent: 0,
            closed: false,
        }))
    }
}

/// One connection's TLS.
pub struct Session {
    connection: UnbufferedClientConnection,
    /// Plaintext that waits for the handshake's end.
    queued: Vec<u8>,
    /// Ciphertext of a record that is not whole.
    held: Vec<u8>,
    /// Records to be sent, and how many bytes of them have left.
    out: Vec<u8>,
    sent: usize,
    closed: bool,
}

impl Session {
    /// Prepares `plaintext` to be sent, after the handshake if there has been none; [`Session::flush`] sends.
    pub fn begin(&mut self, plaintext: &[u8]) -> Result<(), String> {
        self.queued.extend_from_slice(plaintext);
        let mut held = std::mem::take(&mut self.held);
        self.receive(&mut held, |_| {})
    }

    /// Prepares the word that nothing more will come; nothing before the handshake's end.
    pub fn close_notify(&mut self) -> Result<(), String> {
        if let ConnectionState::WriteTraffic(mut open) = self
            .connection
            .process_tls_records(&mut [])
            .state
            .map_err(text)?
        {
            append(&mut self.out, OVERHEAD + 2, |into| {
                open.queue_close_notify(into).map_err(text)
            })?;
        }
        Ok(())
    }

    /// Puts what is held at the front of the read buffer, and says how much that is.
    pub fn restore(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.held.len();
        if let Some(front) = buffer.get_mut(..count) {
            front.copy_from_slice(&self.held);
        }
        self.held.clear();
        count
    }

    /// Holds again what [`Session::restore`] gave.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Reads records and hands out their plaintext, piece by piece. The answers to them are there to be flushed.
    pub fn receive(
        &mut self,
        mut records: &mut [u8],
        mut data: impl FnMut(&[u8]),
    ) -> Result<(), String> {
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(records);
            let mut goes_on = true;
            match state.map_err(text)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(text)?;
                        discard += record.discard;
                        data(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut message) => {
                    let mut size = MESSAGE;
                    append(&mut self.out, size, |into| match message.encode(into) {
                        Ok(count) => Ok(count),
                        Err(EncodeError::InsufficientSize(more)) => {
                            size = more.required_size;
                            Ok(0)
                        }
                        Err(error) => Err(text(error)),
                    })?;
                    if size > MESSAGE {
                        append(&mut self.out, size, |into| {
                            message.encode(into).map_err(text)
                        })?;
                    }
                }
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                ConnectionState::WriteTraffic(mut open) => {
                    goes_on = false;
                    if !self.queued.is_empty() {
                        let records = self.queued.len() / MAX_PLAINTEXT + 1;
                        append(
                            &mut self.out,
                            self.queued.len() + records * OVERHEAD,
                            |into| open.encrypt(&self.queued, into).map_err(text),
                        )?;
                        self.queued.clear();
                    }
                }
                ConnectionState::PeerClosed => self.closed = true,
                ConnectionState::BlockedHandshake | ConnectionState::Closed => goes_on = false,
                other => return Err(format!("unexpected TLS state: {other:?}")),
            }
            records = records.get_mut(discard..).unwrap_or_default();
            if !goes_on {
                // rustls has opened some of it in place where a message is not whole: what it has made of it is kept.
                self.held.extend_from_slice(records);
                return Ok(());
            }
        }
    }

    /// Sends what is there to be sent; what does not leave stays for the next time.
    pub fn flush(&mut self, socket: &Socket) -> Result<(), String> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match socket.send(rest) {
                Sent::Bytes(count) => self.sent += count,
                Sent::WouldBlock => return Ok(()),
                Sent::Error(error) => return Err(format!("send: {error}")),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// The server has said that nothing more will come.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("held", &self.held.len())
            .field("unsent", &(self.out.len() - self.sent))
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// Appends what `encode` writes into at most `size` bytes.
fn append(
    out: &mut Vec<u8>,
    size: usize,
    encode: impl FnOnce(&mut [u8]) -> Result<usize, String>,
) -> Result<(), String> {
    let start = out.len();
    out.resize(start + size, 0);
    let count = encode(out.get_mut(start..).unwrap_or_default())?;
    out.truncate(start + count);
    Ok(())
}

fn text(error: impl std::fmt::Display) -> String {
    format!("TLS: {error}")
}

/// Takes every server for whom it says it is.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustls::pki_types::PrivateKeyDer;
    use rustls::{HandshakeKind, ServerConfig, ServerConnection};

    use super::*;

    fn server_config() -> Arc<ServerConfig> {
        let made = rcgen::generate_simple_self_signed(["bench.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    fn server() -> ServerConnection {
        ServerConnection::new(server_config()).unwrap()
    }

    /// What the session wants to send, to the server; then what the server wants to send, in pieces of `size`, each
    /// received behind what is held. The plaintext that came to the server, and that which came back.
    fn exchange(
        session: &mut Session,
        server: &mut ServerConnection,
        size: usize,
    ) -> (Vec<u8>, Vec<u8>) {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; 64 * 1024];
        while !session.out.is_empty() || server.wants_write() {
            let sent = std::mem::take(&mut session.out);
            let mut rest = sent.as_slice();
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets().unwrap();
                // Ends with "would block".
                let _ = server.reader().read_to_end(&mut there);
            }
            let mut answer = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut answer).unwrap();
            }
            for piece in answer.chunks(size) {
                let held = session.restore(&mut buffer);
                let end = held + piece.len();
                buffer[held..end].copy_from_slice(piece);
                session
                    .receive(&mut buffer[..end], |data| back.extend_from_slice(data))
                    .unwrap();
            }
        }
        (there, back)
    }

    #[test]
    fn there_and_back_in_pieces_of_any_size() {
        for size in [1, 5, 1000, 64 * 1024] {
            let mut server = server();
            let mut session = Client::new("bench.example").unwrap().session().unwrap();
            session.begin(b"one").unwrap();
            let one = (b"one".to_vec(), Vec::new());
            assert_eq!(exchange(&mut session, &mut server, size), one, "{size}");
            assert_eq!(
                server.protocol_version(),
                Some(rustls::ProtocolVersion::TLSv1_3)
            );
            assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(server.alpn_protocol(), Some(b"http/1.1".as_slice()));
            assert_eq!(server.server_name(), Some("bench.example"));

            // Longer than a record either way.
            let long = vec![b'x'; 40_000];
            session.begin(&long).unwrap();
            server.writer().write_all(&long).unwrap();
            let both = (long.clone(), long);
            assert_eq!(exchange(&mut session, &mut server, size), both, "{size}");

            session.close_notify().unwrap();
            server.send_close_notify();
            exchange(&mut session, &mut server, size);
            assert!(session.is_closed());
            assert_eq!(server.reader().read(&mut [0]).unwrap(), 0);
        }
    }

    #[test]
    fn no_handshake_is_resumed() {
        let client = Client::new("bench.example").unwrap();
        let config = server_config();
        for _ in 0..3 {
            let mut server = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut session = client.session().unwrap();
            session.begin(b"x").unwrap();
            exchange(&mut session, &mut server, 1000);
            assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        }
    }

    #[test]
    fn what_is_no_tls_is_an_error() {
        let mut session = Client::new("bench.example").unwrap().session().unwrap();
        session.begin(b"x").unwrap();
        let mut answer = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
        assert!(session.receive(&mut answer, |_| {}).is_err());
        assert!(Client::new("not a name").is_err());
    }
}
