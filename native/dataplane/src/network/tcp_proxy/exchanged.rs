//! A TCP proxy connection whose client or host exchanges metadata: what is said ahead of the traffic.

use super::super::metadata_exchange::UpstreamExchange;
use super::super::read_filters::ReadFilters;
use super::{Ending, TcpProxySession};
use crate::conn::{After, Key};
use crate::worker::Worker;

impl TcpProxySession {
    /// The host is connected: says who we are, if its cluster wants that.
    pub(super) fn begin_exchange(&mut self, worker: &mut Worker) -> Vec<u8> {
        let mut greeting = Vec::new();
        if let Some(upstream) = &self.upstream
            && let Some(config) = &upstream.cluster().config.metadata_exchange
        {
            let mut exchange = UpstreamExchange::new(config);
            exchange.begin(&mut worker.core, upstream.negotiated(), &mut greeting);
            self.exchange = Some(Box::new(exchange));
        }
        greeting
    }

    /// The filters may have something to say ahead of the first bytes for the client.
    pub(super) fn before_first_write(&mut self, worker: &mut Worker, key: Key) {
        let speaks = self.upstream.as_ref().is_some_and(|upstream| {
            upstream.is_connected() && (upstream.end.readable || self.down.buffered() > 0)
        });
        if speaks && self.ask(&mut worker.core, key, ReadFilters::before_write) == Some(true) {
            self.say_reply(&mut worker.core);
        }
    }

    /// Reads for the exchange until the host's message is complete. `Some`: the connection is over.
    pub(super) fn pump_exchange(&mut self, worker: &mut Worker) -> Option<After> {
        loop {
            let (Some(exchange), Some(upstream)) = (&mut self.exchange, &mut self.upstream) else {
                return None;
            };
            if !exchange.is_reading() || !upstream.end.readable || self.down.eof {
                return None;
            }
            let mut buf = worker.core.lend_read_buf();
            let received = self.down.receive(&mut upstream.end, &mut buf);
            let outcome = match received {
                Ok(0) if !self.down.eof => Ok(false),
                Ok(count) => {
                    let bytes = buf.get(..count).unwrap_or_default();
                    let rest = exchange.receive(&mut worker.core, bytes, self.down.eof);
                    self.down.queue(&mut worker.core, &rest);
                    Ok(true)
                }
                Err(error) => Err(error),
            };
            worker.core.return_read_buf(buf);
            match outcome {
                Ok(true) => {}
                Ok(false) => return None,
                Err(_) => return Some(self.finish(worker, Ending::UpstreamReset)),
            }
        }
    }
}
