//! A connection whose chain has other network filters before the connection manager.

use super::{Phase, ServerConnection};
use crate::network::connection_log::ConnectionLog;
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

    /// The filters hear of the end.
    pub(super) fn end_filters(&mut self, core: &mut Core) {
        let Some(mut filters) = self.downstream.filters.take() else {
            return;
        };
        let mut log = ConnectionLog::new(core, &self.downstream.listener, &self.downstream.info);
        log.flags = filters.state.flags;
        log.filter_chain = Some(&self.downstream.chain.config.name);
        let details = filters.state.termination_details.clone();
        log.termination_details = details.as_ref();
        filters.end(core, &log);
    }
}
