//! [`Reservation`]: what is reserved for a call, until it is settled.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyValueError};
use pyo3::prelude::*;
use tidegate::policy::Held;
use tidegate::{Account, Cost, ExpiringAccount};

use crate::limiter::{Local, Shared};
use crate::remote::RemoteOpen;
use crate::units::Units;

/// An estimate that was charged, to be settled once it is known what the call really used.
///
/// It ends once: by `settle`, by `cancel`, or with the `with` block that it is used in, or when it is
/// garbage. Unless it was reserved with `unsettled="cancel"`, one that nobody has settled keeps its
/// whole charge, since the call behind it may have been made and paid for.
#[pyclass(frozen, module = "tidegate")]
pub(crate) struct Reservation {
    reserved: u64,
    cancel_unsettled: bool,
    /// The process that it belongs to: its copy in a forked child settles nothing.
    process: u32,
    /// Held for no longer than taking it out, and with no call into Python meanwhile.
    open: Mutex<Option<Open>>,
    /// The request's place among concurrent ones, kept for as long as this is.
    _place: Option<Py<Self>>,
}

/// A reservation of one of the limiters that there are.
pub(crate) enum Open {
    Local(tidegate::Reservation<Account<Arc<Local>>>),
    Shared(tidegate::Reservation<ExpiringAccount<Arc<Shared>>>),
    Policy(tidegate::Reservation<Held>),
    Remote(RemoteOpen),
}

impl Open {
    fn reserved(&self) -> Cost {
        match self {
            Self::Local(reservation) => reservation.reserved(),
            Self::Shared(reservation) => reservation.reserved(),
            Self::Policy(reservation) => reservation.reserved(),
            Self::Remote(reservation) => reservation.reserved(),
        }
    }

    fn settle(self, used: Cost) {
        match self {
            Self::Local(reservation) => reservation.settle(used),
            Self::Shared(reservation) => reservation.settle(used),
            Self::Policy(reservation) => reservation.settle(used),
            Self::Remote(reservation) => reservation.settle(used),
        }
    }
}

impl Reservation {
    pub(crate) fn new(open: Open, cancel_unsettled: bool) -> Self {
        Self::beside(None, open, cancel_unsettled)
    }

    /// One whose request has a place among concurrent ones.
    pub(crate) fn beside(place: Option<Py<Self>>, open: Open, cancel_unsettled: bool) -> Self {
        let reserved = open.reserved().units();
        let (process, open) = (std::process::id(), Mutex::new(Some(open)));
        Self { reserved, cancel_unsettled, process, open, _place: place }
    }

    fn take(&self) -> Option<Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends it, if nobody has.
    fn end(&self) {
        let Some(open) = self.take() else { return };
        if std::process::id() != self.process {
            // The parent settles it.
            std::mem::forget(open);
            return;
        }
        let used = if self.cancel_unsettled { Cost::ZERO } else { open.reserved() };
        open.settle(used);
    }

    fn settle_once(&self, used: Cost) -> PyResult<()> {
        if std::process::id() != self.process {
            return Err(PyRuntimeError::new_err(
                "this reservation was made by the parent process, which settles it; reserve after the fork",
            ));
        }
        let Some(open) = self.take() else {
            return Err(PyRuntimeError::new_err(
                "this reservation has ended: it can be settled or cancelled once",
            ));
        };
        open.settle(used);
        Ok(())
    }
}

/// What becomes of a reservation that nobody settles: whether it is given back.
pub(crate) fn cancels(unsettled: &str) -> PyResult<bool> {
    match unsettled {
        "keep" => Ok(false),
        "cancel" => Ok(true),
        other => Err(PyValueError::new_err(format!(
            "unsettled={other:?} is not known; use \"keep\" or \"cancel\""
        ))),
    }
}

#[pymethods]
impl Reservation {
    /// What was reserved, in units.
    #[getter]
    fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Whether it has not ended yet.
    #[getter]
    pub(crate) fn is_open(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Books what was really used: the rest is given back, or the excess charged.
    #[pyo3(signature = (used, /))]
    fn settle(&self, used: Units) -> PyResult<()> {
        self.settle_once(used.cost())
    }

    /// Gives everything back: the call was not made, or nothing was used.
    pub(crate) fn cancel(&self) -> PyResult<()> {
        self.settle_once(Cost::ZERO)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, _args: &Bound<'_, PyAny>) {
        self.end();
    }

    fn __aenter__(slf: Bound<'_, Self>) -> Ready {
        Ready(Some(slf.unbind().into_any()))
    }

    #[pyo3(signature = (*_args))]
    fn __aexit__(&self, _args: &Bound<'_, PyAny>) -> Ready {
        self.end();
        Ready(None)
    }

    fn __repr__(&self) -> String {
        let state = if self.is_open() { "open" } else { "ended" };
        format!("Reservation({}, {state})", self.reserved)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end();
    }
}

/// An awaitable that has its value already: nothing here waits.
#[pyclass(frozen)]
pub(crate) struct Ready(Option<Py<PyAny>>);

impl Ready {
    pub(crate) const fn new(value: Py<PyAny>) -> Self {
        Self(Some(value))
    }
}

#[pymethods]
impl Ready {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// An awaitable's value comes as the exception that ends it.
    fn __next__(&self, py: Python<'_>) -> PyResult<()> {
        Err(PyStopIteration::new_err(self.0.as_ref().map(|value| value.clone_ref(py))))
    }
}
