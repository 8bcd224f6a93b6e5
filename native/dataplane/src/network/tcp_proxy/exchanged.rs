//! A TCP proxy connection whose client or host exchanges metadata: what is said ahead of the traffic.

use super::super::metadata_exchange::UpstreamExchange;
use super::super::read_filters::ReadFilters;
use super::{Ending, TcpProxySession};
use crate::conn::{After, Key};
use crate::worker::Worker;

impl TcpProxySession {
    /// The host is connected: says who we are, if its cluster wants that.
    /// `queued`: so much of what waits for the client is not the host's.
    pub(super) fn begin_exchange(&mut self, worker: &mut Worker, queued: usize) {
        if let Some(upstream) = &self.upstream
            && let Some(config) = &upstream.cluster().config.metadata_exchange
        {
            let mut greeting = Vec::new();
            let mut exchange = UpstreamExchange::new(config);
            exchange.begin(&mut worker.core, upstream.negotiated(), &mut greeting);
            if exchange.is_reading() {
                self.up.queue_ahead(&mut worker.core, &greeting);
                // The end of the handshake may have brought the beginning of it.
                let early = self.down.take_behind(&mut worker.core, queued);
                if !early.is_empty() {
                    let rest = exchange.receive(&mut worker.core, &early, self.down.eof);
                    self.down.queue(&mut worker.core, &rest);
                }
            }
            self.exchange = Some(Box::new(exchange));
        }
    }

    /// The filters may have something to say ahead of the first bytes for the client.
    pub(super) fn before_first_write(&mut self, worker: &mut Worker, key: Key) {
        let speaks = self.upstream.as_ref().is_some_and(|upstream| {
            upstream.is_connected() && (upstream.end.readable || self.down.buffered() > 0)
        });
        if speaks
            && !self.downstream.transport.is_handshaking()
            && self.ask(&mut worker.core, key, ReadFilters::before_write) == Some(true)
            && let Some(filters) = &mut self.filters
        {
            // What the host has said meanwhile waits behind it.
            let reply = std::mem::take(&mut filters.state.reply);
            self.down.queue_ahead(&mut worker.core, &reply);
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
            let received = self
                .down
                .receive(&mut worker.core, &mut upstream.end, &mut buf);
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
