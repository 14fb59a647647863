//! Clocks: the real ones, and one for tests.

use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tidegate::{Clock, SharedClock, SystemClock, Timestamp};

/// The clock of a limiter.
#[derive(Debug, Clone)]
pub(crate) enum AnyClock {
    System(SystemClock),
    Shared(SharedClock),
    Fake(Arc<tidegate::FakeClock>),
}

impl Clock for AnyClock {
    #[inline]
    fn now(&self) -> Timestamp {
        match self {
            Self::System(clock) => clock.now(),
            Self::Shared(clock) => clock.now(),
            Self::Fake(clock) => clock.now(),
        }
    }
}

impl AnyClock {
    /// The fake clock, if there is one, else the real one.
    pub(crate) fn or_system(fake: Option<&Bound<'_, FakeClock>>) -> Self {
        fake.map_or_else(|| Self::System(SystemClock::new()), Self::fake)
    }

    pub(crate) fn or_shared(fake: Option<&Bound<'_, FakeClock>>, shared: SharedClock) -> Self {
        fake.map_or(Self::Shared(shared), Self::fake)
    }

    fn fake(clock: &Bound<'_, FakeClock>) -> Self {
        Self::Fake(clock.get().0.clone())
    }
}

/// A clock that moves only when told to, for tests.
#[pyclass(frozen, module = "tidegate")]
pub(crate) struct FakeClock(Arc<tidegate::FakeClock>);

#[pymethods]
impl FakeClock {
    #[new]
    #[pyo3(signature = (now = 0.0, /))]
    fn new(now: f64) -> PyResult<Self> {
        Ok(Self(Arc::new(tidegate::FakeClock::at(Timestamp::ZERO + seconds(now)?))))
    }

    /// The time, in seconds since the Unix epoch.
    #[getter]
    fn now(&self) -> f64 {
        self.0.now().since(Timestamp::ZERO).as_secs_f64()
    }

    /// Moves the time forward.
    #[pyo3(signature = (seconds, /))]
    fn advance(&self, #[pyo3(from_py_with = from_seconds)] seconds: Duration) {
        self.0.advance(seconds);
    }

    /// Sets the time, forward or back, in seconds since the Unix epoch.
    #[pyo3(signature = (now, /))]
    fn set(&self, #[pyo3(from_py_with = from_seconds)] now: Duration) {
        self.0.set(Timestamp::ZERO + now);
    }

    fn __repr__(&self) -> String {
        format!("FakeClock({})", self.now())
    }
}

fn from_seconds(object: &Bound<'_, PyAny>) -> PyResult<Duration> {
    seconds(object.extract()?)
}

/// A number of seconds that Python gives.
pub(crate) fn seconds(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        PyValueError::new_err(format!("{seconds} is no time in seconds; give a number from 0 on"))
    })
}

/// Seconds for Python, rounded up.
pub(crate) fn rounded_up(span: Duration) -> f64 {
    let seconds = span.as_secs_f64();
    match Duration::try_from_secs_f64(seconds) {
        Ok(back) if back < span => seconds.next_up(),
        _ => seconds,
    }
}
