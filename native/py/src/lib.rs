//! The native module `tidegate._native`: the engine for Python. Converts, never decides.
//!
//! `python/tidegate/_native.pyi` is the contract, with the meaning of every call; this crate holds no other knowledge. All
//! work runs with the GIL released, and a panic becomes an `EngineError` instead of ending the loop that called.

mod discovery;
mod engine;
mod errors;
mod matcher;

use pyo3::prelude::*;

#[pymodule(name = "_native")]
mod native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::discovery::{
        DeltaDiscoveryResponse, DiscoveryResponse, decode_delta_discovery_response,
        decode_discovery_file, decode_discovery_response, encode_delta_discovery_request,
        encode_discovery_request,
    };
    #[pymodule_export]
    use super::engine::{ApplyResult, BootstrapInfo, Engine, GrpcTarget, Subscription};
    #[pymodule_export]
    use super::matcher::{Matcher, RouteMatch};
    #[pymodule_export]
    use super::version;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::errors::add(module)
    }
}

/// The program's version, in the shape of Envoy's.
#[pyfunction]
fn version() -> String {
    tidegate_engine::version()
}
