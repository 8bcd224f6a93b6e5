//! Values of a `Struct` as Lua's, and back.

use mlua::{Lua, Table, Value as Lv};
use serde_json::{Map, Number, Value};

pub(crate) fn table(lua: &Lua, fields: &Map<String, Value>) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, fields.len())?;
    for (key, value) in fields {
        table.raw_set(key.as_str(), to_lua(lua, value)?)?;
    }
    Ok(table)
}

pub(crate) fn to_lua(lua: &Lua, value: &Value) -> mlua::Result<Lv> {
    Ok(match value {
        Value::Null => Lv::Nil,
        Value::Bool(value) => Lv::Boolean(*value),
        Value::Number(number) => Lv::Number(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Lv::String(lua.create_string(text)?),
        Value::Array(list) => {
            let table = lua.create_table_with_capacity(list.len(), 0)?;
            for (at, value) in list.iter().enumerate() {
                table.raw_set(at + 1, to_lua(lua, value)?)?;
            }
            Lv::Table(table)
        }
        Value::Object(fields) => Lv::Table(self::table(lua, fields)?),
    })
}

/// Deeper tables are refused: they may hold themselves.
const DEEPEST: usize = 100;

pub(crate) fn from_lua(value: &Lv) -> Result<Value, String> {
    load(value, 0)
}

fn load(value: &Lv, depth: usize) -> Result<Value, String> {
    if depth > DEEPEST {
        return Err("table nested too deep in dynamicMetadata".to_owned());
    }
    Ok(match value {
        Lv::Nil => Value::Null,
        Lv::Boolean(value) => Value::Bool(*value),
        Lv::Integer(number) => number_of(*number as f64),
        Lv::Number(number) => number_of(*number),
        Lv::String(text) => Value::String(text.to_string_lossy()),
        Lv::Table(table) => match length(table)? {
            0 => Value::Object(fields(table, depth)?),
            length => {
                let mut list = Vec::with_capacity(length);
                for at in 1..=length {
                    let value: Lv = table.raw_get(at).map_err(|error| error.to_string())?;
                    list.push(load(&value, depth + 1)?);
                }
                Value::Array(list)
            }
        },
        other => {
            let name = other.type_name();
            return Err(format!("unexpected type '{name}' in dynamicMetadata"));
        }
    })
}

fn number_of(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// The greatest index of a table of nothing but indices; 0: it is none.
fn length(table: &Table) -> Result<usize, String> {
    const MOST: usize = 1_000_000;
    let mut most = 0;
    for pair in table.pairs::<Lv, Lv>() {
        let (key, _) = pair.map_err(|error| error.to_string())?;
        let index = match key {
            Lv::Integer(index) if index >= 1 => index as usize,
            Lv::Number(index) if index >= 1.0 && index.fract() == 0.0 => index as usize,
            _ => return Ok(0),
        };
        most = most.max(index);
    }
    if most > MOST {
        return Err("list too long in dynamicMetadata".to_owned());
    }
    Ok(most)
}

fn fields(table: &Table, depth: usize) -> Result<Map<String, Value>, String> {
    let mut fields = Map::new();
    for pair in table.pairs::<Lv, Lv>() {
        let (key, value) = pair.map_err(|error| error.to_string())?;
        let Lv::String(key) = key else {
            let name = type_name(&key);
            return Err(format!(
                "unexpected type {name} in table key (only string keys are supported)"
            ));
        };
        fields.insert(key.to_string_lossy(), load(&value, depth + 1)?);
    }
    Ok(fields)
}

/// As Lua calls it.
pub(crate) fn type_name(value: &Lv) -> &'static str {
    match value {
        Lv::Integer(_) | Lv::Number(_) => "number",
        other => other.type_name(),
    }
}
