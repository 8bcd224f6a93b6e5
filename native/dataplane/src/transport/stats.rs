//! What is counted of TLS connections: `ssl.` of a listener or a cluster.

use std::cell::RefCell;
use tidegate_stats::defs::ssl as stat;

use tidegate_stats::{Group, Local, NamedCounter, Registry};
use tidegate_tls::{Failure, TlsError, TlsInfo};

/// The groups of a listener or cluster that has TLS, there from the start as Envoy's are.
#[derive(Debug, Clone)]
pub(crate) struct SslStats {
    prefix: String,
    ssl: Group<stat::Ssl>,
    factory: Group<stat::SslSocketFactory>,
    registry: Registry,
}

impl SslStats {
    /// `prefix`: `listener.ADDRESS.` or `cluster.NAME.`; `factory`: `server_ssl_socket_factory.` or the client's.
    pub(crate) fn new(registry: &Registry, prefix: &str, factory: &str) -> Self {
        Self {
            ssl: registry.group(&format!("{prefix}ssl.")),
            factory: registry.group(&format!("{prefix}{factory}")),
            prefix: format!("{prefix}ssl."),
            registry: registry.clone(),
        }
    }
}

/// [`SslStats`] in one worker.
#[derive(Debug)]
pub(crate) struct TlsStats {
    ssl: Local<stat::Ssl>,
    pub(crate) factory: Local<stat::SslSocketFactory>,
    /// What this worker's handshakes have agreed on: few things, found without a lock.
    agreed: RefCell<Vec<Agreed>>,
    shared: SslStats,
}

/// `ssl.ciphers.NAME` and its like; Envoy makes them when they are first counted.
#[derive(Debug)]
struct Agreed {
    kind: &'static str,
    what: &'static str,
    counter: NamedCounter,
}

impl TlsStats {
    pub(crate) fn new(shared: &SslStats, worker: usize) -> Self {
        Self {
            ssl: shared.ssl.local(worker),
            factory: shared.factory.local(worker),
            agreed: RefCell::default(),
            shared: shared.clone(),
        }
    }

    /// A handshake is done.
    pub(super) fn established(&self, info: &TlsInfo) {
        self.ssl.inc(stat::HANDSHAKE);
        if info.resumed {
            self.ssl.inc(stat::SESSION_REUSED);
        }
        if info.peer.is_none() {
            self.ssl.inc(stat::NO_CERTIFICATE);
        }
        self.count("ciphers", info.cipher);
        self.count("versions", info.version);
        self.count("curves", info.curve);
        self.count("sigalgs", info.signature_algorithm);
    }

    fn count(&self, kind: &'static str, what: &'static str) {
        if what.is_empty() {
            return;
        }
        let mut agreed = self.agreed.borrow_mut();
        if let Some(known) = agreed
            .iter()
            .find(|known| known.what == what && known.kind == kind)
        {
            known.counter.add(1);
            return;
        }
        let name = format!("{}{kind}.{what}", self.shared.prefix);
        let counter = self.shared.registry.counter(&name);
        counter.add(1);
        agreed.push(Agreed {
            kind,
            what,
            counter,
        });
    }

    pub(super) fn failed(&self, error: &TlsError) {
        self.ssl.inc(match error.failure {
            Failure::VerifyNoCert => stat::FAIL_VERIFY_NO_CERT,
            Failure::VerifyError => stat::FAIL_VERIFY_ERROR,
            Failure::VerifySan => stat::FAIL_VERIFY_SAN,
            Failure::VerifyCertHash => stat::FAIL_VERIFY_CERT_HASH,
            Failure::OcspStaple => {
                self.ssl.inc(stat::OCSP_STAPLE_FAILED);
                stat::CONNECTION_ERROR
            }
            Failure::Connection | Failure::Configuration => stat::CONNECTION_ERROR,
        });
    }
}
