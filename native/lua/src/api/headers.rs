//! Headers, trailers and buffers.

use mlua::Value;

use super::{Call, Outcome, Raw, of_lua};
use crate::Side;
use crate::host::{Host, List};
use crate::session::{BUFFER, HEADERS, TRAILERS};

pub(super) fn methods<H: Host>(raw: &Raw<'_>) -> mlua::Result<()> {
    raw.add::<H, HEADERS>(
        "headers",
        &[
            ("add", |call| add(call, List::Headers)),
            ("get", |call| get(call, List::Headers)),
            ("getAtIndex", |call| get_at_index(call, List::Headers)),
            ("getNumValues", |call| get_num_values(call, List::Headers)),
            ("remove", |call| remove(call, List::Headers)),
            ("replace", |call| replace(call, List::Headers)),
            ("setHttp1ReasonPhrase", reason_phrase),
            ("pairs", |call| pairs(call, List::Headers)),
            ("step", |call| call.step(HEADERS)),
        ],
    )?;
    raw.add::<H, TRAILERS>(
        "trailers",
        &[
            ("add", |call| add(call, List::Trailers)),
            ("get", |call| get(call, List::Trailers)),
            ("getAtIndex", |call| get_at_index(call, List::Trailers)),
            ("getNumValues", |call| get_num_values(call, List::Trailers)),
            ("remove", |call| remove(call, List::Trailers)),
            ("replace", |call| replace(call, List::Trailers)),
            ("setHttp1ReasonPhrase", |_| Ok(mlua::MultiValue::new())),
            ("pairs", |call| pairs(call, List::Trailers)),
            ("step", |call| call.step(TRAILERS)),
        ],
    )?;
    raw.add::<H, BUFFER>(
        "buffer",
        &[
            ("length", length),
            ("getBytes", get_bytes),
            ("setBytes", set_bytes),
        ],
    )
}

fn kind(list: List) -> u8 {
    match list {
        List::Headers => HEADERS,
        List::Trailers => TRAILERS,
    }
}

/// A header's name, in lower case.
pub(super) fn name_of(text: &[u8]) -> Vec<u8> {
    text.to_ascii_lowercase()
}

/// Whether it may stand in a head. Envoy would take anything and break the message.
pub(super) fn check(name: &[u8], value: &[u8]) -> Result<(), String> {
    let token = name.strip_prefix(b":").unwrap_or(name);
    let is_name = !token.is_empty()
        && token
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte));
    if !is_name {
        return Err("invalid header name".to_owned());
    }
    if value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        return Err("invalid header value".to_owned());
    }
    Ok(())
}

fn check_modifiable<H: Host>(call: &Call<'_, H>, list: List) -> Result<(), String> {
    if call.session.iterating.get() & (1 << kind(list)) != 0 {
        return Err("header map cannot be modified while iterating".to_owned());
    }
    if list == List::Headers {
        if call.session.continued.get() {
            return Err("header map can no longer be modified".to_owned());
        }
        call.host(H::touched)?;
    }
    Ok(())
}

fn add<H: Host>(call: &Call<'_, H>, list: List) -> Outcome {
    write(call, list, H::add)
}

fn replace<H: Host>(call: &Call<'_, H>, list: List) -> Outcome {
    write(call, list, H::set)
}

fn write<H: Host>(
    call: &Call<'_, H>,
    list: List,
    how: impl FnOnce(&mut H, List, &[u8], &[u8]),
) -> Outcome {
    check_modifiable(call, list)?;
    let (name, value) = (call.text(0)?, call.text(1)?);
    let (name, value) = (name_of(&name.as_bytes()), value.as_bytes());
    check(&name, &value)?;
    call.host(|host| how(host, list, &name, &value))?;
    call.none()
}

fn remove<H: Host>(call: &Call<'_, H>, list: List) -> Outcome {
    check_modifiable(call, list)?;
    let name = name_of(&call.text(0)?.as_bytes());
    if name.starts_with(b":") || (name == b"host" && call.session.side == Side::Request) {
        let name = String::from_utf8_lossy(&name);
        return Err(format!("removing the header {name} is not supported"));
    }
    call.host(|host| host.remove(list, &name))?;
    call.none()
}

fn get<H: Host>(call: &Call<'_, H>, list: List) -> Outcome {
    let name = name_of(&call.text(0)?.as_bytes());
    let mut joined: Option<Vec<u8>> = None;
    call.host(|host| {
        host.each_value(list, &name, &mut |value| match &mut joined {
            Some(joined) => {
                joined.push(b',');
                joined.extend_from_slice(value);
            }
            None => joined = Some(value.to_vec()),
        });
    })?;
    match joined {
        Some(value) => call.string(value),
        None => call.none(),
    }
}

fn get_at_index<H: Host>(call: &Call<'_, H>, list: List) -> Outcome {
    let name = name_of(&call.text(0)?.as_bytes());
    let index = call.number(1)?.trunc() as i64;
    let (mut at, mut found) = (0, None);
    call.host(|host| {
        host.each_value(list, &name, &mut |value| {
            if at == index {
                found = Some(value.to_vec());
            }
            at += 1;
        });
    })?;
    match found.filter(|value| !value.is_empty()) {
        Some(value) => call.string(value),
        None => call.none(),
    }
}

fn get_num_values<H: Host>(call: &Call<'_, H>, list: List) -> Outcome {
    let name = name_of(&call.text(0)?.as_bytes());
    let mut count = 0;
    call.host(|host| host.each_value(list, &name, &mut |_| count += 1))?;
    call.one(count)
}

fn reason_phrase<H: Host>(call: &Call<'_, H>) -> Outcome {
    let reason = call.text(0)?;
    let reason = reason.as_bytes();
    check(b"reason", &reason)?;
    if call.session.side == Side::Response {
        call.host(|host| host.set_reason(&reason))?;
    }
    call.none()
}

fn pairs<H: Host>(call: &Call<'_, H>, list: List) -> Outcome {
    let mut all = Vec::new();
    call.host(|host| {
        host.each_header(list, &mut |name, value| {
            all.push((name_of(name), value.to_vec()));
        });
    })?;
    let mut values = Vec::with_capacity(all.len() * 2);
    for (name, value) in all {
        for text in [name, value] {
            values.push(Value::String(call.lua.create_string(text).map_err(of_lua)?));
        }
    }
    call.iterate(kind(list), values)
}

fn length<H: Host>(call: &Call<'_, H>) -> Outcome {
    let length = call.session.body.borrow().as_ref().map_or(0, Vec::len);
    call.one(length)
}

fn get_bytes<H: Host>(call: &Call<'_, H>) -> Outcome {
    let (index, length) = (call.number(0)?.trunc(), call.number(1)?.trunc());
    let body = call.session.body.borrow();
    let body = body.as_deref().unwrap_or_default();
    let range = (index >= 0.0 && length >= 0.0)
        .then(|| body.get(index as usize..(index + length) as usize))
        .flatten();
    match range {
        Some(bytes) => call.string(bytes),
        None => {
            Err("index/length must be >= 0 and (index + length) must be <= buffer size".to_owned())
        }
    }
}

fn set_bytes<H: Host>(call: &Call<'_, H>) -> Outcome {
    let bytes = call.text(0)?.as_bytes().to_vec();
    let length = bytes.len();
    call.session.body.replace(Some(bytes));
    call.session.body_changed.set(true);
    if !call.session.continued.get() {
        call.host(|host| host.set_length(length))?;
    }
    call.one(length)
}
