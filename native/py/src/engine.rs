//! The engine itself.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tidegate_engine::{ConfigSourceKey, Delta, Level, Options, TcpKeepalive, UpdateFailure};

use crate::discovery::format;
use crate::errors::{config_error, detached, engine_error};

/// One thing the engine wants to hear about now.
#[pyclass(frozen, eq, hash, module = "tidegate._native")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Subscription {
    #[pyo3(get)]
    type_url: &'static str,
    #[pyo3(get)]
    source: &'static str,
    #[pyo3(get)]
    path: String,
    #[pyo3(get)]
    watched_directory: String,
    #[pyo3(get)]
    origin: String,
    target: Option<tidegate_engine::GrpcTarget>,
    #[pyo3(get)]
    names: Vec<String>,
    /// Compared as a duration, shown as seconds.
    timeout: Option<Duration>,
}

#[pymethods]
impl Subscription {
    /// Seconds; 0.0 = wait for ever.
    #[getter]
    fn initial_fetch_timeout(&self) -> f64 {
        self.timeout.map_or(0.0, |timeout| timeout.as_secs_f64())
    }

    /// The stream, for source "grpc".
    #[getter]
    fn grpc(&self) -> Option<GrpcTarget> {
        let inner = self.target.clone()?;
        Some(GrpcTarget { inner })
    }
}

impl Subscription {
    fn new(engine: &tidegate_engine::Engine, wanted: tidegate_engine::Subscription) -> Self {
        let (source, path) = match &wanted.source {
            ConfigSourceKey::Ads => ("ads", String::new()),
            ConfigSourceKey::Path(path) => ("path", path.to_string()),
            ConfigSourceKey::Grpc(_) => ("grpc", String::new()),
        };
        Self {
            origin: wanted.source.origin(),
            target: engine.grpc_target(&wanted.source),
            type_url: wanted.type_url,
            source,
            path,
            watched_directory: String::new(),
            names: wanted.names.to_vec(),
            timeout: wanted.initial_fetch_timeout,
        }
    }
}

/// Where a discovery stream goes.
#[pyclass(frozen, eq, hash, module = "tidegate._native")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct GrpcTarget {
    inner: tidegate_engine::GrpcTarget,
}

#[pymethods]
impl GrpcTarget {
    #[getter]
    fn cluster(&self) -> &str {
        &self.inner.cluster
    }

    #[getter]
    fn delta(&self) -> bool {
        self.inner.delta
    }

    #[getter]
    fn targets(&self) -> &[String] {
        &self.inner.targets
    }

    #[getter]
    fn authority(&self) -> &str {
        &self.inner.authority
    }

    #[getter]
    fn initial_metadata(&self) -> Vec<(String, String)> {
        self.inner.initial_metadata.clone()
    }

    #[getter]
    fn connect_timeout(&self) -> f64 {
        self.inner.connect_timeout.as_secs_f64()
    }

    #[getter]
    fn tcp_keepalive(&self) -> Option<(u32, u64, u64)> {
        let TcpKeepalive {
            probes,
            time,
            interval,
        } = self.inner.tcp_keepalive?;
        let seconds =
            |duration: Option<Duration>| duration.map_or(0, |duration| duration.as_secs());
        Some((probes.unwrap_or_default(), seconds(time), seconds(interval)))
    }

    #[getter]
    fn http2_keepalive(&self) -> Option<(f64, f64)> {
        let (interval, timeout) = self.inner.http2_keepalive?;
        Some((interval.as_secs_f64(), timeout.as_secs_f64()))
    }

    #[getter]
    fn retry_back_off(&self) -> (f64, f64) {
        let (base, most) = self.inner.retry_back_off;
        (base.as_secs_f64(), most.as_secs_f64())
    }
}

/// What Python has to know of the bootstrap to open its streams.
#[pyclass(frozen, module = "tidegate._native")]
pub(crate) struct BootstrapInfo {
    inner: tidegate_engine::BootstrapInfo,
}

#[pymethods]
impl BootstrapInfo {
    #[getter]
    fn node<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.node)
    }

    #[getter]
    fn node_id(&self) -> &str {
        &self.inner.node_id
    }

    #[getter]
    fn node_cluster(&self) -> &str {
        &self.inner.node_cluster
    }

    /// The stream of `dynamic_resources.ads_config`.
    #[getter]
    fn ads(&self) -> Option<GrpcTarget> {
        let inner = self.inner.ads.clone()?;
        Some(GrpcTarget { inner })
    }

    #[getter]
    fn admin_address(&self) -> &str {
        &self.inner.admin_address
    }
}

/// What became of one update.
#[pyclass(frozen, get_all, module = "tidegate._native")]
pub(crate) struct ApplyResult {
    accepted: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
    rejected: Vec<(String, String, String)>,
    detail: String,
}

impl From<tidegate_engine::ApplyResult> for ApplyResult {
    fn from(result: tidegate_engine::ApplyResult) -> Self {
        Self {
            accepted: result.accepted,
            changed: result.changed,
            removed: result.removed,
            rejected: result
                .rejected
                .into_iter()
                .map(|error| (error.name, error.path, error.reason))
                .collect(),
            detail: result.detail,
        }
    }
}

/// The data plane: worker threads, admin, statistics, configuration.
#[pyclass(module = "tidegate._native")]
pub(crate) struct Engine {
    inner: tidegate_engine::Engine,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (
        bootstrap,
        format,
        *,
        config_path = "",
        config_yaml = "",
        concurrency = 0,
        service_cluster = "",
        service_node = "",
        service_zone = "",
        restart_epoch = 0,
        base_id = 0,
        disable_hot_restart = false,
        drain_time_s = 600,
        drain_strategy = "gradual",
        parent_shutdown_time_s = 900,
        mode = "serve",
        log_level = "info",
        component_log_level = "",
        log_format = "",
        log_format_escaped = false,
        log_path = "",
        file_flush_interval_msec = 10000,
        busy_poll_us = 0,
        file_flush_min_size_kb = 64,
        admin_address_path = "",
        local_address_ip_version = "v4",
        allow_unknown_static_fields = false,
        reject_unknown_dynamic_fields = false,
        ignore_unknown_dynamic_fields = false,
        skip_deprecated_logs = false,
    ))]
    fn new(
        py: Python<'_>,
        bootstrap: &[u8],
        format: &str,
        config_path: &str,
        config_yaml: &str,
        concurrency: usize,
        service_cluster: &str,
        service_node: &str,
        service_zone: &str,
        restart_epoch: u32,
        base_id: u32,
        disable_hot_restart: bool,
        drain_time_s: u64,
        drain_strategy: &str,
        parent_shutdown_time_s: u64,
        mode: &str,
        log_level: &str,
        component_log_level: &str,
        log_format: &str,
        log_format_escaped: bool,
        log_path: &str,
        file_flush_interval_msec: u64,
        busy_poll_us: u64,
        file_flush_min_size_kb: u32,
        admin_address_path: &str,
        local_address_ip_version: &str,
        allow_unknown_static_fields: bool,
        reject_unknown_dynamic_fields: bool,
        ignore_unknown_dynamic_fields: bool,
        skip_deprecated_logs: bool,
    ) -> PyResult<Self> {
        let format = self::format(py, format)?;
        let options = Options {
            config_path: config_path.to_owned(),
            config_yaml: config_yaml.to_owned(),
            concurrency,
            service_cluster: service_cluster.to_owned(),
            service_node: service_node.to_owned(),
            service_zone: service_zone.to_owned(),
            restart_epoch,
            base_id,
            disable_hot_restart,
            drain_time: Duration::from_secs(drain_time_s),
            drain_gradually: drain_strategy != "immediate",
            parent_shutdown_time: Duration::from_secs(parent_shutdown_time_s),
            validate_only: mode == "validate",
            log_level: log_level.to_owned(),
            component_log_level: component_log_level.to_owned(),
            log_format: log_format.to_owned(),
            log_format_escaped,
            log_path: log_path.to_owned(),
            file_flush_interval: Duration::from_millis(file_flush_interval_msec),
            busy_poll: Duration::from_micros(busy_poll_us),
            file_flush_min_size_kb,
            admin_address_path: admin_address_path.to_owned(),
            local_address_ip_version: local_address_ip_version.to_owned(),
            allow_unknown_static_fields,
            reject_unknown_dynamic_fields,
            ignore_unknown_dynamic_fields,
            skip_deprecated_logs,
        };
        let made = detached(py, || {
            tidegate_engine::Engine::new(bootstrap, format, options)
        })?;
        made.map(|inner| Self { inner })
            .map_err(|error| config_error(py, error))
    }

    fn bootstrap_info(&self) -> BootstrapInfo {
        BootstrapInfo {
            inner: self.inner.bootstrap_info(),
        }
    }

    fn start(&mut self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.inner.start())?.map_err(|error| engine_error(py, error.0))
    }

    fn subscriptions(&self, py: Python<'_>) -> PyResult<Vec<Subscription>> {
        let wanted = detached(py, || self.inner.subscriptions())?;
        let told = wanted.into_iter();
        Ok(told
            .map(|each| Subscription::new(&self.inner, each))
            .collect())
    }

    #[pyo3(signature = (type_url, version, resources, origin = ""))]
    fn apply(
        &self,
        py: Python<'_>,
        type_url: &str,
        version: &str,
        resources: Vec<(String, Vec<u8>)>,
        origin: &str,
    ) -> PyResult<ApplyResult> {
        detached(py, || {
            self.inner.apply(type_url, version, &resources, origin)
        })
        .map(ApplyResult::from)
    }

    #[pyo3(signature = (type_url, version, resources, versions, removed, origin = ""))]
    fn apply_delta(
        &self,
        py: Python<'_>,
        type_url: &str,
        version: &str,
        resources: Vec<(String, Vec<u8>)>,
        versions: Vec<(String, String)>,
        removed: Vec<String>,
        origin: &str,
    ) -> PyResult<ApplyResult> {
        let delta = Delta {
            versions: &versions,
            removed: &removed,
        };
        detached(py, || {
            self.inner
                .apply_delta(type_url, version, &resources, &delta, origin)
        })
        .map(ApplyResult::from)
    }

    fn paused(&self, py: Python<'_>) -> PyResult<Vec<&'static str>> {
        detached(py, || self.inner.paused())
    }

    fn watched_directories(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        detached(py, || self.inner.watched_directories())
    }

    fn directory_changed(&self, py: Python<'_>, directory: &str) -> PyResult<()> {
        detached(py, || self.inner.directory_changed(directory))
    }

    #[pyo3(signature = (type_url, names, reason, origin = ""))]
    fn update_failed(
        &self,
        py: Python<'_>,
        type_url: &str,
        names: Vec<String>,
        reason: &str,
        origin: &str,
    ) -> PyResult<()> {
        let why = match reason {
            "connection" => UpdateFailure::Connection,
            "fetch_timeout" => UpdateFailure::FetchTimeout,
            other => return Err(PyValueError::new_err(format!("unknown reason: {other}"))),
        };
        detached(py, || {
            self.inner.update_failed(type_url, &names, why, origin);
        })
    }

    #[pyo3(signature = (type_url, reason, origin = ""))]
    fn update_rejected(
        &self,
        py: Python<'_>,
        type_url: &str,
        reason: &str,
        origin: &str,
    ) -> PyResult<()> {
        detached(py, || self.inner.update_rejected(type_url, reason, origin))
    }

    fn ads_connected(&self, connected: bool) {
        self.inner.ads_connected(connected);
    }

    fn control_plane_identifier(&self, identifier: &str) {
        self.inner.control_plane_identifier(identifier);
    }

    fn event_fd(&self) -> i32 {
        self.inner.event_fd()
    }

    fn take_events(&self) -> Vec<&'static str> {
        self.inner
            .take_events()
            .into_iter()
            .map(tidegate_engine::Event::name)
            .collect()
    }

    fn drain(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        let limit = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        detached(py, || self.inner.drain(limit))
    }

    fn shutdown(&mut self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.inner.shutdown())
    }

    fn reopen_logs(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.inner.reopen_logs())
    }

    fn release_unused(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.inner.release_unused())
    }

    fn log(&self, py: Python<'_>, level: &str, component: &str, message: &str) -> PyResult<()> {
        let Some(level) = Level::parse(level) else {
            return Err(PyValueError::new_err(format!("unknown level: {level}")));
        };
        detached(py, || self.inner.log(level, component, message))
    }

    #[pyo3(signature = (name, amount = 1))]
    fn count(&self, name: &str, amount: u64) {
        self.inner.count(name, amount);
    }
}
