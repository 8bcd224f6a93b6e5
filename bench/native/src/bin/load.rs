//! `tg-load`: a bounded load on one thread; prints one JSON object.
//!
//! `tg-load http|http-connect|tcp-pingpong|tcp-connect|tcp-accept-close|tcp-bulk-up|tcp-bulk-down --address IP:PORT
//! --duration SECONDS [--warmup SECONDS] [--connections N] [--rate OPS] [--cpu N]`; for `http` also `--method`,
//! `--path`, `--host`, `--header 'NAME: VALUE'`, `--body BYTES`, `--chunk BYTES`, for `tcp-pingpong` `--size BYTES`.
//! `http-connect`: a connection for each request, closed after the answer. `--tls NAME` (both): over TLS 1.3 (X25519,
//! AES-128-GCM, every handshake in full, the server's certificate not verified), asking for that server name.
//! `{n}` in path, host and header stands for the numbers of `--range A..B` (without B), taken in shuffled order.
//!
//! `tg-load h2|grpc|grpc-stream --address … --connections N --streams N` keeps so many streams going on each
//! connection, with the options of `http` (`grpc`: a message of `--body` bytes each way; `grpc-stream`: streams that stay,
//! an operation is a message there and back). `{h}` stands for hexadecimal digits that differ with the number.
//!
//! `tg-load idle-http|idle-tcp|idle-h2 --address IP:PORT --connections N [--max-seconds S]` opens the connections, uses each
//! once (and opens `--streams` on each), prints a line, and holds them until standard input ends.
//!
//! `tg-load certificate --name NAME --directory DIR` makes a self-signed P-256 certificate: `cert.pem`, `key.pem`, and both
//! in `both.pem`.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::json;
use tidegate_bench::arguments::Arguments;
use tidegate_bench::certificate;
use tidegate_bench::cpu_time;
use tidegate_bench::h2::server::message;
use tidegate_bench::load::idle::{Idle, Use};
use tidegate_bench::load::requests::{Template, range};
use tidegate_bench::load::streams::{self, Work as Streams};
use tidegate_bench::load::{Outcome, Plan, Work, driver};

const MODES: &str = "http, http-connect, h2, grpc, grpc-stream, tcp-pingpong, tcp-connect, tcp-accept-close, tcp-bulk-up, \
                     tcp-bulk-down, idle-http, idle-tcp, idle-h2 or certificate";

/// The percentiles of the latency curve.
const CURVE: [f64; 13] = [
    50.0, 60.0, 70.0, 80.0, 85.0, 90.0, 93.0, 95.0, 97.0, 98.0, 99.0, 99.5, 99.9,
];

/// What the command line asks for.
enum Task {
    Drive(Plan),
    Streams(streams::Plan),
    Hold(Hold),
    Certificate { name: String, directory: PathBuf },
}

/// Connections to open, use once and hold until standard input ends.
struct Hold {
    address: SocketAddr,
    connections: usize,
    use_once: Use,
    max: Duration,
}

fn task(mut arguments: Arguments) -> Result<Task, String> {
    let mode = match arguments.positional.as_slice() {
        [mode] => mode.clone(),
        _ => return Err(format!("say what to do: {MODES}")),
    };
    if mode == "certificate" {
        let name = arguments.need("name")?;
        let directory = arguments.need("directory")?;
        arguments.finish()?;
        return Ok(Task::Certificate { name, directory });
    }
    let cpu: i64 = arguments.take("cpu", -1)?;
    if let Ok(cpu) = usize::try_from(cpu) {
        pin(cpu)?;
    }
    let connections = arguments.take("connections", 1)?;
    if connections == 0 || connections > 20_000 {
        return Err("--connections is 1 to 20000".to_owned());
    }
    let address = arguments.need("address")?;
    if let "idle-http" | "idle-tcp" | "idle-h2" = mode.as_str() {
        let use_once = match mode.as_str() {
            "idle-http" => Use::Http(requests(&mut arguments)?.pop().unwrap_or_default()),
            "idle-h2" => {
                let streams = arguments.take("streams", 0)?;
                let (template, numbers) = template(&mut arguments)?;
                let get = template.blocks(numbers.clone(), &[]).pop();
                let mut post = template;
                "POST".clone_into(&mut post.method);
                Use::Http2 {
                    get: get.unwrap_or_default().plain,
                    open: post.blocks(numbers, &[]).pop().unwrap_or_default().plain,
                    streams,
                }
            }
            _ => Use::Byte,
        };
        let max = seconds(arguments.take("max-seconds", 60.0)?)?;
        arguments.finish()?;
        return Ok(Task::Hold(Hold {
            address,
            connections,
            use_once,
            max,
        }));
    }
    if let "h2" | "grpc" | "grpc-stream" = mode.as_str() {
        return stream_plan(&mode, arguments, address, connections).map(Task::Streams);
    }
    let tls = match mode.as_str() {
        "http" | "http-connect" => arguments.take("tls", String::new())?,
        _ => String::new(),
    };
    let work = match mode.as_str() {
        "http" | "http-connect" => Work::Http {
            requests: requests(&mut arguments)?,
            once: mode == "http-connect",
        },
        "tcp-pingpong" => Work::PingPong {
            size: arguments.take("size", 64)?,
        },
        "tcp-connect" => Work::Connect,
        "tcp-accept-close" => Work::AcceptClose,
        "tcp-bulk-up" => Work::Bulk { up: true },
        "tcp-bulk-down" => Work::Bulk { up: false },
        other => return Err(format!("{other}: not {MODES}")),
    };
    let rate: f64 = arguments.take("rate", 0.0)?;
    let plan = Plan {
        address,
        work,
        tls: Some(tls).filter(|name| !name.is_empty()),
        connections,
        warmup: seconds(arguments.take("warmup", 0.2)?)?,
        duration: seconds(arguments.need("duration")?)?,
        rate: (rate > 0.0).then_some(rate),
    };
    arguments.finish()?;
    Ok(Task::Drive(plan))
}

fn requests(arguments: &mut Arguments) -> Result<Vec<Vec<u8>>, String> {
    let (template, numbers) = template(arguments)?;
    Ok(template.requests(numbers))
}

fn template(arguments: &mut Arguments) -> Result<(Template, Range<usize>), String> {
    let numbers = range(&arguments.take("range", String::new())?)?;
    let template = Template {
        method: arguments.take("method", "GET".to_owned())?,
        path: arguments.take("path", "/".to_owned())?,
        host: arguments.take("host", "bench.example".to_owned())?,
        header: arguments.take("header", String::new())?,
        body: arguments.take("body", 0)?,
        chunk: arguments.take("chunk", 0)?,
    };
    Ok((template, numbers))
}

fn stream_plan(
    mode: &str,
    mut arguments: Arguments,
    address: SocketAddr,
    connections: usize,
) -> Result<streams::Plan, String> {
    let (mut template, numbers) = template(&mut arguments)?;
    let further: &[(&str, &str)] = if mode == "h2" {
        &[("accept", "*/*")]
    } else {
        "POST".clone_into(&mut template.method);
        &[("content-type", "application/grpc"), ("te", "trailers")]
    };
    let mut blocks = template.blocks(numbers, further);
    let grpc = mode == "grpc";
    let work = if mode == "grpc-stream" {
        Streams::Messages {
            block: blocks.pop().unwrap_or_default(),
            message: message(template.body),
        }
    } else {
        let body = if grpc {
            message(template.body)
        } else {
            vec![b'x'; template.body]
        };
        Streams::Requests { blocks, body, grpc }
    };
    let streams = arguments.take("streams", 1)?;
    if streams == 0 || streams > 10_000 {
        return Err("--streams is 1 to 10000".to_owned());
    }
    let plan = streams::Plan {
        address,
        work,
        connections,
        streams,
        warmup: seconds(arguments.take("warmup", 0.2)?)?,
        duration: seconds(arguments.need("duration")?)?,
    };
    arguments.finish()?;
    Ok(plan)
}

/// Opens the connections, says so, holds them until standard input ends, and says how many lived to see it.
fn hold(hold: &Hold) -> Result<serde_json::Value, String> {
    let idle = Idle::open(hold.address, hold.connections, &hold.use_once)?;
    println!("{}", json!({"connections": hold.connections}));
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = end.recv_timeout(hold.max);
    Ok(json!({"alive": idle.alive()}))
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
        "curve_us": CURVE.map(|p| (p, micros(p / 100.0))),
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
    let done = Arguments::read(std::env::args().skip(1))
        .and_then(task)
        .and_then(|task| match task {
            Task::Drive(plan) => driver::run(&plan).map(|outcome| report(&outcome)),
            Task::Streams(plan) => streams::run(&plan).map(|outcome| report(&outcome)),
            Task::Hold(plan) => hold(&plan),
            Task::Certificate { name, directory } => {
                certificate::write(&name, &directory).map(|()| json!({"name": name}))
            }
        });
    match done {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("tg-load: {error}");
            ExitCode::FAILURE
        }
    }
}
