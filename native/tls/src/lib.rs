//! TLS sessions without sockets, and the contexts that they come from; the only crate of the proxy that sees rustls.
//!
//! A transport socket of the configuration becomes a [`ServerSlot`] or [`ClientSlot`], which holds a context as soon
//! as its secrets are there. A connection is a [`Session`] of the context that it found when it began. Cryptography is
//! aws-lc's, the handshake rustls's, chains are webpki's, certificates are read by x509-parser; what is here is how
//! Envoy uses them.
//!
//! This crate must not know sockets, clocks other than rustls's own, protobuf, or where secrets come from.

mod chain;
mod context;
mod error;
mod established;
mod handshake;
mod hello;
mod identity;
mod info;
mod params;
mod record;
mod san;
mod scratch;
mod session;
mod slot;
mod ticket;
mod verify;

#[cfg(test)]
mod tests;

pub use context::{ClientContext, ServerContext};
pub use error::{Failure, TlsError};
pub use info::{CertificateDetails, CertificateInfo, PeerCertificate, TlsInfo};
pub use session::{ClientOptions, Received, Session};
pub use slot::{ClientSlot, NoSecrets, SecretSource, ServerSlot};
