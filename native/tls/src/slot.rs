//! Slots: one for each transport socket of a compiled filter chain or cluster. A slot outlives the secrets that its
//! context was made of; rotation puts a new context in and leaves connections alone.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tidegate_model::tls::{
    Certificates, CommonTlsContext, DownstreamTlsContext, SecretRef, SecretValue, SessionTickets,
    UpstreamTlsContext, Validation, ValidationContext,
};

use crate::context::{ClientContext, Materials, ServerContext};
use crate::error::TlsError;

/// Whoever knows the secrets that have been delivered.
pub trait SecretSource {
    /// `None`: not delivered yet, or removed.
    fn secret(&self, secret: &SecretRef) -> Option<SecretValue>;
}

/// Knows nothing: for contexts that need nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoSecrets;

impl SecretSource for NoSecrets {
    fn secret(&self, _: &SecretRef) -> Option<SecretValue> {
        None
    }
}

/// The transport socket of a filter chain.
#[derive(Debug)]
pub struct ServerSlot {
    config: Arc<DownstreamTlsContext>,
    secrets: Vec<SecretRef>,
    context: ArcSwapOption<ServerContext>,
}

/// A transport socket of a cluster.
#[derive(Debug)]
pub struct ClientSlot {
    config: Arc<UpstreamTlsContext>,
    secrets: Vec<SecretRef>,
    context: ArcSwapOption<ClientContext>,
}

impl ServerSlot {
    /// Ready at once if it waits for no secrets.
    ///
    /// # Errors
    /// Certificates and the like that cannot be used, in Envoy's words.
    pub fn new(config: Arc<DownstreamTlsContext>) -> Result<Arc<Self>, TlsError> {
        let slot = Self {
            secrets: config.secrets(),
            config,
            context: ArcSwapOption::empty(),
        };
        if slot.secrets.is_empty() {
            slot.refresh(&NoSecrets)?;
        }
        Ok(Arc::new(slot))
    }

    pub fn config(&self) -> &Arc<DownstreamTlsContext> {
        &self.config
    }

    /// The secrets that it waits for, each once; empty: it is ready.
    pub fn secrets(&self) -> &[SecretRef] {
        &self.secrets
    }

    /// Makes the context anew from the secrets known; false: some are missing, and nothing has changed.
    ///
    /// # Errors
    /// A secret that cannot be used, in Envoy's words; the last good context stays.
    pub fn refresh(&self, source: &dyn SecretSource) -> Result<bool, TlsError> {
        let Some(mut materials) = materials(&self.config.common, source)? else {
            return Ok(false);
        };
        if let SessionTickets::Sds(secret) = &self.config.session_tickets {
            materials.ticket_keys = match source.secret(secret) {
                Some(SecretValue::SessionTicketKeys(keys)) => Some(keys),
                Some(_) => return Err(wrong_kind(secret, "session_ticket_keys")),
                None => return Ok(false),
            };
        }
        let context = ServerContext::new(&self.config, &materials)?;
        self.context.store(Some(Arc::new(context)));
        Ok(true)
    }

    /// `None`: it still waits for secrets.
    #[inline]
    pub fn load(&self) -> Option<Arc<ServerContext>> {
        self.context.load_full()
    }
}

impl ClientSlot {
    /// Ready at once if it waits for no secrets.
    ///
    /// # Errors
    /// Certificates and the like that cannot be used, in Envoy's words.
    pub fn new(config: Arc<UpstreamTlsContext>) -> Result<Arc<Self>, TlsError> {
        let slot = Self {
            secrets: config.common.secrets(),
            config,
            context: ArcSwapOption::empty(),
        };
        if slot.secrets.is_empty() {
            slot.refresh(&NoSecrets)?;
        }
        Ok(Arc::new(slot))
    }

    pub fn config(&self) -> &Arc<UpstreamTlsContext> {
        &self.config
    }

    /// The secrets that it waits for, each once; empty: it is ready.
    pub fn secrets(&self) -> &[SecretRef] {
        &self.secrets
    }

    /// Makes the context anew from the secrets known; false: some are missing, and nothing has changed.
    ///
    /// # Errors
    /// A secret that cannot be used, in Envoy's words; the last good context stays.
    pub fn refresh(&self, source: &dyn SecretSource) -> Result<bool, TlsError> {
        let Some(materials) = materials(&self.config.common, source)? else {
            return Ok(false);
        };
        let context = ClientContext::new(&self.config, &materials)?;
        self.context.store(Some(Arc::new(context)));
        Ok(true)
    }

    /// `None`: it still waits for secrets.
    #[inline]
    pub fn load(&self) -> Option<Arc<ClientContext>> {
        self.context.load_full()
    }
}

fn wrong_kind(secret: &SecretRef, wanted: &str) -> TlsError {
    TlsError::configuration(format!(
        "Unexpected SDS secret: '{}' is not a {wanted}",
        secret.name
    ))
}

/// `None`: a secret is missing.
fn materials(
    common: &CommonTlsContext,
    source: &dyn SecretSource,
) -> Result<Option<Materials>, TlsError> {
    let certificates = match &common.certificates {
        Certificates::Given(given) => given.clone(),
        Certificates::Sds(secrets) => {
            let mut found = Vec::with_capacity(secrets.len());
            for secret in secrets {
                match source.secret(secret) {
                    Some(SecretValue::TlsCertificate(certificate)) => found.push(certificate),
                    Some(_) => return Err(wrong_kind(secret, "tls_certificate")),
                    None => return Ok(None),
                }
            }
            found
        }
    };
    let validation = |secret: &SecretRef| match source.secret(secret) {
        Some(SecretValue::ValidationContext(context)) => Ok(Some(context)),
        Some(_) => Err(wrong_kind(secret, "validation_context")),
        None => Ok(None),
    };
    let validation = match &common.validation {
        Validation::None => None,
        Validation::Given(context) => Some(Arc::clone(context)),
        Validation::Sds(secret) => match validation(secret)? {
            Some(context) => Some(context),
            None => return Ok(None),
        },
        Validation::Combined { default, secret } => match validation(secret)? {
            Some(dynamic) => Some(Arc::new(merge(default, &dynamic))),
            None => return Ok(None),
        },
    };
    if let Some(validation) = &validation {
        validation.check().map_err(TlsError::configuration)?;
    }
    Ok(Some(Materials {
        certificates,
        validation,
        ticket_keys: None,
    }))
}

/// As protobuf merges: what the dynamic one sets counts, lists are appended.
fn merge(default: &ValidationContext, dynamic: &ValidationContext) -> ValidationContext {
    let mut merged = default.clone();
    if dynamic.trusted_ca.is_some() {
        merged.trusted_ca.clone_from(&dynamic.trusted_ca);
    }
    if dynamic.crl.is_some() {
        merged.crl.clone_from(&dynamic.crl);
    }
    if dynamic.max_verify_depth.is_some() {
        merged.max_verify_depth = dynamic.max_verify_depth;
    }
    merged.spki_pins.extend(&dynamic.spki_pins);
    merged.hash_pins.extend(&dynamic.hash_pins);
    let sans = dynamic.subject_alt_names.iter().cloned();
    merged.subject_alt_names.extend(sans);
    merged.allow_expired_certificate |= dynamic.allow_expired_certificate;
    merged.accept_untrusted |= dynamic.accept_untrusted;
    merged.only_verify_leaf_cert_crl |= dynamic.only_verify_leaf_cert_crl;
    merged
}
