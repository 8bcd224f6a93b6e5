//! Matching without traffic.

use std::net::{IpAddr, SocketAddr};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tidegate_engine::{PlainRequest, Seen};

use crate::discovery::format;
use crate::errors::{config_error, detached};

/// Where a request would go.
#[pyclass(frozen, get_all, module = "tidegate._native")]
pub(crate) struct RouteMatch {
    virtual_host: String,
    route: String,
    index: usize,
    cluster: String,
}

/// The data path's own matching over one compiled snapshot, without traffic.
#[pyclass(frozen, module = "tidegate._native")]
pub(crate) struct Matcher {
    inner: tidegate_engine::Matcher,
}

fn ip(text: &str) -> PyResult<IpAddr> {
    text.parse()
        .map_err(|_| PyValueError::new_err(format!("not an IP address: {text}")))
}

#[pymethods]
impl Matcher {
    #[new]
    fn new(py: Python<'_>, bootstrap: &[u8], format: &str) -> PyResult<Self> {
        let format = self::format(py, format)?;
        let made = detached(py, || tidegate_engine::Matcher::new(bootstrap, format))?;
        made.map(|inner| Self { inner })
            .map_err(|error| config_error(py, error))
    }

    #[pyo3(signature = (virtual_listener, address, port, repeat = 1))]
    fn original_dst(
        &self,
        py: Python<'_>,
        virtual_listener: &str,
        address: &str,
        port: u16,
        repeat: usize,
    ) -> PyResult<Option<String>> {
        let address = SocketAddr::new(ip(address)?, port);
        detached(py, || {
            self.inner.original_dst(virtual_listener, address, repeat)
        })
    }

    #[pyo3(signature = (listener, destination_ip, destination_port, source_ip = "127.0.0.1", repeat = 1, *,
                        source_port = 0, server_name = "", transport_protocol = "raw_buffer",
                        application_protocols = Vec::new()),
           text_signature = "(self, listener, destination_ip, destination_port, source_ip='127.0.0.1', repeat=1, *, source_port=0, server_name='', transport_protocol='raw_buffer', application_protocols=())")]
    #[allow(
        clippy::too_many_arguments,
        reason = "they are keywords of a Python call"
    )]
    fn filter_chain(
        &self,
        py: Python<'_>,
        listener: &str,
        destination_ip: &str,
        destination_port: u16,
        source_ip: &str,
        repeat: usize,
        source_port: u16,
        server_name: &str,
        transport_protocol: &str,
        application_protocols: Vec<String>,
    ) -> PyResult<Option<String>> {
        let destination = SocketAddr::new(ip(destination_ip)?, destination_port);
        let source = SocketAddr::new(ip(source_ip)?, source_port);
        let seen = Seen {
            server_name: server_name.to_ascii_lowercase(),
            transport_protocol: transport_protocol.to_owned(),
            application_protocols,
        };
        detached(py, || {
            self.inner
                .filter_chain(listener, destination, source, &seen, repeat)
        })
    }

    #[pyo3(signature = (route_config, authority, path, method = "GET", headers = Vec::new(), repeat = 1),
           text_signature = "(self, route_config, authority, path, method='GET', headers=(), repeat=1)")]
    fn route(
        &self,
        py: Python<'_>,
        route_config: &str,
        authority: &str,
        path: &str,
        method: &str,
        headers: Vec<(String, String)>,
        repeat: usize,
    ) -> PyResult<Option<RouteMatch>> {
        let request = PlainRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            authority: authority.to_owned(),
            scheme: "http".to_owned(),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
        };
        let found = detached(py, || self.inner.route(route_config, &request, repeat))?;
        Ok(found.map(|found| RouteMatch {
            virtual_host: found.virtual_host,
            route: found.route,
            index: found.index,
            cluster: found.cluster,
        }))
    }
}
