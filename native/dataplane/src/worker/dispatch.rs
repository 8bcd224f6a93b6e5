//! Which handler an occupant has: the one place that knows all kinds of connections.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use super::Worker;
use crate::conn::{After, Conn, Event, Key};

impl Worker {
    /// Takes the connection out of its slot, lets it handle the event, and puts it back or drops it. A panic costs this
    /// connection only.
    pub(crate) fn dispatch(&mut self, key: Key, event: Event) {
        let Some(mut conn) = self.conns.take(key) else {
            return;
        };
        let result = catch_unwind(AssertUnwindSafe(|| self.handle(&mut conn, key, event)));
        match result {
            Ok(After::Keep) => self.conns.put(key, conn),
            Ok(After::Close) => {
                drop(conn);
                self.conns.remove(key);
            }
            Err(_) => {
                self.count_panic();
                self.conns.remove(key);
                // Its guards' own destructors must not take the worker down either.
                let _second = catch_unwind(AssertUnwindSafe(|| drop(conn)));
            }
        }
    }

    #[inline]
    fn handle(&mut self, conn: &mut Conn, key: Key, event: Event) -> After {
        match conn {
            Conn::Http(conn) => conn.on_event(self, key, event),
            Conn::Upstream(conn) => conn.on_event(self, key, event),
            Conn::Call(call) => call.on_event(self, event),
            Conn::Statsd(connection) => connection.on_event(self, event),
            Conn::TcpProxy(session) => session.on_event(self, key, event),
            Conn::Waiting(waiting) => waiting.on_event(self, key, event),
            Conn::Acceptor(acceptor) => acceptor.on_event(self, key, event),
        }
    }

    pub(super) fn count_panic(&self) {
        self.core
            .shared
            .panics_total
            .fetch_add(1, Ordering::Relaxed);
    }
}
