//! Driving rustls through a handshake, record by record, until it hands the keys over.

use std::rc::Rc;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, Error, HandshakeKind, PeerIncompatible, ProtocolVersion};
use rustls_pki_types::{DnsName, IpAddr, Ipv4Addr, ServerName};

use crate::context::{ClientContext, ServerContext};
use crate::error::{self, HANDSHAKE_FAILURE, PROTOCOL_VERSION, Reason, TlsError, fatal};
use crate::established::{Established, Keys};
use crate::hello::{self, Offer};
use crate::identity::Identity;
use crate::info::{PeerCertificate, TlsInfo};
use crate::params::{cipher_name, curve_name, signature_name, version_name};
use crate::record::{self, ALERT};
use crate::scratch::{self, Scratch};
use crate::session::ClientOptions;

/// A connection whose handshake is not done.
pub(crate) struct Handshake {
    side: Side,
    /// So much of what is not consumed has been shown to rustls, which has changed it.
    seen: usize,
    first: bool,
    validated: Option<bool>,
    local: Option<Arc<Identity>>,
    server_name: Box<str>,
    signature: &'static str,
    /// The peer's certificate, where it was refused.
    refused: Option<Rc<PeerCertificate>>,
    /// For the client's verifier.
    san_override: Vec<Box<str>>,
}

enum Side {
    /// A server that has not seen all of the ClientHello.
    Waiting(Arc<ServerContext>),
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
    /// The connection has been taken out.
    Over,
}

/// How far the handshake has come.
pub(crate) enum Progress {
    /// More bytes are needed, behind those that are not consumed.
    Blocked { consumed: usize },
    Done {
        consumed: usize,
        established: Box<Established>,
        info: Rc<TlsInfo>,
    },
    /// The peer has closed.
    Closed,
}

/// One step of rustls.
enum Step {
    More,
    Done,
    Closed,
}

impl Handshake {
    fn new(side: Side) -> Self {
        Self {
            side,
            seen: 0,
            first: true,
            validated: None,
            local: None,
            server_name: Box::default(),
            signature: "",
            refused: None,
            san_override: Vec::new(),
        }
    }

    pub(crate) fn server(context: Arc<ServerContext>) -> Self {
        // BoringSSL's connections have the first certificate until one is chosen.
        let local = context.first_identity();
        let mut handshake = Self::new(Side::Waiting(context));
        handshake.local = local;
        handshake
    }

    pub(crate) fn client(
        context: &ClientContext,
        options: &ClientOptions<'_>,
    ) -> Result<Self, TlsError> {
        let host = Some(options.hostname).filter(|name| context.auto_host_sni && !name.is_empty());
        let name = options.server_name.or(host).unwrap_or(&context.sni);
        let config = Arc::clone(&context.config);
        let parsed = DnsName::try_from(name.to_owned());
        let target = match parsed {
            Ok(name) => ServerName::DnsName(name),
            // An address stands for "no name is sent".
            Err(_) => ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0]))),
        };
        let alpn = if options.alpn.is_empty() && config.alpn_protocols.is_empty() {
            options.alpn_fallback
        } else {
            options.alpn
        };
        let connection = if alpn.is_empty() {
            UnbufferedClientConnection::new(config, target)
        } else {
            let alpn = alpn.iter().map(|name| name.to_vec()).collect();
            UnbufferedClientConnection::new_with_alpn(config, target, alpn)
        };
        let connection = connection.map_err(|error| error::from_rustls(&error))?;
        let mut handshake = Self::new(Side::Client(Box::new(connection)));
        handshake.server_name = name.into();
        let sans = options.subject_alt_names.iter();
        handshake.san_override = sans.map(|name| (*name).into()).collect();
        Ok(handshake)
    }

    /// Takes the bytes that are there; on failure the alert is in `out`.
    pub(crate) fn receive(
        &mut self,
        bytes: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Progress, TlsError> {
        if let Side::Waiting(context) = &self.side {
            if let Err(reason) = record::length(bytes, true) {
                plain_alert(reason, out);
                return Err(reason.error());
            }
            let config = match hello::offer(bytes, context.alpn_protocols()) {
                Offer::Incomplete => return Ok(Progress::Blocked { consumed: 0 }),
                Offer::Known(hello) if hello.too_old => {
                    let reason = Reason::UnsupportedProtocol;
                    plain_alert(reason, out);
                    return Err(reason.error());
                }
                Offer::Known(hello) => context.config_for(hello),
            };
            let connection = UnbufferedServerConnection::new(Arc::clone(config));
            let connection = connection.map_err(|error| error::from_rustls(&error))?;
            self.side = Side::Server(Box::new(connection));
        }
        let mut consumed = 0;
        loop {
            // rustls gets what it has kept and one record more, so that none of what follows the handshake goes to it.
            let rest = bytes.get_mut(consumed..).unwrap_or_default();
            let fresh = rest.get(self.seen..).unwrap_or_default();
            let length = match record::length(fresh, self.first) {
                Ok(length) => length,
                Err(reason) => {
                    plain_alert(reason, out);
                    return Err(reason.error());
                }
            };
            let starts = self.first && matches!(self.side, Side::Client(_));
            let Some(length) = length.or(starts.then_some(0)) else {
                return Ok(Progress::Blocked { consumed });
            };
            self.first = false;
            let end = self.seen + length;
            let (discarded, step) = self.drive(rest.get_mut(..end).unwrap_or_default(), out)?;
            consumed += discarded;
            self.seen = end - discarded;
            match step {
                Step::More => {}
                Step::Closed => return Ok(Progress::Closed),
                Step::Done => {
                    let (established, info) = self.finish()?;
                    return Ok(Progress::Done {
                        consumed: consumed + self.seen,
                        established: Box::new(established),
                        info: Rc::new(info),
                    });
                }
            }
        }
    }

    fn drive(&mut self, bytes: &mut [u8], out: &mut Vec<u8>) -> Result<(usize, Step), TlsError> {
        let start = out.len();
        scratch::put(Scratch {
            san_override: self.san_override.clone(),
            ..Scratch::default()
        });
        let result = match &mut self.side {
            Side::Server(connection) => run(
                &mut **connection,
                |connection, bytes| connection.process_tls_records(bytes),
                bytes,
                out,
            ),
            Side::Client(connection) => run(
                &mut **connection,
                |connection, bytes| connection.process_tls_records(bytes),
                bytes,
                out,
            ),
            Side::Waiting(_) | Side::Over => Ok((0, Step::More)),
        };
        let told = scratch::take();
        self.validated = told.validated.or(self.validated);
        if told.local.is_some() {
            self.local = told.local;
        }
        if let Some(name) = told.server_name {
            self.server_name = name;
        }
        if let Some(scheme) = told.signature {
            self.signature = signature_name(scheme);
        }
        result.map_err(|error| {
            self.refused = told.refused;
            let failure = told.failure.unwrap_or_else(|| error::from_rustls(&error));
            self.as_boringssl(&error, failure, out.get_mut(start..).unwrap_or_default())
        })
    }

    /// Where BoringSSL words a failure otherwise, or sends another alert; `sent` are the records that tell of it.
    fn as_boringssl(&self, error: &Error, failure: TlsError, sent: &mut [u8]) -> TlsError {
        let (version, is_server) = match &self.side {
            Side::Server(connection) => (connection.protocol_version(), true),
            Side::Client(connection) => (connection.protocol_version(), false),
            Side::Waiting(_) | Side::Over => (None, false),
        };
        let unparsed = is_server && version.is_none() && matches!(error, Error::InvalidMessage(_));
        if let Some([minor, description]) = plaintext_alert(sent) {
            if version.is_none() {
                // No version is agreed on: that of TLS 1.0, which all understand.
                *minor = 1;
            }
            match error {
                Error::NoCertificatesPresented => *description = HANDSHAKE_FAILURE,
                Error::PeerIncompatible(incompatible)
                    if version.is_none() && is_old(incompatible) =>
                {
                    *description = PROTOCOL_VERSION;
                }
                _ => {}
            }
        }
        let no_group = matches!(
            error,
            Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon)
        );
        if unparsed {
            Reason::ClientHelloParseFailed.error()
        } else if no_group && version == Some(ProtocolVersion::TLSv1_2) {
            Reason::WrongCurve.error()
        } else {
            failure
        }
    }

    /// What is known of a connection that has failed, or ended before its time, the refused certificate included.
    pub(crate) fn failed(&mut self) -> TlsInfo {
        let known = match &self.side {
            Side::Server(connection) => self.version_and_cipher(connection),
            Side::Client(connection) => self.version_and_cipher(connection),
            Side::Waiting(_) | Side::Over => None,
        };
        let (version, cipher) = known.unwrap_or((version_name(ProtocolVersion::TLSv1_2), ""));
        TlsInfo {
            version,
            cipher,
            curve: "",
            signature_algorithm: "",
            alpn: Box::default(),
            sni: std::mem::take(&mut self.server_name),
            resumed: false,
            local: self.local.take().map(|local| Arc::clone(&local.info)),
            peer: self.refused.take(),
            validated: false,
        }
    }

    fn version_and_cipher(&self, connection: &CommonState) -> Option<(&'static str, &'static str)> {
        let suite = connection.negotiated_cipher_suite();
        let cipher = suite.map_or("", |suite| cipher_name(suite.suite()));
        Some((version_name(connection.protocol_version()?), cipher))
    }

    fn finish(&mut self) -> Result<(Established, TlsInfo), TlsError> {
        let failed = |error: Error| error::from_rustls(&error);
        match std::mem::replace(&mut self.side, Side::Over) {
            Side::Server(connection) => {
                let info = self.info(&connection)?;
                let is_tls13 = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
                let (secrets, keys) = connection
                    .dangerous_into_kernel_connection()
                    .map_err(failed)?;
                let keys = if is_tls13 {
                    Keys::Server(keys)
                } else {
                    Keys::Fixed
                };
                Ok((Established::new(secrets, keys)?, info))
            }
            Side::Client(connection) => {
                let info = self.info(&connection)?;
                let is_tls13 = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
                let (secrets, keys) = connection
                    .dangerous_into_kernel_connection()
                    .map_err(failed)?;
                let keys = if is_tls13 {
                    Keys::Client(keys)
                } else {
                    Keys::Fixed
                };
                Ok((Established::new(secrets, keys)?, info))
            }
            Side::Waiting(_) | Side::Over => Err(TlsError::internal("no handshake")),
        }
    }

    fn info(&mut self, connection: &CommonState) -> Result<TlsInfo, TlsError> {
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let peer = match connection.peer_certificates() {
            Some(chain) if !chain.is_empty() => Some(PeerCertificate::shared(chain)?),
            _ => None,
        };
        let suite = connection.negotiated_cipher_suite();
        let group = connection.negotiated_key_exchange_group();
        let version = connection.protocol_version();
        Ok(TlsInfo {
            version: version.map_or("", version_name),
            cipher: suite.map_or("", |suite| cipher_name(suite.suite())),
            curve: group.map_or("", |group| curve_name(group.name())),
            signature_algorithm: self.signature,
            alpn: connection.alpn_protocol().unwrap_or_default().into(),
            sni: std::mem::take(&mut self.server_name),
            resumed,
            local: self.local.take().map(|local| Arc::clone(&local.info)),
            // A session is resumed only under the context that has looked at the certificate before.
            validated: self.validated.unwrap_or(resumed && peer.is_some()),
            peer,
        })
    }
}

/// The peer speaks no version that we do.
const fn is_old(incompatible: &PeerIncompatible) -> bool {
    matches!(
        incompatible,
        PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
    )
}

/// The minor version and the description of the alert that `records` end with, if it is not encrypted.
fn plaintext_alert(mut records: &mut [u8]) -> Option<[&mut u8; 2]> {
    loop {
        let &[kind, _, _, high, low] = records.first_chunk::<{ record::HEADER }>()?;
        let length = record::HEADER + usize::from(u16::from_be_bytes([high, low]));
        if records.len() > length {
            (_, records) = records.split_at_mut_checked(length)?;
            continue;
        }
        return match records {
            [ALERT, 3, minor, 0, 2, _, description] if kind == ALERT => Some([minor, description]),
            _ => None,
        };
    }
}

fn plain_alert(reason: Reason, out: &mut Vec<u8>) {
    if reason.is_http() {
        return;
    }
    let [level, description] = fatal(reason.alert());
    out.extend_from_slice(&[ALERT, 3, 1, 0, 2, level, description]);
}

/// Lets rustls work on `bytes` until it wants more or is done; returns how many of them it needs no longer.
fn run<C, D>(
    connection: &mut C,
    process: impl for<'c, 'i> Fn(&'c mut C, &'i mut [u8]) -> UnbufferedStatus<'c, 'i, D>,
    bytes: &mut [u8],
    out: &mut Vec<u8>,
) -> Result<(usize, Step), Error> {
    let mut discarded = 0;
    let mut failure = None;
    loop {
        // After a failure it goes on only to fetch the alert.
        let rest = bytes.get_mut(discarded..).unwrap_or_default();
        let UnbufferedStatus { discard, state, .. } = process(connection, rest);
        let step = match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut |buf| data.encode(buf), out)?;
                None
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                None
            }
            Ok(ConnectionState::WriteTraffic(_)) => Some(Step::Done),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Some(Step::Closed),
            Ok(_) => Some(Step::More),
            Err(error) => match failure {
                Some(first) => return Err(first),
                None => {
                    failure = Some(error);
                    None
                }
            },
        };
        discarded += discard;
        match (step, failure.take()) {
            (Some(_), Some(failure)) => return Err(failure),
            (Some(step), None) => return Ok((discarded, step)),
            (None, kept) => failure = kept,
        }
    }
}

/// Appends what rustls encodes.
fn encode(
    write: &mut dyn FnMut(&mut [u8]) -> Result<usize, EncodeError>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let start = out.len();
    let failed = || Error::General("a handshake message that cannot be encoded".to_owned());
    // The first call only asks for the size.
    let Err(EncodeError::InsufficientSize(size)) = write(&mut []) else {
        return Ok(());
    };
    out.resize(start + size.required_size, 0);
    let written = write(out.get_mut(start..).unwrap_or_default()).map_err(|_| failed())?;
    out.truncate(start + written);
    Ok(())
}
