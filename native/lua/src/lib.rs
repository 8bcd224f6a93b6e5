//! Lua scripts of the HTTP filter `envoy.filters.http.lua`: LuaJIT, and Envoy's documented API around it.
//!
//! A [`Script`] is one source in one worker: a Lua state of its own, in which the source has been run. A [`Run`] is one call of
//! `envoy_on_request` or `envoy_on_response`, a coroutine. It goes until it is over or waits for something that only its caller
//! can give ([`Step`]):
//!
//! ```text
//! begin ─▶ resume(host, Start) ─▶ Waits(Body | Chunk | Trailers | Call | Respond) ─▶ resume(host, what has come) ─▶ … ─▶ Done
//! ```
//!
//! What the script may see and change is lent to it as a [`Host`] for as long as it runs, and objects that it keeps longer are
//! dead, as in Envoy. Knows no socket, no configuration and nothing of how a stream is kept: the only crate that sees mlua.

mod api;
mod host;
mod session;
mod value;

use std::rc::Rc;

use mlua::{Function, IntoLuaMulti, Lua, LuaOptions, MultiValue, StdLib, Thread, ThreadStatus};

pub use self::host::{Host, Level, List, Metadata, SslList, SslNumber, SslText, Text};
use self::session::{HANDLE, Object, Session, TRAILERS};
pub use self::session::{Headers, HttpCall, Respond, Wait};

/// Which of the functions a run is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

/// See the crate.
pub struct Script<H: Host> {
    lua: Lua,
    on_request: Option<Function>,
    on_response: Option<Function>,
    host: std::marker::PhantomData<H>,
}

/// What has come that a run has waited for.
#[derive(Debug)]
pub enum Event {
    Start,
    /// The whole body. `None`: there is none.
    Body(Option<Vec<u8>>),
    /// A piece of the body, or nothing more of it.
    Chunk(Option<Vec<u8>>),
    /// The end: there are trailers, or not.
    Trailers,
    /// The answer to a call.
    Answer {
        /// `:status` included.
        headers: Headers,
        body: Vec<u8>,
    },
    /// A call that nobody waits for has been sent.
    Sent,
    /// What was asked for cannot be: an error in the script.
    Refused(&'static str),
}

/// How far a run has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Done,
    /// With Lua's message.
    Failed(String),
    Waits(Wait),
}

/// See the crate.
pub struct Run<H: Host> {
    lua: Lua,
    thread: Thread,
    session: Rc<Session<H>>,
}

/// Whether a source can be loaded: compiled, and run. Else Lua's message.
pub fn check(source: &[u8]) -> Result<(), String> {
    let lua = state().map_err(|error| text_of(&error))?;
    load(&lua, source)
}

/// All standard libraries but those that know no memory safety (`ffi`, `debug`).
fn state() -> mlua::Result<Lua> {
    let lua = Lua::new_with(StdLib::ALL_SAFE, LuaOptions::default())?;
    lua.load(include_str!("missing.lua"))
        .set_name("=tidegate")
        .exec()?;
    Ok(lua)
}

fn load(lua: &Lua, source: &[u8]) -> Result<(), String> {
    // A chunk that is its own name, as `luaL_loadstring` has it: Lua's messages quote its first line.
    let name = String::from_utf8_lossy(source);
    lua.load(source)
        .set_name(name)
        .set_mode(mlua::ChunkMode::Text)
        .exec()
        .map_err(|error| text_of(&error))
}

/// Lua's message, without the traceback.
fn text_of(error: &mlua::Error) -> String {
    let text = match error {
        mlua::Error::RuntimeError(text) => text.clone(),
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        mlua::Error::CallbackError { cause, .. } => return text_of(cause),
        other => other.to_string(),
    };
    let end = text.find("\nstack traceback:");
    match end.and_then(|end| text.get(..end)) {
        Some(head) => head.to_owned(),
        None => text,
    }
}

impl<H: Host> Script<H> {
    /// Runs a source in a state of its own.
    pub fn load(source: &[u8]) -> Result<Self, String> {
        let lua = state().map_err(|error| text_of(&error))?;
        api::register::<H>(&lua).map_err(|error| text_of(&error))?;
        load(&lua, source)?;
        let function = |name: &str| lua.globals().get::<Option<Function>>(name).ok().flatten();
        Ok(Self {
            on_request: function("envoy_on_request"),
            on_response: function("envoy_on_response"),
            lua,
            host: std::marker::PhantomData,
        })
    }

    /// A call of the function of that side. `None`: the script has none. `ends`: no body and no trailers follow.
    pub fn begin(&self, side: Side, ends: bool) -> Option<Run<H>> {
        let function = match side {
            Side::Request => &self.on_request,
            Side::Response => &self.on_response,
        };
        // Memory is all that can lack.
        let thread = self.lua.create_thread(function.clone()?).ok()?;
        Some(Run {
            lua: self.lua.clone(),
            thread,
            session: Rc::new(Session::new(side, ends)),
        })
    }
}

impl<H: Host> Run<H> {
    /// Goes on with what has come. The host is given back.
    pub fn resume(&self, host: Box<H>, event: Event) -> (Box<H>, Step) {
        let session = &self.session;
        session.enter(host);
        let step = match self.go_on(event) {
            Ok(step) => step,
            Err(error) => Step::Failed(text_of(&error)),
        };
        (session.leave(), step)
    }

    fn go_on(&self, event: Event) -> mlua::Result<Step> {
        let session = &self.session;
        let arguments = self.arguments(event)?;
        let _results: MultiValue = self.thread.resume(arguments)?;
        if self.thread.status() != ThreadStatus::Resumable {
            return Ok(Step::Done);
        }
        Ok(match session.wait.take() {
            Some(wait) => Step::Waits(wait),
            None => Step::Failed("script performed an unexpected yield".to_owned()),
        })
    }

    /// What the function that waits returns: whether it has succeeded, and with what.
    fn arguments(&self, event: Event) -> mlua::Result<MultiValue> {
        let (lua, session) = (&self.lua, &self.session);
        match event {
            Event::Start => {
                let handle = lua.create_any_userdata(Object::<H, HANDLE>::new(session))?;
                handle.into_lua_multi(lua)
            }
            Event::Body(body) => {
                session.ended.set(true);
                match body {
                    Some(body) => {
                        session.saw_body.set(true);
                        session.body.replace(Some(body));
                        (true, api::buffer(lua, session)?).into_lua_multi(lua)
                    }
                    None => true.into_lua_multi(lua),
                }
            }
            Event::Chunk(Some(chunk)) => {
                session.saw_body.set(true);
                session.body.replace(Some(chunk));
                (true, api::buffer(lua, session)?).into_lua_multi(lua)
            }
            Event::Chunk(None) => true.into_lua_multi(lua),
            Event::Trailers if session.has_trailers.get() => {
                let trailers = lua.create_any_userdata(Object::<H, TRAILERS>::new(session))?;
                (true, trailers).into_lua_multi(lua)
            }
            Event::Trailers | Event::Sent => true.into_lua_multi(lua),
            Event::Answer { headers, body } => {
                let duplicates = session.duplicates.get();
                let headers = api::answer_headers(lua, &headers, duplicates)?;
                let body = if body.is_empty() {
                    mlua::Value::Nil
                } else {
                    mlua::Value::String(lua.create_string(&body)?)
                };
                (true, headers, body).into_lua_multi(lua)
            }
            Event::Refused(why) => (false, why).into_lua_multi(lua),
        }
    }

    /// Nothing of the body and no trailers come any more.
    pub fn end(&self, trailers: bool) {
        self.session.ended.set(true);
        self.session.has_trailers.set(trailers);
    }

    /// The head has gone on: it may not be changed any more.
    pub fn head_is_gone(&self) {
        self.session.continued.set(true);
    }

    pub fn side(&self) -> Side {
        self.session.side
    }

    /// The body or the piece of it that the script was given, if it has set it anew.
    pub fn changed_body(&self) -> Option<Vec<u8>> {
        let changed = self.session.body_changed.take();
        let body = self.session.body.borrow();
        body.as_ref().filter(|_| changed).cloned()
    }

    /// The script wants the route to be found anew.
    pub fn wants_new_route(&self) -> bool {
        self.session.clear_route.take()
    }
}

impl<H: Host> Drop for Run<H> {
    fn drop(&mut self) {
        // The script may have kept its handle in a global.
        self.session.body.take();
    }
}

#[cfg(test)]
mod tests;
