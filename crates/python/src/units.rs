//! [`Units`]: costs, as Python has them.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyInt;
use tidegate::Cost;

/// A cost: an int that is not negative.
#[derive(Clone, Copy)]
pub(crate) struct Units(pub(crate) u64);

impl Units {
    pub(crate) const ONE: Self = Self(1);

    pub(crate) const fn cost(self) -> Cost {
        Cost::new(self.0)
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Units {
    type Error = PyErr;

    #[inline]
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        object.extract::<u64>().map(Self).map_err(|_| explain(object))
    }
}

#[cold]
fn explain(object: Borrowed<'_, '_, PyAny>) -> PyErr {
    let shown = object.repr().map_or_else(|_| "that".to_owned(), |repr| repr.to_string());
    if !object.is_instance_of::<PyInt>() {
        return PyTypeError::new_err(format!("a cost is an int, not {shown}; round it up to one"));
    }
    PyValueError::new_err(match shown.starts_with('-') {
        true => {
            format!("a cost is 0 or more, not {shown}; to give units back, settle a reservation")
        }
        false => format!("a cost of {shown} is above any limit; use at most {}", u64::MAX),
    })
}
