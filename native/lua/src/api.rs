//! Envoy's API, method by method: `prelude.lua` puts its objects together of the functions here.

mod handle;
mod headers;
mod info;

use std::rc::Rc;

use mlua::{
    AnyUserData, Function, IntoLuaMulti, Lua, MultiValue, String as LuaString, Table,
    UserDataFields as _, UserDataRegistry, Value,
};

use crate::host::Host;
use crate::session::{
    BUFFER, CONNECTION, CONNECTION_INFO, DYNAMIC, FILTER_CONTEXT, HANDLE, HEADERS, Headers,
    METADATA, Object, SSL, STREAM_INFO, Session, TRAILERS,
};
use crate::value::type_name;

/// What a method comes to: its results, or the text of an error.
type Outcome = Result<MultiValue, String>;

type Method<H> = fn(&Call<'_, H>) -> Outcome;

/// A call of a method.
struct Call<'l, H: Host> {
    lua: &'l Lua,
    session: &'l Rc<Session<H>>,
    name: &'static str,
    arguments: Vec<Value>,
}

fn of_lua(error: mlua::Error) -> String {
    error.to_string()
}

impl<H: Host> Call<'_, H> {
    fn host<T>(&self, ask: impl FnOnce(&mut H) -> T) -> Result<T, String> {
        self.session.with(ask)
    }

    fn bad(&self, at: usize, wanted: &str) -> String {
        let got = self.arguments.get(at).map_or("no value", type_name);
        let (number, name) = (at + 1, self.name);
        format!("bad argument #{number} to '{name}' ({wanted} expected, got {got})")
    }

    /// A string; numbers are taken for one, as Lua does.
    fn text(&self, at: usize) -> Result<LuaString, String> {
        match self.arguments.get(at) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(number @ (Value::Integer(_) | Value::Number(_))) => {
                let text = self.lua.coerce_string(number.clone()).map_err(of_lua)?;
                text.ok_or_else(|| self.bad(at, "string"))
            }
            _ => Err(self.bad(at, "string")),
        }
    }

    /// A string, if there is one.
    fn opt_text(&self, at: usize) -> Result<Option<LuaString>, String> {
        match self.arguments.get(at) {
            None | Some(Value::Nil) => Ok(None),
            Some(_) => self.text(at).map(Some),
        }
    }

    fn number(&self, at: usize) -> Result<f64, String> {
        match self.arguments.get(at) {
            Some(Value::Integer(number)) => Ok(*number as f64),
            Some(Value::Number(number)) => Ok(*number),
            Some(text @ Value::String(_)) => {
                let number = self.lua.coerce_number(text.clone()).map_err(of_lua)?;
                number.ok_or_else(|| self.bad(at, "number"))
            }
            _ => Err(self.bad(at, "number")),
        }
    }

    fn table(&self, at: usize) -> Result<&Table, String> {
        match self.arguments.get(at) {
            Some(Value::Table(table)) => Ok(table),
            _ => Err(self.bad(at, "table")),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the others")]
    fn none(&self) -> Outcome {
        Ok(MultiValue::new())
    }

    fn one(&self, value: impl mlua::IntoLua) -> Outcome {
        let value = value.into_lua(self.lua).map_err(of_lua)?;
        Ok(MultiValue::from_iter([value]))
    }

    fn string(&self, text: impl AsRef<[u8]>) -> Outcome {
        self.one(self.lua.create_string(text).map_err(of_lua)?)
    }

    fn object<const KIND: u8>(&self) -> Outcome {
        let object = Object::<H, KIND>::new(self.session);
        self.one(self.lua.create_userdata_of(object).map_err(of_lua)?)
    }

    /// A list of pairs to be iterated over, of which there is one at a time.
    fn iterate(&self, kind: u8, pairs: Vec<Value>) -> Outcome {
        let bit = 1 << (kind & 7);
        let iterating = &self.session.iterating;
        if iterating.get() & bit != 0 {
            return Err("cannot create a second iterator before completing the first".to_owned());
        }
        iterating.set(iterating.get() | bit);
        // A value may be nil: the list says how long it is.
        let list = self.lua.create_table().map_err(of_lua)?;
        list.raw_set("n", pairs.len()).map_err(of_lua)?;
        for (at, value) in pairs.into_iter().enumerate() {
            list.raw_set(at + 1, value).map_err(of_lua)?;
        }
        self.one(list)
    }

    /// A step of an iteration; the argument says whether it was the last.
    fn step(&self, kind: u8) -> Outcome {
        if let Some(Value::Boolean(true)) = self.arguments.first() {
            let iterating = &self.session.iterating;
            iterating.set(iterating.get() & !(1 << (kind & 7)));
        }
        self.none()
    }
}

/// Objects are made where their type is known.
trait CreateUserdata {
    fn create_userdata_of<T: 'static>(&self, object: T) -> mlua::Result<AnyUserData>;
}

impl CreateUserdata for Lua {
    fn create_userdata_of<T: 'static>(&self, object: T) -> mlua::Result<AnyUserData> {
        self.create_any_userdata(object)
    }
}

/// A method of objects of a kind, as `prelude.lua` wants it.
fn method<H: Host, const KIND: u8>(
    lua: &Lua,
    name: &'static str,
    body: Method<H>,
) -> mlua::Result<Function> {
    lua.create_function(move |lua, mut arguments: MultiValue| {
        let this = arguments.pop_front();
        let outcome = match &this {
            Some(Value::UserData(this)) => match this.borrow::<Object<H, KIND>>() {
                Ok(object) => object.session().and_then(|session| {
                    body(&Call {
                        lua,
                        session,
                        name,
                        arguments: arguments.into_iter().collect(),
                    })
                }),
                Err(_) => Err(format!("calling '{name}' on bad self")),
            },
            _ => Err(format!("calling '{name}' on bad self")),
        };
        match outcome {
            Ok(mut results) => {
                results.push_front(Value::Boolean(true));
                Ok(results)
            }
            Err(why) => (false, lua.create_string(why)?).into_lua_multi(lua),
        }
    })
}

/// Fills the table of raw functions.
struct Raw<'l> {
    lua: &'l Lua,
    table: Table,
}

impl Raw<'_> {
    fn add<H: Host, const KIND: u8>(
        &self,
        prefix: &str,
        methods: &[(&'static str, Method<H>)],
    ) -> mlua::Result<()> {
        for (name, body) in methods {
            let function = method::<H, KIND>(self.lua, name, *body)?;
            self.table.raw_set(format!("{prefix}_{name}"), function)?;
        }
        Ok(())
    }
}

/// Makes the API known to a state.
pub(crate) fn register<H: Host>(lua: &Lua) -> mlua::Result<()> {
    let raw = Raw {
        lua,
        table: lua.create_table()?,
    };
    handle::methods::<H>(&raw)?;
    headers::methods::<H>(&raw)?;
    info::methods::<H>(&raw)?;
    let resolutions = lua.create_table()?;
    resolutions.raw_set("MILLISECOND", handle::MILLISECOND)?;
    resolutions.raw_set("MICROSECOND", handle::MICROSECOND)?;
    let prelude = lua.load(include_str!("prelude.lua")).set_name("=tidegate");
    let kit: Table = prelude.call((raw.table, resolutions))?;
    register_kind::<H, HANDLE>(lua, &kit, "handle")?;
    register_kind::<H, HEADERS>(lua, &kit, "headers")?;
    register_kind::<H, TRAILERS>(lua, &kit, "trailers")?;
    register_kind::<H, BUFFER>(lua, &kit, "buffer")?;
    register_kind::<H, METADATA>(lua, &kit, "metadata")?;
    register_kind::<H, FILTER_CONTEXT>(lua, &kit, "filter_context")?;
    register_kind::<H, STREAM_INFO>(lua, &kit, "stream_info")?;
    register_kind::<H, DYNAMIC>(lua, &kit, "dynamic")?;
    register_kind::<H, CONNECTION>(lua, &kit, "connection")?;
    register_kind::<H, CONNECTION_INFO>(lua, &kit, "connection_info")?;
    register_kind::<H, SSL>(lua, &kit, "ssl")
}

fn register_kind<H: Host, const KIND: u8>(lua: &Lua, kit: &Table, name: &str) -> mlua::Result<()> {
    let class: Table = kit.raw_get(name)?;
    let pairs: Option<Function> = kit.raw_get(format!("{name}_pairs"))?;
    lua.register_userdata_type::<Object<H, KIND>>(
        move |registry: &mut UserDataRegistry<Object<H, KIND>>| {
            registry.add_meta_field_with("__index", move |_| Ok(class));
            if let Some(pairs) = pairs {
                registry.add_meta_field_with("__pairs", move |_| Ok(pairs));
            }
        },
    )
}

/// The body or the piece of it that the session has at hand.
pub(crate) fn buffer<H: Host>(lua: &Lua, session: &Rc<Session<H>>) -> mlua::Result<AnyUserData> {
    lua.create_any_userdata(Object::<H, BUFFER>::new(session))
}

/// The headers of an answer: of several by one name the last, unless the script wants them all.
pub(crate) fn answer_headers(
    lua: &Lua,
    headers: &Headers,
    duplicates: bool,
) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    for (name, value) in headers {
        let key = lua.create_string(name)?;
        let value = lua.create_string(value)?;
        if duplicates {
            match table.raw_get::<Value>(&key)? {
                Value::Nil => table.raw_set(key, value)?,
                Value::Table(several) => several.raw_push(value)?,
                first => table.raw_set(
                    key,
                    lua.create_sequence_from([first, Value::String(value)])?,
                )?,
            }
        } else {
            table.raw_set(key, value)?;
        }
    }
    Ok(table)
}
