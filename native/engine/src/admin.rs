//! The admin page: Envoy's endpoints, in Envoy's words.
//!
//! Runs on the aux thread. A page is a pure function of the engine's core; this module is the only one that knows HTTP.

pub(crate) mod certs;
mod clusters;
mod config_dump;
mod control;
mod field_mask;
mod handlers;
mod home;
mod hosts;
mod json;
mod listeners;
mod logging;
mod redact;
mod runtime;
mod server_info;
mod stats;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_dataplane::LogSink as _;
use tidegate_model::bootstrap::AdminAddress;
use tidegate_stats::defs::{http, listener, listener_http, listener_worker};
use tidegate_stats::{Registry, Shared};

use crate::engine::Core;
use crate::server_log::server_log;

/// The bound socket, before the thread that serves it is there.
pub(crate) enum AdminSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AdminSocket {
    pub(crate) fn bind(address: &AdminAddress) -> io::Result<Self> {
        match address {
            AdminAddress::Socket(address) => {
                let socket = TcpListener::bind(address)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Tcp(socket))
            }
            AdminAddress::Pipe(path) => {
                // A socket file left by a process before is in the way.
                let _absent = std::fs::remove_file(&**path);
                let socket = UnixListener::bind(&**path)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(socket))
            }
        }
    }

    pub(crate) fn address(&self) -> String {
        match self {
            Self::Tcp(socket) => socket
                .local_addr()
                .map(|address| address.to_string())
                .unwrap_or_default(),
            Self::Unix(socket) => socket
                .local_addr()
                .ok()
                .and_then(|address| Some(address.as_pathname()?.display().to_string()))
                .unwrap_or_default(),
        }
    }
}

/// What a page gets.
pub(crate) struct Asked {
    /// Query, then form fields, in order.
    pub(crate) params: Vec<(String, String)>,
    pub(crate) method: Method,
}

impl Asked {
    /// The first value of a parameter; empty when it is given without one.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.param(name).is_some()
    }
}

/// What a page answers.
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Page {
    pub(crate) fn text(body: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/plain; charset=UTF-8",
            body: body.into(),
        }
    }

    pub(crate) fn json(value: &serde_json::Value) -> Self {
        Self {
            content_type: "application/json",
            ..Self::text(json::pretty(value))
        }
    }

    pub(crate) fn html(body: String) -> Self {
        Self {
            content_type: "text/html; charset=UTF-8",
            ..Self::text(body)
        }
    }

    pub(crate) fn error(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            ..Self::text(body)
        }
    }

    pub(crate) fn bad_request(body: impl Into<String>) -> Self {
        Self::error(StatusCode::BAD_REQUEST, body)
    }
}

/// Envoy counts its admin page as it counts any listener.
struct AdminStats {
    listener: Shared<listener::Listener>,
    thread: Shared<listener_worker::ListenerWorker>,
    http: Shared<http::ConnectionManager>,
    listener_http: Shared<listener_http::ListenerHttp>,
}

impl AdminStats {
    fn new(registry: &Registry) -> Self {
        Self {
            listener: registry.group("listener.admin.").shared(),
            thread: registry.group("listener.admin.main_thread.").shared(),
            http: registry.group("http.admin.").shared(),
            listener_http: registry.group("listener.admin.http.admin.").shared(),
        }
    }

    fn connection(&self, opened: bool) {
        let change = if opened { 1 } else { -1 };
        self.listener
            .gauge_add(listener::DOWNSTREAM_CX_ACTIVE, change);
        self.thread
            .gauge_add(listener_worker::DOWNSTREAM_CX_ACTIVE, change);
        self.http.gauge_add(http::DOWNSTREAM_CX_ACTIVE, change);
        self.http
            .gauge_add(http::DOWNSTREAM_CX_HTTP1_ACTIVE, change);
        if opened {
            self.listener.inc(listener::DOWNSTREAM_CX_TOTAL);
            self.thread.inc(listener_worker::DOWNSTREAM_CX_TOTAL);
            self.http.inc(http::DOWNSTREAM_CX_TOTAL);
            self.http.inc(http::DOWNSTREAM_CX_HTTP1_TOTAL);
        } else {
            self.listener.inc(listener::DOWNSTREAM_CX_DESTROY);
            self.http.inc(http::DOWNSTREAM_CX_DESTROY);
            self.http.inc(http::DOWNSTREAM_CX_DESTROY_REMOTE);
        }
    }

    fn request_begins(&self) {
        self.http.inc(http::DOWNSTREAM_RQ_TOTAL);
        self.http.inc(http::DOWNSTREAM_RQ_HTTP1_TOTAL);
        self.http.gauge_add(http::DOWNSTREAM_RQ_ACTIVE, 1);
    }

    fn request_ends(&self, status: StatusCode) {
        self.http.gauge_add(http::DOWNSTREAM_RQ_ACTIVE, -1);
        self.http.inc(http::DOWNSTREAM_RQ_COMPLETED);
        self.listener_http
            .inc(listener_http::DOWNSTREAM_RQ_COMPLETED);
        let (http_class, listener_class) = match status.as_u16() / 100 {
            1 => (http::DOWNSTREAM_RQ_1XX, listener_http::DOWNSTREAM_RQ_1XX),
            2 => (http::DOWNSTREAM_RQ_2XX, listener_http::DOWNSTREAM_RQ_2XX),
            3 => (http::DOWNSTREAM_RQ_3XX, listener_http::DOWNSTREAM_RQ_3XX),
            4 => (http::DOWNSTREAM_RQ_4XX, listener_http::DOWNSTREAM_RQ_4XX),
            _ => (http::DOWNSTREAM_RQ_5XX, listener_http::DOWNSTREAM_RQ_5XX),
        };
        self.http.inc(http_class);
        self.listener_http.inc(listener_class);
    }
}

/// Accepts until the runtime ends.
pub(crate) async fn serve(core: Arc<Core>, socket: AdminSocket) {
    let stats = Arc::new(AdminStats::new(&core.registry));
    let outcome = match socket {
        AdminSocket::Tcp(socket) => accept_tcp(&core, &stats, socket).await,
        AdminSocket::Unix(socket) => accept_unix(&core, &stats, socket).await,
    };
    if let Err(error) = outcome {
        server_log!(
            core.log,
            Error,
            "admin",
            "the admin socket is lost: {error}"
        );
    }
}

async fn accept_tcp(
    core: &Arc<Core>,
    stats: &Arc<AdminStats>,
    socket: TcpListener,
) -> io::Result<()> {
    let socket = tokio::net::TcpListener::from_std(socket)?;
    loop {
        match socket.accept().await {
            Ok((stream, _)) => {
                // Only latency is lost without it.
                let _slower = stream.set_nodelay(true);
                tokio::spawn(connection(Arc::clone(core), Arc::clone(stats), stream));
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

async fn accept_unix(
    core: &Arc<Core>,
    stats: &Arc<AdminStats>,
    socket: UnixListener,
) -> io::Result<()> {
    let socket = tokio::net::UnixListener::from_std(socket)?;
    loop {
        match socket.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(Arc::clone(core), Arc::clone(stats), stream));
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Out of descriptors, most likely: trying at once would spin.
async fn pause_after(_error: &io::Error) {
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
}

async fn connection<S>(core: Arc<Core>, stats: Arc<AdminStats>, stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    stats.connection(true);
    let service = service_fn(|request| {
        let (core, stats) = (Arc::clone(&core), Arc::clone(&stats));
        async move { Ok::<_, Infallible>(respond(&core, &stats, request).await) }
    });
    // A client that goes away or speaks nonsense ends its own connection.
    let _ended = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(std::time::Duration::from_mins(5))
        .serve_connection(TokioIo::new(stream), service)
        .await;
    stats.connection(false);
}

type Body = StreamBody<futures_once::Once<Result<Frame<Bytes>, Infallible>>>;

async fn respond(
    core: &Arc<Core>,
    stats: &AdminStats,
    request: Request<Incoming>,
) -> Response<Body> {
    let (began, at) = (Instant::now(), SystemTime::now());
    stats.request_begins();
    let (parts, body) = request.into_parts();
    let form = parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    });
    let mut params = pairs(parts.uri.query().unwrap_or_default());
    let mut received = 0;
    if parts.method == Method::POST
        && let Ok(body) = http_body_util::Limited::new(body, MOST_FORM_BYTES)
            .collect()
            .await
    {
        let body = body.to_bytes();
        received = body.len();
        if form {
            params.extend(pairs(&String::from_utf8_lossy(&body)));
        }
    }
    let asked = Asked {
        params,
        method: parts.method.clone(),
    };
    let page = handlers::page(core, parts.uri.path(), &asked);
    stats.request_ends(page.status);
    let line = LogLine {
        at,
        took: began.elapsed(),
        received,
        sent: page.body.len(),
        status: page.status,
    };
    log(core, &parts, &line);
    answer(page, parts.method == Method::HEAD)
}

/// `/runtime_modify` and `/logging` take forms; nothing takes more.
const MOST_FORM_BYTES: usize = 64 * 1024;

fn answer(page: Page, head: bool) -> Response<Body> {
    let body = if head {
        Bytes::new()
    } else {
        Bytes::from(page.body)
    };
    let mut response = Response::new(StreamBody::new(futures_once::Once(Some(Ok(Frame::data(
        body,
    ))))));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(page.content_type),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, max-age=0"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::SERVER, HeaderValue::from_static("envoy"));
    response
}

/// A stream of one item, so that a body is sent in chunks as Envoy's admin sends them.
mod futures_once {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    pub(super) struct Once<T>(pub(super) Option<T>);

    impl<T: Unpin> futures_core::Stream for Once<T> {
        type Item = T;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
            Poll::Ready(self.0.take())
        }
    }
}

/// `a=b&c`, decoded.
fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced)
            .decode_utf8_lossy()
            .into_owned()
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

struct LogLine {
    at: SystemTime,
    took: std::time::Duration,
    received: usize,
    sent: usize,
    status: StatusCode,
}

/// Envoy's default access-log format, to `admin.access_log`.
fn log(core: &Core, parts: &hyper::http::request::Parts, line: &LogLine) {
    let paths = core
        .loaded
        .bootstrap
        .admin
        .as_ref()
        .map(|admin| &admin.access_log_paths);
    let (Some(files), Some(paths)) = (core.log_files.get(), paths) else {
        return;
    };
    if paths.iter().all(|path| **path == *"/dev/null") {
        return;
    }
    let header = |name| {
        parts
            .headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
            .unwrap_or("-")
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let text = format!(
        "[{}] \"{} {path} {:?}\" {} - {} {} {} - \"{}\" \"{}\" \"{}\" \"{}\" \"-\"\n",
        crate::time::timestamp(line.at),
        parts.method,
        parts.version,
        line.status.as_u16(),
        line.received,
        line.sent,
        line.took.as_millis(),
        header("x-forwarded-for"),
        header("user-agent"),
        header("x-request-id"),
        header("host"),
    );
    for path in paths {
        files.write(path, text.clone().into_bytes());
    }
}

/// A regular expression of a query parameter; the error in RE2's words, as far as they are known.
pub(crate) fn regex(pattern: &str) -> Result<regex::Regex, String> {
    regex::Regex::new(pattern).map_err(|error| {
        let error = error.to_string();
        if error.contains("unclosed group") {
            format!("missing ): {pattern}")
        } else if error.contains("unopened group") {
            format!("unexpected ): {pattern}")
        } else if error.contains("unclosed character class") {
            let start = pattern
                .rfind('[')
                .and_then(|at| pattern.get(at..))
                .unwrap_or(pattern);
            format!("missing ]: {start}")
        } else if error.contains("repetition operator missing expression") {
            let operator = pattern
                .trim_start_matches(|c| !matches!(c, '*' | '+' | '?'))
                .chars()
                .next()
                .unwrap_or('*');
            format!("no argument for repetition operator: {operator}")
        } else {
            error
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned()
        }
    })
}
