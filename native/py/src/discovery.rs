//! Frames of the discovery protocol.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tidegate_engine::ConfigError;
use tidegate_xds::{DiscoveryRequest, Format};

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
        self.inner
            .resources
            .iter()
            .map(|(name, bytes)| (name.as_str(), PyBytes::new(py, bytes)))
            .collect()
    }
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
#[pyo3(signature = (*, type_url, version, nonce, names, node = NO_NODE, error_code = 0, error_message = ""),
       text_signature = "(*, type_url, version, nonce, names, node=b'', error_code=0, error_message='')")]
pub(crate) fn encode_discovery_request<'py>(
    py: Python<'py>,
    type_url: &str,
    version: &str,
    nonce: &str,
    names: Vec<String>,
    node: &[u8],
    error_code: i32,
    error_message: &str,
) -> Bound<'py, PyBytes> {
    let request = DiscoveryRequest {
        node: (!node.is_empty()).then_some(node),
        type_url,
        version,
        nonce,
        resource_names: names,
        error_detail: (error_code != 0).then_some(error_message),
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
