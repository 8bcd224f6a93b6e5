//! Whoever has requests at upstream connections: a client's connection, or a call of our own.
//!
//! Pools and upstream connections speak to both through this; it only passes on.

use std::rc::Rc;

use super::async_client::Call;
use super::stream::Token;
use super::upstream_http1::Delivered;
use super::upstream_http2::Lost;
use super::{ServerConnection, StreamKey, put_back};
use crate::cluster::HostRuntime;
use crate::conn::{Conn, Key};
use crate::pool::{ClientConnection, PoolFailure};
use crate::worker::Worker;

/// See the module. Out of its slot until [`Requester::put_back`].
pub(crate) enum Requester {
    Client(Box<ServerConnection>),
    Call(Box<Call>),
}

impl Requester {
    /// `None`: it is gone, or in somebody's hands.
    #[inline]
    pub(crate) fn take(worker: &mut Worker, key: Key) -> Option<Self> {
        match worker.conns.take(key)? {
            Conn::Http(connection) => Some(Self::Client(connection)),
            Conn::Call(call) => Some(Self::Call(call)),
            other => {
                worker.conns.put(key, other);
                None
            }
        }
    }

    #[inline]
    pub(crate) fn put_back(self, worker: &mut Worker) {
        match self {
            Self::Client(connection) => put_back(worker, connection),
            Self::Call(call) => worker.conns.put(call.key(), Conn::Call(call)),
        }
    }

    pub(crate) fn on_connection_ready(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        stream: StreamKey,
    ) -> bool {
        match self {
            Self::Client(connection) => connection.on_connection_ready(worker, up, stream),
            Self::Call(call) => call.on_connection_ready(worker, up),
        }
    }

    pub(crate) fn on_pool_failure(
        &mut self,
        worker: &mut Worker,
        stream: StreamKey,
        host: &Rc<HostRuntime>,
        failure: PoolFailure,
    ) {
        match self {
            Self::Client(connection) => connection.on_pool_failure(worker, stream, host, failure),
            Self::Call(call) => call.on_pool_failure(worker, stream, host, failure),
        }
    }

    #[inline]
    pub(crate) fn on_upstream_data(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        stream: StreamKey,
        bytes: &[u8],
    ) -> Delivered {
        match self {
            Self::Client(connection) => connection.on_upstream_data(worker, up, stream, bytes),
            Self::Call(call) => call.on_upstream_data(worker, up, bytes),
        }
    }

    pub(crate) fn on_upstream_closed(
        &mut self,
        worker: &mut Worker,
        up: &ClientConnection,
        stream: StreamKey,
    ) {
        match self {
            Self::Client(connection) => connection.on_upstream_closed(worker, up, stream),
            Self::Call(call) => call.on_upstream_closed(worker, up),
        }
    }

    #[inline]
    pub(crate) fn on_upstream_head(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        stream: StreamKey,
        status: u16,
        end: bool,
    ) {
        match self {
            Self::Client(connection) => {
                connection.on_upstream_head(worker, up, stream, status, end);
            }
            Self::Call(call) => call.on_upstream_head(worker, up, status, end),
        }
    }

    #[inline]
    pub(crate) fn on_upstream_body(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        stream: StreamKey,
        token: Token,
        bytes: &[u8],
        end: bool,
    ) {
        match self {
            Self::Client(connection) => {
                connection.on_upstream_body(worker, up, stream, token, bytes, end);
            }
            Self::Call(call) => call.on_upstream_body(worker, up, token, bytes, end),
        }
    }

    pub(crate) fn on_upstream_trailers(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        stream: StreamKey,
    ) {
        match self {
            Self::Client(connection) => connection.on_upstream_trailers(worker, up, stream),
            Self::Call(call) => call.on_upstream_trailers(worker),
        }
    }

    pub(crate) fn on_upstream_writable(
        &mut self,
        worker: &mut Worker,
        up: &mut ClientConnection,
        stream: StreamKey,
        token: Token,
    ) {
        match self {
            Self::Client(connection) => connection.on_upstream_writable(worker, up, stream, token),
            Self::Call(call) => call.on_upstream_writable(worker, up, token),
        }
    }

    pub(crate) fn on_upstream_lost(&mut self, worker: &mut Worker, stream: StreamKey, lost: Lost) {
        match self {
            Self::Client(connection) => connection.on_upstream_lost(worker, stream, lost),
            Self::Call(call) => call.on_upstream_lost(worker, lost),
        }
    }
}
