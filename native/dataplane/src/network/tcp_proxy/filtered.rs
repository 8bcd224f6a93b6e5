//! A TCP proxy connection whose chain has other network filters first.
//!
//! As in Envoy the upstream connection is made when those have let the new connection pass, and what they want to see is read
//! when it is there. Until then, and until they have seen enough, bytes take the way through here.

use tidegate_snapshot::ResponseFlags;

use super::super::read_filters::{FilterContext, Passed, ReadFilters};
use super::{Ending, TcpProxySession};
use crate::conn::{After, Key};
use crate::worker::{Core, Worker};

impl TcpProxySession {
    /// Asks the filters something, with the rest of the connection at hand.
    pub(super) fn ask<T>(
        &mut self,
        core: &mut Core,
        key: Key,
        ask: impl FnOnce(&mut ReadFilters, &mut FilterContext<'_>) -> T,
    ) -> Option<T> {
        let filters = self.filters.as_deref_mut()?;
        let mut context = FilterContext {
            core,
            key,
            info: &self.info,
            listener: &self.listener,
            chain: &self.chain,
        };
        Some(ask(filters, &mut context))
    }

    pub(super) fn start_filters(&mut self, worker: &mut Worker, key: Key) -> After {
        let passed = self.ask(&mut worker.core, key, ReadFilters::start);
        match self.take_passed(&mut worker.core, passed) {
            Some(true) => self.establish(worker, key),
            Some(false) => self.wait_for_filters(worker, key),
            None => self.refused(worker),
        }
    }

    pub(super) fn resume_filters(&mut self, worker: &mut Worker, key: Key) -> After {
        let passed = self.ask(&mut worker.core, key, ReadFilters::resume);
        match self.take_passed(&mut worker.core, passed) {
            Some(true) if self.upstream.is_none() => self.establish(worker, key),
            Some(_) => self.pump(worker, key),
            None => self.refused(worker),
        }
    }

    /// Nothing is connected yet, but the client must be heard.
    fn wait_for_filters(&mut self, worker: &mut Worker, key: Key) -> After {
        if self.watch_downstream(worker, key).is_err() {
            return self.finish(worker, Ending::Local);
        }
        self.downstream.readable = true;
        self.pump(worker, key)
    }

    /// Queues what the filters say to the client.
    pub(super) fn say_reply(&mut self, core: &mut Core) {
        if let Some(filters) = &mut self.filters
            && !filters.state.reply.is_empty()
        {
            let reply = std::mem::take(&mut filters.state.reply);
            self.down.queue(core, &reply);
        }
    }

    /// Queues what the filters let through and what they say. `Some(true)`: all have let it pass; `None`: it is refused.
    fn take_passed(&mut self, core: &mut Core, passed: Option<Passed<'_>>) -> Option<bool> {
        self.say_reply(core);
        match passed? {
            Passed::On(bytes) => {
                self.up.queue(core, &bytes);
                Some(true)
            }
            Passed::Stay => Some(false),
            Passed::Close => None,
        }
    }

    fn refused(&mut self, worker: &mut Worker) -> After {
        if let Some(filters) = &self.filters {
            self.flags.insert(filters.state.flags);
        }
        self.finish(worker, Ending::Local)
    }

    /// There may be something to read for the filters, and room for it.
    pub(super) fn is_worth_filtering(&self) -> bool {
        let limit = self.listener.buffer_limit() as usize;
        self.downstream.readable
            && !self.up.eof
            && self.filters.as_deref().is_some_and(|filters| {
                let buffered = filters.held().max(self.up.buffered());
                !filters.is_waiting() && (limit == 0 || buffered < limit)
            })
    }

    /// Reads for the filters as long as they want to see what comes. `Some`: that is all that can be done now.
    pub(super) fn pump_filters(&mut self, worker: &mut Worker, key: Key) -> Option<After> {
        loop {
            if !self.filters.as_deref()?.is_watching() {
                return None;
            }
            if !self.is_worth_filtering() {
                break;
            }
            let limit = self.listener.buffer_limit() as usize;
            let mut buf = worker.core.lend_read_buf();
            let size = if limit == 0 {
                buf.len()
            } else {
                buf.len().min(limit)
            };
            let received = self.up.receive(
                &mut self.downstream,
                buf.get_mut(..size).unwrap_or_default(),
            );
            let outcome = match received {
                Ok(0) if !self.up.eof => Ok(Some(false)),
                Ok(count) => {
                    let bytes = buf.get(..count).unwrap_or_default();
                    let end = self.up.eof;
                    let passed = self.ask(&mut worker.core, key, |filters, context| {
                        filters.feed(context, bytes, end)
                    });
                    Ok(self.take_passed(&mut worker.core, passed))
                }
                Err(error) => Err(error),
            };
            worker.core.return_read_buf(buf);
            match outcome {
                Ok(Some(true)) if self.upstream.is_none() => {
                    return Some(self.establish(worker, key));
                }
                Ok(Some(_)) => {}
                Ok(None) => return Some(self.refused(worker)),
                Err(_) => return Some(self.finish(worker, Ending::DownstreamReset)),
            }
        }
        if self.up.eof && self.upstream.is_none() {
            self.flags
                .insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
            return Some(self.finish(worker, Ending::Local));
        }
        None
    }
}
