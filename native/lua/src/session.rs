//! What a run and the objects in its script's hands share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::Side;
use crate::host::Host;

/// Names in lower case, and values.
pub type Headers = Vec<(Vec<u8>, Vec<u8>)>;

/// What a run waits for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wait {
    /// The whole body.
    Body,
    /// A piece of the body; the head may go.
    Chunk,
    /// The end of the body; the head may go.
    Trailers,
    /// The answer to a call.
    Call(HttpCall),
    /// Nothing: the request is to be answered so.
    Respond(Respond),
}

/// A request of the script's.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpCall {
    pub cluster: String,
    pub method: Vec<u8>,
    pub path: Vec<u8>,
    pub authority: Vec<u8>,
    /// The others, in lower case.
    pub headers: Headers,
    pub body: Option<Vec<u8>>,
    /// 0: none.
    pub timeout_ms: u64,
    /// Nobody waits for the answer.
    pub asynchronous: bool,
    pub send_xff: bool,
}

/// An answer of the script's.
#[derive(Debug, PartialEq, Eq)]
pub struct Respond {
    pub status: u16,
    /// Without pseudo headers, in lower case.
    pub headers: Headers,
    pub body: Option<Vec<u8>>,
}

/// See the module.
pub(crate) struct Session<H> {
    /// Here while the script runs.
    host: RefCell<Option<Box<H>>>,
    /// Counts the times that it was resumed: objects of earlier times are dead.
    pub(crate) epoch: Cell<u32>,
    pub(crate) side: Side,
    pub(crate) wait: RefCell<Option<Wait>>,
    pub(crate) ended: Cell<bool>,
    pub(crate) has_trailers: Cell<bool>,
    pub(crate) saw_body: Cell<bool>,
    pub(crate) buffers_body: Cell<bool>,
    pub(crate) continued: Cell<bool>,
    /// The body or the piece of it that the script is given.
    pub(crate) body: RefCell<Option<Vec<u8>>>,
    pub(crate) body_changed: Cell<bool>,
    pub(crate) clear_route: Cell<bool>,
    /// A bit for each kind of object that is being iterated over.
    pub(crate) iterating: Cell<u8>,
    /// `return_duplicate_headers` of the call under way.
    pub(crate) duplicates: Cell<bool>,
}

pub(crate) const DEAD: &str = "object used outside of proper scope";

impl<H: Host> Session<H> {
    pub(crate) fn new(side: Side, ends: bool) -> Self {
        Self {
            host: RefCell::new(None),
            epoch: Cell::new(0),
            side,
            wait: RefCell::new(None),
            ended: Cell::new(ends),
            has_trailers: Cell::new(false),
            saw_body: Cell::new(false),
            buffers_body: Cell::new(false),
            continued: Cell::new(false),
            body: RefCell::new(None),
            body_changed: Cell::new(false),
            clear_route: Cell::new(false),
            iterating: Cell::new(0),
            duplicates: Cell::new(false),
        }
    }

    pub(crate) fn enter(&self, host: Box<H>) {
        self.epoch.set(self.epoch.get().wrapping_add(1));
        self.iterating.set(0);
        self.host.replace(Some(host));
    }

    #[expect(
        clippy::expect_used,
        clippy::unnecessary_box_returns,
        reason = "who leaves has entered, and nobody else takes the host, which is where it is"
    )]
    pub(crate) fn leave(&self) -> Box<H> {
        self.host.take().expect("the host")
    }

    /// The host, as long as the script runs.
    pub(crate) fn with<T>(&self, ask: impl FnOnce(&mut H) -> T) -> Result<T, String> {
        let mut host = self.host.try_borrow_mut().map_err(|_| DEAD.to_owned())?;
        match host.as_deref_mut() {
            Some(host) => Ok(ask(host)),
            None => Err(DEAD.to_owned()),
        }
    }
}

pub(crate) const HANDLE: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const TRAILERS: u8 = 2;
pub(crate) const BUFFER: u8 = 3;
pub(crate) const METADATA: u8 = 4;
pub(crate) const FILTER_CONTEXT: u8 = 5;
pub(crate) const STREAM_INFO: u8 = 6;
pub(crate) const DYNAMIC: u8 = 7;
pub(crate) const CONNECTION: u8 = 8;
pub(crate) const SSL: u8 = 9;
pub(crate) const CONNECTION_INFO: u8 = 10;

/// An object in a script's hands; what it is tells `KIND`.
pub(crate) struct Object<H: 'static, const KIND: u8> {
    session: Rc<Session<H>>,
    epoch: u32,
}

impl<H: Host, const KIND: u8> Object<H, KIND> {
    pub(crate) fn new(session: &Rc<Session<H>>) -> Self {
        Self {
            session: Rc::clone(session),
            epoch: session.epoch.get(),
        }
    }

    /// Its session, if it is alive. Handles live as long as their run.
    pub(crate) fn session(&self) -> Result<&Rc<Session<H>>, String> {
        self.session.with(|_| ())?;
        if KIND != HANDLE && self.epoch != self.session.epoch.get() {
            return Err(DEAD.to_owned());
        }
        Ok(&self.session)
    }
}
