//! Frames of the discovery protocol.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tidegate_engine::ConfigError;
use tidegate_xds::{DeltaDiscoveryRequest, DiscoveryRequest, Format};

use crate::errors::{config_error, decode_error, detached};

/// What a discovery response holds, in either transport (gRPC or file).
#[pyclass(frozen, module = "tidegate._native")]
pub(crate) struct DiscoveryResponse {
    inner: tidegate_xds::DiscoveryResponse,
}

#[pymethods]
impl DiscoveryResponse {
    #[getter]
    fn type_url(&self) -> &str {
        &self.inner.type_url
    }

    #[getter]
    fn version(&self) -> &str {
        &self.inner.version
    }

    #[getter]
    fn nonce(&self) -> &str {
        &self.inner.nonce
    }

    #[getter]
    fn control_plane(&self) -> &str {
        &self.inner.control_plane
    }

    #[getter]
    fn resources<'py>(&self, py: Python<'py>) -> Vec<(&str, Bound<'py, PyBytes>)> {
        resources(py, &self.inner.resources)
    }
}

/// What an incremental discovery response holds.
#[pyclass(frozen, module = "tidegate._native")]
pub(crate) struct DeltaDiscoveryResponse {
    inner: tidegate_xds::DeltaDiscoveryResponse,
}

#[pymethods]
impl DeltaDiscoveryResponse {
    #[getter]
    fn type_url(&self) -> &str {
        &self.inner.type_url
    }

    #[getter]
    fn version(&self) -> &str {
        &self.inner.version
    }

    #[getter]
    fn nonce(&self) -> &str {
        &self.inner.nonce
    }

    #[getter]
    fn control_plane(&self) -> &str {
        &self.inner.control_plane
    }

    #[getter]
    fn resources<'py>(&self, py: Python<'py>) -> Vec<(&str, Bound<'py, PyBytes>)> {
        resources(py, &self.inner.resources)
    }

    #[getter]
    fn versions(&self) -> Vec<(&str, &str)> {
        let pairs = self.inner.versions.iter();
        pairs.map(|(name, version)| (&**name, &**version)).collect()
    }

    #[getter]
    fn removed(&self) -> &[String] {
        &self.inner.removed
    }
}

fn resources<'a, 'py>(
    py: Python<'py>,
    resources: &'a [(String, Vec<u8>)],
) -> Vec<(&'a str, Bound<'py, PyBytes>)> {
    resources
        .iter()
        .map(|(name, bytes)| (name.as_str(), PyBytes::new(py, bytes)))
        .collect()
}

/// The words of the contract for a file's form.
pub(crate) fn format(py: Python<'_>, format: &str) -> PyResult<Format> {
    match format {
        "yaml" => Ok(Format::Yaml),
        "json" => Ok(Format::Json),
        "pb" => Ok(Format::Pb),
        other => Err(config_error(
            py,
            ConfigError {
                name: String::new(),
                path: String::new(),
                reason: format!("the form '{other}' is not supported; it must be yaml, json or pb"),
            },
        )),
    }
}

/// In the first request of a stream only.
const NO_NODE: &[u8] = &[];

#[pyfunction]
#[pyo3(signature = (*, type_url, version, nonce, names, node = NO_NODE, error_message = ""),
       text_signature = "(*, type_url, version, nonce, names, node=b'', error_message='')")]
pub(crate) fn encode_discovery_request<'py>(
    py: Python<'py>,
    type_url: &str,
    version: &str,
    nonce: &str,
    names: Vec<String>,
    node: &[u8],
    error_message: &str,
) -> Bound<'py, PyBytes> {
    let request = DiscoveryRequest {
        node: (!node.is_empty()).then_some(node),
        type_url,
        version,
        nonce,
        resource_names: names,
        error_detail: (!error_message.is_empty()).then_some(error_message),
    };
    PyBytes::new(py, &tidegate_xds::encode_discovery_request(request))
}

#[pyfunction]
pub(crate) fn decode_discovery_response(
    py: Python<'_>,
    data: &[u8],
) -> PyResult<DiscoveryResponse> {
    let decoded = detached(py, || tidegate_xds::decode_discovery_response(data))?;
    decoded
        .map(|inner| DiscoveryResponse { inner })
        .map_err(|reason| decode_error(py, reason))
}

#[pyfunction]
#[pyo3(signature = (*, type_url, nonce, subscribe, unsubscribe, initial_versions, node = NO_NODE, error_message = ""),
       text_signature = "(*, type_url, nonce, subscribe, unsubscribe, initial_versions, node=b'', error_message='')")]
pub(crate) fn encode_delta_discovery_request<'py>(
    py: Python<'py>,
    type_url: &str,
    nonce: &str,
    subscribe: Vec<String>,
    unsubscribe: Vec<String>,
    initial_versions: Vec<(String, String)>,
    node: &[u8],
    error_message: &str,
) -> Bound<'py, PyBytes> {
    let request = DeltaDiscoveryRequest {
        node: (!node.is_empty()).then_some(node),
        type_url,
        nonce,
        subscribe,
        unsubscribe,
        initial_versions,
        error_detail: (!error_message.is_empty()).then_some(error_message),
    };
    PyBytes::new(py, &tidegate_xds::encode_delta_discovery_request(request))
}

#[pyfunction]
pub(crate) fn decode_delta_discovery_response(
    py: Python<'_>,
    data: &[u8],
) -> PyResult<DeltaDiscoveryResponse> {
    let decoded = detached(py, || tidegate_xds::decode_delta_discovery_response(data))?;
    decoded
        .map(|inner| DeltaDiscoveryResponse { inner })
        .map_err(|reason| decode_error(py, reason))
}

#[pyfunction]
pub(crate) fn decode_discovery_file(
    py: Python<'_>,
    data: &[u8],
    format: &str,
    type_url: &str,
) -> PyResult<DiscoveryResponse> {
    let format = self::format(py, format)?;
    let decoded = detached(py, || tidegate_xds::decode_discovery_file(data, format))?;
    let mut inner = decoded.map_err(|rejected| config_error(py, rejected.into()))?;
    if inner.type_url.is_empty() {
        type_url.clone_into(&mut inner.type_url);
    }
    Ok(DiscoveryResponse { inner })
}
