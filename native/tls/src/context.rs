//! Contexts: everything that connections of one transport socket share, made from the model and the secrets known.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::CryptoProvider;
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
use crate::hello::ClientHello;
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
    /// With our protocols.
    config: Variants,
    /// For clients that offer none of our protocols; `None`: we have none ourselves.
    without_alpn: Option<Variants>,
    tls13: bool,
    identities: Arc<ServerIdentities>,
    verifier: Arc<Verifier>,
}

/// One configuration, for what clients prefer.
#[derive(Debug)]
struct Variants {
    /// The client's order counts: TLS 1.3, `prefer_client_ciphers`.
    client_order: Arc<ServerConfig>,
    /// Ours does.
    server_order: Arc<ServerConfig>,
    /// Ours, but for ChaCha20-Poly1305 before AES-128-GCM, which are equal in Envoy's default list.
    chacha_first: Arc<ServerConfig>,
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
        ));
        let make = |provider: &Arc<CryptoProvider>| {
            let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
                .with_protocol_versions(&parameters.versions)
                .map_err(|error| unusable(&error))?;
            Ok(builder
                .with_client_cert_verifier(Arc::clone(&verifier) as Arc<_>)
                .with_cert_resolver(Arc::clone(&identities) as Arc<_>))
        };
        let mut server = make(&parameters.provider)?;
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
        let is_default = common.params.cipher_suites.is_empty();
        let chacha = (is_default && !config.prefer_client_ciphers)
            .then(|| make(&parameters.chacha_first()))
            .transpose()?;
        let variants = |protocols: Vec<Vec<u8>>| {
            let with = |other: Option<&ServerConfig>, ignore_client_order| {
                let mut variant = other.unwrap_or(&server).clone();
                if other.is_some() {
                    variant.enable_secret_extraction = true;
                    variant.key_log = Arc::clone(&server.key_log);
                    variant.session_storage = Arc::clone(&server.session_storage);
                    variant.ticketer = Arc::clone(&server.ticketer);
                    variant.send_tls13_tickets = server.send_tls13_tickets;
                }
                variant.ignore_client_order = ignore_client_order;
                variant.alpn_protocols.clone_from(&protocols);
                Arc::new(variant)
            };
            let client_order = with(None, false);
            let server_order = if config.prefer_client_ciphers {
                Arc::clone(&client_order)
            } else {
                with(None, true)
            };
            Variants {
                chacha_first: match &chacha {
                    Some(chacha) => with(Some(chacha), true),
                    None => Arc::clone(&server_order),
                },
                client_order,
                server_order,
            }
        };
        let protocols = alpn(&common.alpn_protocols);
        Ok(Self {
            without_alpn: (!protocols.is_empty()).then(|| variants(Vec::new())),
            config: variants(protocols),
            tls13: parameters.versions.contains(&&rustls::version::TLS13),
            identities,
            verifier,
        })
    }

    pub(crate) fn alpn_protocols(&self) -> &[Vec<u8>] {
        &self.config.server_order.alpn_protocols
    }

    /// The configuration for a client.
    pub(crate) fn config_for(&self, hello: ClientHello) -> &Arc<ServerConfig> {
        let without = self.without_alpn.as_ref().filter(|_| hello.no_overlap);
        let variants = without.unwrap_or(&self.config);
        if hello.tls13 && self.tls13 {
            &variants.client_order
        } else if hello.chacha_first {
            &variants.chacha_first
        } else {
            &variants.server_order
        }
    }

    pub(crate) fn first_identity(&self) -> Option<Arc<Identity>> {
        self.identities.identities.first().map(Arc::clone)
    }

    /// Own certificates, for `/certs`.
    pub fn certificates(&self) -> Vec<CertificateDetails> {
        let identities = self.identities.identities.iter();
        identities.map(|identity| identity.details()).collect()
    }

    /// The first trusted certificate, for `/certs`.
    pub fn trusted_ca(&self) -> Vec<CertificateDetails> {
        self.verifier.details()
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
        let mut verifier = Verifier::new(
            materials.validation.as_deref(),
            Peer::Server,
            false,
            config.auto_sni_san_validation,
            parameters.provider.signature_verification_algorithms,
            &parameters.signatures,
        )?;
        if !config.enforce_rsa_key_usage {
            verifier = verifier.tolerate_rsa_key_usage();
        }
        let verifier = Arc::new(verifier);
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
    pub fn trusted_ca(&self) -> Vec<CertificateDetails> {
        self.verifier.details()
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
