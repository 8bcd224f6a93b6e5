//! Both tools against each other: every mode of the load on the service it is meant for.

#![cfg(test)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};
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
        ("http", &["http-connect", "--path", "/100"]),
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

/// Answers every request with a body of so many bytes, over TLS with the certificate in `directory`; counts handshakes.
fn tls_server(directory: &Path, body: usize) -> (SocketAddr, Arc<AtomicU64>) {
    let both = directory.join("both.pem");
    let chain = CertificateDer::pem_file_iter(&both).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain.map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_file(&both).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handshakes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&handshakes);
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {body}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + body, b'x');
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let (answer, counted) = (answer.clone(), Arc::clone(&counted));
            std::thread::spawn(move || {
                let mut stream = StreamOwned::new(session, socket.unwrap());
                // Whoever is cut off at the run's end ends here.
                let _ = serve(&mut stream, &answer);
                if stream.conn.handshake_kind() == Some(HandshakeKind::Full) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    (address, handshakes)
}

fn serve(
    stream: &mut StreamOwned<ServerConnection, TcpStream>,
    answer: &[u8],
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        request.extend_from_slice(&buffer[..count]);
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            stream.write_all(answer)?;
        }
    }
}

#[test]
fn http_over_tls_with_a_certificate_of_its_own() {
    let directory = std::env::temp_dir().join(format!("tg-load-tls-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_tg-load"))
        .args(["certificate", "--name", "bench.example", "--directory"])
        .arg(&directory)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    for (mode, body) in [("http", 100), ("http", 65_536), ("http-connect", 100)] {
        let (address, handshakes) = tls_server(&directory, body);
        let output = Command::new(env!("CARGO_BIN_EXE_tg-load"))
            .args([mode, "--tls", "bench.example", "--connections", "4"])
            .args(["--address", &address.to_string()])
            .args(["--duration", "0.3", "--warmup", "0.1"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(result["errors"], 0, "{mode} {body}: {result}");
        let ops = result["ops"].as_u64().unwrap() + result["warmup_ops"].as_u64().unwrap();
        assert!(ops > 4, "{mode} {body}: {result}");
        // The server's threads may be behind, and a handshake cut short at the end is none.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let wanted = if mode == "http" { 4 } else { ops };
        while handshakes.load(Ordering::Relaxed) < wanted && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let seen = handshakes.load(Ordering::Relaxed);
        assert!(
            (wanted..=wanted + 4).contains(&seen),
            "{mode} {body}: {seen} handshakes for {wanted}"
        );
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
