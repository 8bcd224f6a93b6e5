//! `tg-load`: a bounded load on one thread; prints one JSON object.
//!
//! `tg-load http|tcp-pingpong|tcp-connect|tcp-accept-close|tcp-bulk-up|tcp-bulk-down --address IP:PORT
//! --duration SECONDS [--warmup SECONDS] [--connections N] [--rate OPS] [--cpu N]`; for `http` also `--method`,
//! `--path`, `--host`, `--body BYTES` and `--chunk BYTES`, for `tcp-pingpong` `--size BYTES`.

use std::process::ExitCode;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::json;
use tidegate_bench::arguments::Arguments;
use tidegate_bench::cpu_time;
use tidegate_bench::load::{Outcome, Plan, Work, driver};

const MODES: &str =
    "http, tcp-pingpong, tcp-connect, tcp-accept-close, tcp-bulk-up or tcp-bulk-down";

fn plan(mut arguments: Arguments) -> Result<Plan, String> {
    let mode = match arguments.positional.as_slice() {
        [mode] => mode.clone(),
        _ => return Err(format!("say what to do: {MODES}")),
    };
    let work = match mode.as_str() {
        "http" => {
            let method = arguments.take("method", "GET".to_owned())?;
            let path = arguments.take("path", "/".to_owned())?;
            let host = arguments.take("host", "bench.example".to_owned())?;
            let body: usize = arguments.take("body", 0)?;
            let chunk: usize = arguments.take("chunk", 0)?;
            let mut request = format!(
                "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: tg-load\r\naccept: */*\r\n"
            );
            if chunk > 0 {
                request.push_str("transfer-encoding: chunked\r\n");
            } else if body > 0 {
                request.push_str(&format!("content-length: {body}\r\n"));
            }
            request.push_str("\r\n");
            let mut request = request.into_bytes();
            if chunk > 0 {
                append_chunks(&mut request, body, chunk);
            } else {
                request.resize(request.len() + body, b'x');
            }
            Work::Http { request }
        }
        "tcp-pingpong" => Work::PingPong {
            size: arguments.take("size", 64)?,
        },
        "tcp-connect" => Work::Connect,
        "tcp-accept-close" => Work::AcceptClose,
        "tcp-bulk-up" => Work::Bulk { up: true },
        "tcp-bulk-down" => Work::Bulk { up: false },
        other => return Err(format!("{other}: not {MODES}")),
    };
    let cpu: i64 = arguments.take("cpu", -1)?;
    if let Ok(cpu) = usize::try_from(cpu) {
        pin(cpu)?;
    }
    let rate: f64 = arguments.take("rate", 0.0)?;
    let plan = Plan {
        address: arguments.need("address")?,
        work,
        connections: arguments.take("connections", 1)?,
        warmup: seconds(arguments.take("warmup", 0.2)?)?,
        duration: seconds(arguments.need("duration")?)?,
        rate: (rate > 0.0).then_some(rate),
    };
    arguments.finish()?;
    if plan.connections == 0 || plan.connections > 20_000 {
        return Err("--connections is 1 to 20000".to_owned());
    }
    Ok(plan)
}

/// A body in chunks, each of `chunk` bytes but for the last.
fn append_chunks(request: &mut Vec<u8>, body: usize, chunk: usize) {
    let mut left = body;
    while left > 0 {
        let size = left.min(chunk);
        request.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        request.resize(request.len() + size, b'x');
        request.extend_from_slice(b"\r\n");
        left -= size;
    }
    request.extend_from_slice(b"0\r\n\r\n");
}

/// Keeps this process on one CPU.
fn pin(cpu: usize) -> Result<(), String> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(format!("--cpu {cpu}: there is no such CPU"));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| format!("--cpu {cpu}: {error}"))
}

fn seconds(value: f64) -> Result<Duration, String> {
    if (0.0..=600.0).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(format!("{value}: seconds are 0 to 600"))
    }
}

fn report(outcome: &Outcome) -> serde_json::Value {
    let micros = |quantile: f64| outcome.latency.value_at_quantile(quantile) as f64 / 1000.0;
    json!({
        "ops": outcome.ops,
        "warmup_ops": outcome.warmup_ops,
        "errors": outcome.errors,
        "first_error": outcome.first_error,
        "bytes": outcome.bytes,
        "seconds": outcome.seconds,
        "p50_us": micros(0.5),
        "p90_us": micros(0.9),
        "p99_us": micros(0.99),
        "p999_us": micros(0.999),
        "max_us": outcome.latency.max() as f64 / 1000.0,
        "mean_us": outcome.latency.mean() / 1000.0,
        "cpu_seconds": cpu_time().as_secs_f64(),
    })
}

fn main() -> ExitCode {
    let outcome = Arguments::read(std::env::args().skip(1))
        .and_then(plan)
        .and_then(|plan| driver::run(&plan));
    match outcome {
        Ok(outcome) => {
            println!("{}", report(&outcome));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("tg-load: {error}");
            ExitCode::FAILURE
        }
    }
}
