//! Both tools against each other: every mode of the load on the service it is meant for.

#![cfg(test)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

struct Backend {
    process: Child,
    ports: Value,
}

impl Backend {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tg-backend"))
            .args(["--max-seconds", "60"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            process,
            ports: serde_json::from_str(&line).unwrap(),
        }
    }

    fn load(&self, service: &str, arguments: &[&str]) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_tg-load"))
            .args(arguments)
            .args(["--address", &format!("127.0.0.1:{}", self.ports[service])])
            .args(["--duration", "0.3", "--warmup", "0.1", "--connections", "4"])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // The end of its standard input is the backend's sign to end.
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }
}

#[test]
fn every_mode_works_on_its_service() {
    let backend = Backend::start();
    for (service, arguments) in [
        ("http", &["http", "--path", "/100"][..]),
        ("http", &["http", "--path", "/64k"]),
        ("http", &["http", "--path", "/chunked"]),
        (
            "http",
            &[
                "http", "--method", "POST", "--path", "/post", "--body", "16384",
            ],
        ),
        (
            "http",
            &[
                "http", "--method", "POST", "--path", "/echo", "--body", "70000",
            ],
        ),
        (
            "http",
            &[
                "http", "--method", "POST", "--path", "/echo", "--body", "9000", "--chunk", "1000",
            ],
        ),
        (
            "http",
            &["http", "--path", "/100", "--rate", "500", "--cpu", "0"],
        ),
        (
            "http_other",
            &[
                "http",
                "--path",
                "/e{n}/100",
                "--host",
                "h{n}",
                "--header",
                "x-e: {n}",
                "--range",
                "0..50",
            ],
        ),
        ("h2_100", &["h2", "--streams", "8"]),
        ("h2_64k", &["h2", "--streams", "8"]),
        (
            "h2_100",
            &[
                "h2",
                "--path",
                "/e{n}/100",
                "--header",
                "traceparent: 00-{h}-1-01",
                "--range",
                "0..50",
            ],
        ),
        ("h2_unary", &["grpc", "--streams", "8", "--body", "64"]),
        ("h2_echo", &["grpc", "--streams", "8", "--body", "70000"]),
        (
            "h2_echo",
            &["grpc-stream", "--streams", "8", "--body", "64"],
        ),
        ("echo", &["tcp-pingpong", "--size", "64"]),
        ("echo", &["tcp-connect"]),
        ("close", &["tcp-accept-close"]),
        ("sink", &["tcp-bulk-up"]),
        ("source", &["tcp-bulk-down"]),
    ] {
        let result = backend.load(service, arguments);
        assert_eq!(result["errors"], 0, "{arguments:?}: {result}");
        assert!(
            result["ops"].as_u64().unwrap() > 0,
            "{arguments:?}: {result}"
        );
        assert!(
            result["cpu_seconds"].as_f64().unwrap() > 0.0,
            "{arguments:?}: {result}"
        );
        if arguments.contains(&"--rate") {
            let rate = result["ops"].as_u64().unwrap() as f64 / result["seconds"].as_f64().unwrap();
            assert!(rate < 600.0, "{rate}");
        }
    }
}

#[test]
fn a_wrong_answer_is_an_error() {
    let backend = Backend::start();
    let output = Command::new(env!("CARGO_BIN_EXE_tg-load"))
        .args([
            "http",
            "--path",
            "/missing",
            "--duration",
            "0.2",
            "--warmup",
            "0",
        ])
        .args(["--address", &format!("127.0.0.1:{}", backend.ports["http"])])
        .output()
        .unwrap();
    let failed = !output.status.success()
        || serde_json::from_slice::<Value>(&output.stdout).unwrap()["errors"]
            .as_u64()
            .unwrap()
            > 0;
    assert!(failed);
}

#[test]
fn idle_connections_are_used_once_and_held() {
    let backend = Backend::start();
    for (mode, service, further) in [
        ("idle-http", "http", &[][..]),
        ("idle-tcp", "echo", &[]),
        ("idle-h2", "h2_100", &[]),
        ("idle-h2", "h2_echo", &["--streams", "5"]),
    ] {
        let mut load = Command::new(env!("CARGO_BIN_EXE_tg-load"))
            .args([mode, "--connections", "20", "--max-seconds", "30"])
            .args(further)
            .args([
                "--address",
                &format!("127.0.0.1:{}", backend.ports[service]),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(load.stdout.take().unwrap()).lines();
        let opened: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(opened["connections"], 20);
        drop(load.stdin.take());
        let ended: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(ended["alive"], 20);
        assert!(load.wait().unwrap().success());
    }
}
