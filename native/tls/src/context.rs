//! Contexts: everything that connections of one transport socket share, made from the model and the secrets known.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls::{ClientConfig, KeyLog, ServerConfig};
use tidegate_model::tls::{
    DownstreamTlsContext, SessionTicketKeys, TlsCertificate, TlsVersion, UpstreamTlsContext,
    ValidationContext,
};

use crate::error::TlsError;
use crate::identity::{ClientIdentity, Identity, ServerIdentities};
use crate::info::CertificateDetails;
use crate::params::Parameters;
use crate::ticket::Tickets;
use crate::verify::{Peer, Verifier};

/// TLS 1.2 sessions that a server keeps by their IDs, as many as BoringSSL.
const SESSIONS: usize = 20 * 1024;
/// How long Envoy lets a session be resumed, without `session_timeout`.
const SESSION_TIMEOUT: Duration = Duration::from_hours(2);

/// The server's side of a transport socket.
#[derive(Debug)]
pub struct ServerContext {
    pub(crate) config: Arc<ServerConfig>,
    /// For clients that offer none of our protocols; `None`: we have none ourselves.
    pub(crate) without_alpn: Option<Arc<ServerConfig>>,
    identities: Arc<ServerIdentities>,
    verifier: Arc<Verifier>,
}

/// The client's side of a transport socket.
#[derive(Debug)]
pub struct ClientContext {
    pub(crate) config: Arc<ClientConfig>,
    identity: Option<Arc<Identity>>,
    verifier: Arc<Verifier>,
    pub(crate) sni: Arc<str>,
    pub(crate) auto_host_sni: bool,
}

/// What a context is made of, its secrets found.
pub(crate) struct Materials {
    pub(crate) certificates: Vec<Arc<TlsCertificate>>,
    pub(crate) validation: Option<Arc<ValidationContext>>,
    pub(crate) ticket_keys: Option<SessionTicketKeys>,
}

fn alpn(names: &[Arc<str>]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

fn unusable(error: &rustls::Error) -> TlsError {
    TlsError::configuration(error.to_string())
}

impl ServerContext {
    pub(crate) fn new(
        config: &DownstreamTlsContext,
        materials: &Materials,
    ) -> Result<Self, TlsError> {
        let common = &config.common;
        let parameters = Parameters::new(&common.params, TlsVersion::V1_3)?;
        let identities = materials
            .certificates
            .iter()
            .map(|certificate| Identity::of(certificate, &parameters.signatures).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        if identities.is_empty() {
            return Err(TlsError::configuration(
                "Server TlsCertificates must have a certificate specified",
            ));
        }
        let verifier = Arc::new(Verifier::new(
            materials.validation.as_deref(),
            Peer::Client,
            config.require_client_certificate,
            false,
            parameters.provider.signature_verification_algorithms,
            &parameters.signatures,
        )?);
        let identities = Arc::new(ServerIdentities::new(
            identities,
            config.full_scan_certs_on_sni_mismatch,
            config.ocsp_staple_policy,
        ));
        let builder = ServerConfig::builder_with_provider(parameters.provider)
            .with_protocol_versions(&parameters.versions)
            .map_err(|error| unusable(&error))?;
        let mut server = builder
            .with_client_cert_verifier(Arc::clone(&verifier) as Arc<_>)
            .with_cert_resolver(Arc::clone(&identities) as Arc<_>);
        server.ignore_client_order = !config.prefer_client_ciphers;
        server.enable_secret_extraction = true;
        server.key_log = key_log(common.key_log.as_ref().map(|log| &*log.path))?;
        server.session_storage = if config.stateful_session_resumption {
            ServerSessionMemoryCache::new(SESSIONS) as Arc<dyn StoresServerSessions>
        } else {
            Arc::new(NoServerSessionStorage {})
        };
        match tickets(config, materials)? {
            Some(tickets) => server.ticketer = tickets,
            // Without tickets there is no resumption in TLS 1.3.
            None => server.send_tls13_tickets = 0,
        }
        let protocols = alpn(&common.alpn_protocols);
        let without_alpn = (!protocols.is_empty()).then(|| Arc::new(server.clone()));
        server.alpn_protocols = protocols;
        Ok(Self {
            config: Arc::new(server),
            without_alpn,
            identities,
            verifier,
        })
    }

    /// Own certificates, for `/certs`.
    pub fn certificates(&self) -> Vec<CertificateDetails> {
        let identities = self.identities.identities.iter();
        identities.map(|identity| identity.details()).collect()
    }

    /// The first trusted certificate, for `/certs`.
    pub fn trusted_ca(&self) -> Option<CertificateDetails> {
        self.verifier.details().cloned()
    }
}

fn tickets(
    config: &DownstreamTlsContext,
    materials: &Materials,
) -> Result<Option<Arc<dyn ProducesTickets>>, TlsError> {
    use tidegate_model::tls::SessionTickets;
    let lifetime = config.session_timeout.unwrap_or(SESSION_TIMEOUT).as_secs();
    let given = match &config.session_tickets {
        SessionTickets::Disabled => return Ok(None),
        SessionTickets::Internal => None,
        SessionTickets::Keys(keys) => Some(keys),
        SessionTickets::Sds(_) => materials.ticket_keys.as_ref(),
    };
    let tickets: Arc<dyn ProducesTickets> = match given {
        Some(keys) => {
            let keys = keys.0.iter().map(|key| &**key);
            let lifetime = u32::try_from(lifetime).unwrap_or(u32::MAX);
            Arc::new(Tickets::new(keys, lifetime)?)
        }
        None => Ticketer::new().map_err(|error| unusable(&error))?,
    };
    Ok(Some(tickets))
}

impl ClientContext {
    pub(crate) fn new(
        config: &UpstreamTlsContext,
        materials: &Materials,
    ) -> Result<Self, TlsError> {
        let common = &config.common;
        let parameters = Parameters::new(&common.params, TlsVersion::V1_2)?;
        let identity = match materials.certificates.first() {
            Some(certificate) => Some(Arc::new(Identity::of(certificate, &parameters.signatures)?)),
            None => None,
        };
        let verifier = Arc::new(Verifier::new(
            materials.validation.as_deref(),
            Peer::Server,
            false,
            config.auto_sni_san_validation,
            parameters.provider.signature_verification_algorithms,
            &parameters.signatures,
        )?);
        let builder = ClientConfig::builder_with_provider(parameters.provider)
            .with_protocol_versions(&parameters.versions)
            .map_err(|error| unusable(&error))?;
        let mut client = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<_>)
            .with_client_cert_resolver(Arc::new(ClientIdentity(identity.clone())));
        client.enable_secret_extraction = true;
        client.alpn_protocols = alpn(&common.alpn_protocols);
        client.key_log = key_log(common.key_log.as_ref().map(|log| &*log.path))?;
        client.resumption = if config.max_session_keys == 0 {
            Resumption::disabled()
        } else {
            let most = usize::try_from(config.max_session_keys).unwrap_or(usize::MAX);
            Resumption::store(Arc::new(ClientSessionMemoryCache::new(most.min(SESSIONS))))
        };
        Ok(Self {
            config: Arc::new(client),
            identity,
            verifier,
            sni: Arc::clone(&config.sni),
            auto_host_sni: config.auto_host_sni,
        })
    }

    /// The own certificate, for `/certs`.
    pub fn certificates(&self) -> Vec<CertificateDetails> {
        let identity = self.identity.iter();
        identity.map(|identity| identity.details()).collect()
    }

    /// The first trusted certificate, for `/certs`.
    pub fn trusted_ca(&self) -> Option<CertificateDetails> {
        self.verifier.details().cloned()
    }
}

fn key_log(path: Option<&str>) -> Result<Arc<dyn KeyLog>, TlsError> {
    let Some(path) = path else {
        return Ok(Arc::new(rustls::NoKeyLog {}));
    };
    let file = OpenOptions::new().append(true).create(true).open(path);
    let file = file.map_err(|error| {
        TlsError::configuration(format!("unable to open file '{path}': {error}"))
    })?;
    Ok(Arc::new(KeyLogFile(Mutex::new(file))))
}

/// `SSLKEYLOGFILE`'s format.
#[derive(Debug)]
struct KeyLogFile(Mutex<File>);

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        use crate::info::hex;
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        if let Ok(mut file) = self.0.lock() {
            // A log that cannot be written must not end connections.
            let _ = file.write_all(line.as_bytes());
        }
    }
}
