//! The handle of a stream.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use mlua::{Table, Value};

use super::headers::{check, name_of};
use super::{Call, Outcome, Raw, of_lua};
use crate::Side;
use crate::host::{Host, Level};
use crate::session::{
    BUFFER, CONNECTION, CONNECTION_INFO, FILTER_CONTEXT, HANDLE, HEADERS, Headers, HttpCall,
    METADATA, Respond, STREAM_INFO, TRAILERS, Wait,
};

/// `EnvoyTimestampResolution`.
pub(super) const MILLISECOND: i32 = 0;
pub(super) const MICROSECOND: i32 = 1;

pub(super) fn methods<H: Host>(raw: &Raw<'_>) -> mlua::Result<()> {
    raw.add::<H, HANDLE>(
        "handle",
        &[
            ("headers", |call| call.object::<HEADERS>()),
            ("metadata", |call| call.object::<METADATA>()),
            ("filterContext", |call| call.object::<FILTER_CONTEXT>()),
            ("streamInfo", |call| call.object::<STREAM_INFO>()),
            ("connection", |call| call.object::<CONNECTION>()),
            ("connectionStreamInfo", |call| {
                call.object::<CONNECTION_INFO>()
            }),
            ("clearRouteCache", clear_route_cache),
            ("logTrace", |call| log(call, Level::Trace)),
            ("logDebug", |call| log(call, Level::Debug)),
            ("logInfo", |call| log(call, Level::Info)),
            ("logWarn", |call| log(call, Level::Warning)),
            ("logErr", |call| log(call, Level::Error)),
            ("logCritical", |call| log(call, Level::Critical)),
            ("base64Escape", base64_escape),
            ("timestamp", timestamp),
            ("timestampString", timestamp_string),
            ("body", body),
            ("bodyChunks", body_chunks),
            ("nextChunk", next_chunk),
            ("trailers", trailers),
            ("httpCall", http_call),
            ("respond", respond),
        ],
    )
}

/// The method waits.
fn wait<H: Host>(call: &Call<'_, H>, what: Wait) -> Outcome {
    call.session.wait.replace(Some(what));
    call.one(true)
}

/// The method returns at once: a value, or nothing.
fn ready<H: Host>(call: &Call<'_, H>, results: Outcome) -> Outcome {
    let mut results = results?;
    results.push_front(Value::Boolean(false));
    let _ = call;
    Ok(results)
}

fn body<H: Host>(call: &Call<'_, H>) -> Outcome {
    let session = call.session;
    let always = match call.arguments.first() {
        None => false,
        Some(Value::Boolean(always)) => *always,
        Some(_) => return Err(call.bad(0, "boolean")),
    };
    if !session.ended.get() {
        if session.saw_body.get() {
            return Err("cannot call body() after body streaming has started".to_owned());
        }
        session.buffers_body.set(true);
        return wait(call, Wait::Body);
    }
    if session.saw_body.get() && !session.buffers_body.get() {
        return Err("cannot call body() after body has been streamed".to_owned());
    }
    if session.body.borrow().is_none() {
        if !always {
            return ready(call, call.none());
        }
        session.body.replace(Some(Vec::new()));
    }
    ready(call, call.object::<BUFFER>())
}

fn body_chunks<H: Host>(call: &Call<'_, H>) -> Outcome {
    if call.session.saw_body.get() {
        return Err("cannot call bodyChunks after body processing has begun".to_owned());
    }
    call.none()
}

fn next_chunk<H: Host>(call: &Call<'_, H>) -> Outcome {
    if call.session.ended.get() {
        return ready(call, call.none());
    }
    wait(call, Wait::Chunk)
}

fn trailers<H: Host>(call: &Call<'_, H>) -> Outcome {
    let session = call.session;
    if session.has_trailers.get() {
        ready(call, call.object::<TRAILERS>())
    } else if session.ended.get() {
        ready(call, call.none())
    } else {
        wait(call, Wait::Trailers)
    }
}

/// Headers of a table: a string or several for each name.
fn header_table(table: &Table) -> Result<Headers, String> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.as_bytes().to_vec()),
        Value::Integer(number) => Ok(number.to_string().into_bytes()),
        Value::Number(number) => Ok(number.to_string().into_bytes()),
        other => Err(format!("string expected, got {}", other.type_name())),
    };
    let mut headers = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (name, value) = pair.map_err(of_lua)?;
        let name = name_of(&text(&name)?);
        let mut add = |value: &Value| {
            let value = text(value)?;
            check(&name, &value)?;
            headers.push((name.clone(), value));
            Ok::<(), String>(())
        };
        match value {
            Value::Table(several) => {
                for pair in several.pairs::<Value, Value>() {
                    let (_, value) = pair.map_err(of_lua)?;
                    add(&value)?;
                }
            }
            value => add(&value)?,
        }
    }
    Ok(headers)
}

/// Takes a header out of the list.
fn take(headers: &mut Headers, name: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    headers.retain_mut(|(other, value)| {
        if other != name {
            return true;
        }
        found.get_or_insert_with(|| std::mem::take(value));
        false
    });
    found
}

/// What a script may say of a call.
struct CallOptions {
    timeout_ms: f64,
    asynchronous: bool,
    duplicates: bool,
    send_xff: bool,
}

fn call_options<H: Host>(call: &Call<'_, H>) -> Result<CallOptions, String> {
    let mut options = CallOptions {
        timeout_ms: 0.0,
        asynchronous: false,
        duplicates: false,
        send_xff: true,
    };
    let Some(Value::Table(table)) = call.arguments.get(3) else {
        options.timeout_ms = call.number(3)?.trunc();
        options.asynchronous = match call.arguments.get(4) {
            None => false,
            Some(Value::Boolean(flag)) => *flag,
            Some(_) => {
                return Err(
                    "http call asynchronous flag must be 'true', 'false', or empty".to_owned(),
                );
            }
        };
        return Ok(options);
    };
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(of_lua)?;
        let Value::String(key) = key else {
            return Err("http call options must have strings as keys".to_owned());
        };
        let flag = || match value {
            Value::Boolean(flag) => Ok(flag),
            _ => Err(format!(
                "http call option {} must be a boolean",
                key.to_string_lossy()
            )),
        };
        match &*key.as_bytes() {
            b"asynchronous" => options.asynchronous = flag()?,
            b"timeout_ms" => {
                options.timeout_ms = match value {
                    Value::Integer(number) => number as f64,
                    Value::Number(number) => number.trunc(),
                    _ => return Err("http call timeout must be >= 0".to_owned()),
                };
            }
            // Calls are in no trace.
            b"trace_sampled" => {
                flag()?;
            }
            b"return_duplicate_headers" => options.duplicates = flag()?,
            b"send_xff" => options.send_xff = flag()?,
            _ => {
                let key = key.to_string_lossy();
                return Err(format!("\"{key}\" is not valid key for httpCall() options"));
            }
        }
    }
    Ok(options)
}

fn http_call<H: Host>(call: &Call<'_, H>) -> Outcome {
    let session = call.session;
    let cluster = call.text(0)?.to_string_lossy();
    let table = call.table(1)?;
    let body = call.opt_text(2)?.map(|body| body.as_bytes().to_vec());
    let options = call_options(call)?;
    if options.timeout_ms < 0.0 {
        return Err("http call timeout must be >= 0".to_owned());
    }
    if session.continued.get() && !options.asynchronous {
        return Err("httpCall() that waits is not supported once the head has gone on".to_owned());
    }
    let mut headers = header_table(table)?;
    let path = take(&mut headers, b":path");
    let method = take(&mut headers, b":method");
    let host = take(&mut headers, b"host");
    let authority = take(&mut headers, b":authority").or(host);
    let (Some(path), Some(method), Some(authority)) = (path, method, authority) else {
        return Err(
            "http call headers must include ':path', ':method', and ':authority'".to_owned(),
        );
    };
    headers.retain(|(name, _)| !name.starts_with(b":") && name != b"content-length");
    session.duplicates.set(options.duplicates);
    wait(
        call,
        Wait::Call(HttpCall {
            cluster,
            method,
            path,
            authority,
            headers,
            body,
            timeout_ms: options.timeout_ms as u64,
            asynchronous: options.asynchronous,
            send_xff: options.send_xff,
        }),
    )
}

fn respond<H: Host>(call: &Call<'_, H>) -> Outcome {
    if call.session.continued.get() {
        return Err("respond() cannot be called if headers have been continued".to_owned());
    }
    let table = call.table(0)?;
    let body = call.opt_text(1)?.map(|body| body.as_bytes().to_vec());
    let mut headers = header_table(table)?;
    let status = take(&mut headers, b":status")
        .and_then(|status| std::str::from_utf8(&status).ok()?.parse().ok())
        .filter(|status| (200..600).contains(status));
    let Some(status) = status else {
        return Err(":status must be between 200-599".to_owned());
    };
    if call.session.side == Side::Response {
        return Err("respond not currently supported in the response path".to_owned());
    }
    headers.retain(|(name, _)| !name.starts_with(b":"));
    wait(
        call,
        Wait::Respond(Respond {
            status,
            headers,
            body,
        }),
    )
}

fn clear_route_cache<H: Host>(call: &Call<'_, H>) -> Outcome {
    if call.session.side == Side::Request && !call.session.continued.get() {
        call.session.clear_route.set(true);
    }
    call.none()
}

fn log<H: Host>(call: &Call<'_, H>, level: Level) -> Outcome {
    let text = call.text(0)?;
    call.host(|host| host.log(level, &text.as_bytes()))?;
    call.none()
}

fn base64_escape<H: Host>(call: &Call<'_, H>) -> Outcome {
    let text = call.text(0)?;
    let encoded = base64::engine::general_purpose::STANDARD.encode(&*text.as_bytes());
    call.string(encoded)
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// The resolution asked for; `None`: none that there is.
fn resolution<H: Host>(call: &Call<'_, H>) -> Result<Option<i32>, String> {
    let Some(text) = call.opt_text(0)? else {
        return Ok(Some(MILLISECOND));
    };
    let text = text.to_string_lossy();
    let known = |resolution: &i32| [MILLISECOND, MICROSECOND].contains(resolution);
    Ok(text.parse().ok().filter(known))
}

fn timestamp<H: Host>(call: &Call<'_, H>) -> Outcome {
    match resolution(call)? {
        Some(MILLISECOND) => call.one(now().as_millis() as f64),
        _ => Err("timestamp format must be MILLISECOND.".to_owned()),
    }
}

fn timestamp_string<H: Host>(call: &Call<'_, H>) -> Outcome {
    match resolution(call)? {
        Some(MILLISECOND) => call.string(now().as_millis().to_string()),
        Some(MICROSECOND) => call.string(now().as_micros().to_string()),
        _ => Err("timestamp format must be MILLISECOND or MICROSECOND.".to_owned()),
    }
}
