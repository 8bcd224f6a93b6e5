//! A connection whose chain has other network filters before the connection manager.

use tidegate_snapshot::ResponseFlags;

use super::{Phase, ServerConnection};
use crate::network::connection_log::{self, ConnectionLog};
use crate::network::read_filters::{FilterContext, Passed, ReadFilters};
use crate::worker::{Core, Worker};

impl ServerConnection {
    fn ask<T>(
        &mut self,
        core: &mut Core,
        ask: impl FnOnce(&mut ReadFilters, &mut FilterContext<'_>) -> T,
    ) -> Option<T> {
        let filters = self.downstream.filters.as_deref_mut()?;
        let mut context = FilterContext {
            core,
            key: self.key,
            info: &self.downstream.info,
            listener: &self.downstream.listener,
            chain: &self.downstream.chain,
        };
        Some(ask(filters, &mut context))
    }

    pub(super) fn start_filters(&mut self, worker: &mut Worker) {
        let passed = self.ask(&mut worker.core, ReadFilters::start);
        self.take_passed(worker, passed);
    }

    pub(super) fn resume_filters(&mut self, worker: &mut Worker) {
        let passed = self.ask(&mut worker.core, ReadFilters::resume);
        self.take_passed(worker, passed);
        self.read(worker);
    }

    pub(super) fn filter_input(&mut self, worker: &mut Worker, bytes: &[u8]) {
        let passed = self.ask(&mut worker.core, |filters, context| {
            filters.feed(context, bytes, false)
        });
        self.take_passed(worker, passed);
    }

    fn take_passed(&mut self, worker: &mut Worker, passed: Option<Passed<'_>>) {
        if let Some(filters) = &mut self.downstream.filters
            && !filters.state.reply.is_empty()
        {
            let reply = std::mem::take(&mut filters.state.reply);
            self.write(&mut worker.core, &[&reply]);
        }
        match passed {
            Some(Passed::On(bytes)) if !bytes.is_empty() => self.take_input(worker, &bytes),
            Some(Passed::Close) => self.phase = Phase::Closed,
            Some(Passed::On(_) | Passed::Stay) | None => {}
        }
    }

    /// The end of the connection: the listener's access log has a line, and the filters hear of it.
    pub(super) fn log_connection(&mut self, core: &mut Core) {
        let mut filters = self.downstream.filters.take();
        let logs = &self.downstream.listener.compiled.access_log;
        if logs.is_empty() && filters.is_none() {
            return;
        }
        if self.downstream.info.tls.is_none() {
            self.downstream.info.tls = self.downstream.transport.failed_info();
        }
        let mut log = ConnectionLog::new(core, &self.downstream.listener, &self.downstream.info);
        log.transport_failure = self.downstream.transport.failure();
        log.filter_chain = Some(&self.downstream.chain.config.name);
        (log.bytes_received, log.bytes_sent) = self.bytes;
        log.protocol = match (&self.http2, self.spoken) {
            (Some(_), _) => Some("HTTP/2"),
            (None, true) if !self.protocol_error => Some("HTTP/1.1"),
            _ => None,
        };
        if self.protocol_error {
            log.flags.insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
        }
        let details = filters.as_ref().and_then(|filters| {
            log.flags.insert(filters.state.flags);
            filters.state.termination_details.clone()
        });
        log.termination_details = details.as_ref();
        connection_log::write(core, logs, &log);
        if let Some(filters) = &mut filters {
            filters.end(core, &log);
        }
    }
}
