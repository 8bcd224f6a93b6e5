//! Session tickets under keys that were given, so that several proxies can resume each other's sessions.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use rustls::server::ProducesTickets;

use crate::error::TlsError;

/// What Envoy takes: a name of 16 bytes, and 64 of key.
const KEY: usize = 80;
const NAME: usize = 16;
const NONCE: usize = 12;

/// The first key encrypts, all decrypt.
#[derive(Debug)]
pub(crate) struct Tickets {
    keys: Vec<([u8; NAME], RandomizedNonceKey)>,
    lifetime: u32,
}

impl Tickets {
    /// `lifetime` in seconds.
    pub(crate) fn new<'k>(
        keys: impl Iterator<Item = &'k [u8]>,
        lifetime: u32,
    ) -> Result<Self, TlsError> {
        let mut tickets = Self {
            keys: Vec::new(),
            lifetime,
        };
        for key in keys {
            let name = key.first_chunk::<NAME>().filter(|_| key.len() == KEY);
            let Some(name) = name else {
                return Err(TlsError::configuration(format!(
                    "Incorrect TLS session ticket key length. Length {}, expected length {KEY}.",
                    key.len()
                )));
            };
            let secret = digest(&SHA256, key.get(NAME..).unwrap_or_default());
            let secret = RandomizedNonceKey::new(&AES_256_GCM, secret.as_ref())
                .map_err(|_| TlsError::internal("ticket key"))?;
            tickets.keys.push((*name, secret));
        }
        Ok(tickets)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.keys.is_empty()
    }

    fn lifetime(&self) -> u32 {
        self.lifetime
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let (name, key) = self.keys.first()?;
        let mut sealed = plain.to_vec();
        let nonce = key
            .seal_in_place_append_tag(Aad::from(name), &mut sealed)
            .ok()?;
        Some([name.as_slice(), nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = cipher.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE)?;
        let (_, key) = self.keys.iter().find(|(known, _)| known == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let length = key
            .open_in_place(nonce, Aad::from(name), &mut plain)
            .ok()?
            .len();
        plain.truncate(length);
        Some(plain)
    }
}
