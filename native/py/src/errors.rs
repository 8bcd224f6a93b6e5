//! The module's exceptions, and panics as one of them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::ffi::c_str;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// Written in Python, because a class with a `__str__` of its own that inherits from a built-in one cannot be made with the
/// stable ABI of Python 3.11.
const SOURCE: &std::ffi::CStr = c_str!(
    r#"
class ConfigError(Exception):
    def __str__(self):
        return ": ".join(str(part) for part in self.args if part)

class DecodeError(Exception):
    pass

class EngineError(Exception):
    pass

for each in (ConfigError, DecodeError, EngineError):
    each.__module__ = "tidegate._native"
"#
);

static CONFIG_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static DECODE_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static ENGINE_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Defines the exceptions.
pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let source = PyModule::from_code(
        py,
        SOURCE,
        c_str!("tidegate/_native_errors.py"),
        c_str!("tidegate._native_errors"),
    )?;
    for (name, cell) in [
        ("ConfigError", &CONFIG_ERROR),
        ("DecodeError", &DECODE_ERROR),
        ("EngineError", &ENGINE_ERROR),
    ] {
        let class = source.getattr(name)?.cast_into::<PyType>()?;
        module.add(name, &class)?;
        // The module is initialised once per process.
        let _first = cell.set(py, class.unbind());
    }
    Ok(())
}

fn raise<A>(py: Python<'_>, class: &PyOnceLock<Py<PyType>>, args: A) -> PyErr
where
    A: pyo3::PyErrArguments + Send + Sync + 'static,
{
    match class.get(py) {
        Some(class) => PyErr::from_type(class.bind(py).clone(), args),
        None => pyo3::exceptions::PyRuntimeError::new_err(args),
    }
}

pub(crate) fn config_error(py: Python<'_>, error: tidegate_engine::ConfigError) -> PyErr {
    raise(py, &CONFIG_ERROR, (error.name, error.path, error.reason))
}

pub(crate) fn decode_error(py: Python<'_>, reason: String) -> PyErr {
    raise(py, &DECODE_ERROR, (reason,))
}

pub(crate) fn engine_error(py: Python<'_>, reason: String) -> PyErr {
    raise(py, &ENGINE_ERROR, (reason,))
}

/// Runs work with the GIL released; a panic becomes an `EngineError`.
pub(crate) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    py.detach(|| catch_unwind(AssertUnwindSafe(work)))
        .map_err(|panic| engine_error(py, format!("internal error: {}", message(&*panic))))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic")
}
