//! `tg-load`: a bounded load on one thread; prints one JSON object.
//!
//! `tg-load http|tcp-pingpong|tcp-connect|tcp-bulk-up|tcp-bulk-down --address IP:PORT --duration SECONDS …`

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tidegate_bench::arguments::Arguments;
use tidegate_bench::cpu_time;
use tidegate_bench::load::{Outcome, Plan, Work, driver};

const MODES: &str = "http, tcp-pingpong, tcp-connect, tcp-bulk-up or tcp-bulk-down";

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
            let mut request = format!(
                "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: tg-load\r\naccept: */*\r\n"
            );
            if body > 0 {
                request.push_str(&format!("content-length: {body}\r\n"));
            }
            request.push_str("\r\n");
            let mut request = request.into_bytes();
            request.resize(request.len() + body, b'x');
            Work::Http { request }
        }
        "tcp-pingpong" => Work::PingPong {
            size: arguments.take("size", 64)?,
        },
        "tcp-connect" => Work::Connect,
        "tcp-bulk-up" => Work::Bulk { up: true },
        "tcp-bulk-down" => Work::Bulk { up: false },
        other => return Err(format!("{other}: not {MODES}")),
    };
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
