//! [`Limiter`]: one limit per key, and the two classes that most people want.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use tidegate::{Cost, KeyedLimiter, Limit, SharedFile, SharedHolds, WhenFull};

use crate::clock::{AnyClock, FakeClock, seconds};
use crate::decision::Decision;
use crate::error;
use crate::key::{AnyKey, KeyRef};
use crate::options::{self, LimitOptions};
use crate::remote::{Remote, RemoteOptions};
use crate::reservation::{Open, Reservation, cancels};
use crate::units::Units;

pub(crate) type Local = KeyedLimiter<AnyKey, Limit, AnyClock>;
pub(crate) type Shared = SharedHolds<AnyKey, AnyClock>;

/// Where a limiter's state is.
enum Place {
    /// In memory of this process.
    Local(Arc<Local>),
    /// In a file that processes share; reservations expire there.
    Shared(Arc<Shared>, Duration),
    /// On a server that machines share.
    Remote(Remote),
}

/// One limit per key: Limiter("20/minute").decide("alice").
#[pyclass(frozen, subclass, module = "tidegate")]
pub(crate) struct Limiter {
    name: String,
    place: Place,
}

/// Where and for how many keys a limiter is made.
pub(crate) struct Setting<'a, 'py> {
    pub(crate) name: &'a str,
    pub(crate) keys: usize,
    pub(crate) when_full: &'a str,
    pub(crate) shared: Option<PathBuf>,
    pub(crate) reservation_expires: f64,
    pub(crate) clock: Option<&'a Bound<'py, FakeClock>>,
    pub(crate) remote: RemoteOptions<'a>,
}

impl Limiter {
    fn make(py: Python<'_>, limit: Limit, setting: Setting<'_, '_>) -> PyResult<Self> {
        let Setting { name, keys, when_full, shared, reservation_expires, clock, remote } = setting;
        let when_full = options::when_full(when_full)?;
        if limit.is_concurrency() {
            return Err(PyValueError::new_err(
                "a limit of concurrent calls is for policies and tidegate.fastapi.limit, which see a call end",
            ));
        }
        if let Some(url) = remote.redis {
            if shared.is_some() || clock.is_some() {
                return Err(PyValueError::new_err(
                    "a limiter on a server goes by the server's clock and is in no file; leave out shared= and clock=",
                ));
            }
            let place = Place::Remote(Remote::new(url, name, limit, remote)?);
            return Ok(Self { name: name.to_owned(), place });
        }
        if remote.lease != 0.0 || remote.when_down != "deny" {
            return Err(PyValueError::new_err(
                "lease= and when_down= are for limiters on a server; give its address, redis=\"redis://...\"",
            ));
        }
        options::check_keys(keys, &limit)?;
        let lifetime = seconds(reservation_expires)?;
        if lifetime.is_zero() {
            return Err(PyValueError::new_err(
                "reservation_expires=0 would give back at once; give the seconds that a call may take",
            ));
        }
        let place = match shared {
            None => {
                let limiter = KeyedLimiter::try_new(limit, keys)
                    .map_err(|error| PyMemoryError::new_err(error.to_string()))?;
                let limiter = limiter.with_when_full(when_full);
                Place::Local(Arc::new(limiter.with_clock(AnyClock::or_system(clock))))
            }
            Some(path) => {
                if when_full != WhenFull::Deny {
                    return Err(PyValueError::new_err(
                        "when_full=\"take-over\" is for limiters in memory; leave it out with shared=",
                    ));
                }
                let open = || {
                    let file = SharedFile::open(&path)?;
                    Ok((file.holds(name, limit, keys)?, file.clock()))
                };
                let (holds, time) = py.detach(open).map_err(|error| error::of_file(&error))?;
                let clock = AnyClock::or_shared(clock, time);
                Place::Shared(Arc::new(holds.with_clock(clock)), lifetime)
            }
        };
        Ok(Self { name: name.to_owned(), place })
    }

    /// The limiter in this process or its file; or that it is on a server.
    #[inline]
    fn limiter(&self) -> Result<&Local, &Remote> {
        match &self.place {
            Place::Local(limiter) => Ok(limiter),
            Place::Shared(holds, _) => Ok(holds.limiter()),
            Place::Remote(remote) => Err(remote),
        }
    }

    fn limit(&self) -> &Limit {
        match self.limiter() {
            Ok(limiter) => limiter.table().protocol(),
            Err(remote) => remote.limit(),
        }
    }

    #[inline]
    fn admit(&self, py: Python<'_>, key: &KeyRef<'_, '_>, cost: Cost) -> PyResult<bool> {
        match self.limiter() {
            Ok(limiter) => Ok(limiter.admit(key, cost).is_ok()),
            Err(remote) => Ok(remote.decide(py, &key.text(), cost, true)?.is_allow()),
        }
    }

    fn peek_at(
        &self,
        py: Python<'_>,
        key: &KeyRef<'_, '_>,
        cost: Cost,
    ) -> PyResult<tidegate::Decision> {
        match self.limiter() {
            Ok(limiter) => Ok(limiter.peek(key, cost)),
            Err(remote) => remote.decide(py, &key.text(), cost, false),
        }
    }
}

#[pymethods]
impl Limiter {
    #[new]
    #[pyo3(signature = (
        limit, /, *, name = "limiter", algorithm = None, burst = None, epochs = None, time_zone = None,
        keys = 10_000, when_full = "deny", shared = None, reservation_expires = 3600.0, clock = None,
        redis = None, namespace = "default", when_down = "deny", lease = 0.0
    ))]
    #[allow(clippy::too_many_arguments)] // Python has names for them
    fn new(
        py: Python<'_>,
        limit: &str,
        name: &str,
        algorithm: Option<&str>,
        burst: Option<u64>,
        epochs: Option<usize>,
        time_zone: Option<&str>,
        keys: usize,
        when_full: &str,
        shared: Option<PathBuf>,
        reservation_expires: f64,
        clock: Option<&Bound<'_, FakeClock>>,
        redis: Option<&str>,
        namespace: &str,
        when_down: &str,
        lease: f64,
    ) -> PyResult<Self> {
        let limit = LimitOptions { algorithm, burst, epochs, time_zone }.limit(limit)?;
        let remote = RemoteOptions { redis, namespace, when_down, lease };
        Self::make(
            py,
            limit,
            Setting { name, keys, when_full, shared, reservation_expires, clock, remote },
        )
    }

    /// Whether `key` may spend `cost` now; charges it if so.
    #[inline]
    #[pyo3(signature = (key, cost = Units::ONE), text_signature = "($self, key, cost=1)")]
    fn is_allowed(&self, py: Python<'_>, key: KeyRef<'_, '_>, cost: Units) -> PyResult<bool> {
        self.admit(py, &key, cost.cost())
    }

    /// Whether `key` may spend `cost` now, and what is left; charges it if so.
    #[pyo3(signature = (key, cost = Units::ONE), text_signature = "($self, key, cost=1)")]
    fn decide(&self, py: Python<'_>, key: KeyRef<'_, '_>, cost: Units) -> PyResult<Decision> {
        Ok(Decision::of(match self.limiter() {
            Ok(limiter) => limiter.decide(&key, cost.cost()),
            Err(remote) => remote.decide(py, &key.text(), cost.cost(), true)?,
        }))
    }

    /// What `decide` would answer. Charges nothing.
    #[pyo3(signature = (key, cost = Units::ONE), text_signature = "($self, key, cost=1)")]
    fn peek(&self, py: Python<'_>, key: KeyRef<'_, '_>, cost: Units) -> PyResult<Decision> {
        Ok(Decision::of(self.peek_at(py, &key, cost.cost())?))
    }

    /// The units that `key` has left. Charges nothing.
    fn remaining(&self, py: Python<'_>, key: KeyRef<'_, '_>) -> PyResult<u64> {
        Ok(self.peek_at(py, &key, Cost::ZERO)?.remaining())
    }

    /// Reserves an estimate for `key`, to be settled by what was really used.
    #[pyo3(signature = (key, estimate, *, unsettled = "keep"))]
    fn reserve(
        &self,
        py: Python<'_>,
        key: KeyRef<'_, '_>,
        estimate: Units,
        unsettled: &str,
    ) -> PyResult<Reservation> {
        let cancels = cancels(unsettled)?;
        let estimate = estimate.cost();
        let open = match &self.place {
            Place::Local(limiter) => limiter.reserve_owned(&key, estimate).map(Open::Local),
            Place::Shared(holds, lifetime) => {
                holds.reserve_owned(&key, estimate, *lifetime).map(Open::Shared)
            }
            Place::Remote(remote) => remote.reserve(py, &key.text(), estimate)?.map(Open::Remote),
        };
        match open {
            Ok(open) => Ok(Reservation::new(open, cancels)),
            Err(denial) => Err(error::of_denial(py, &self.name, self.limit(), denial)),
        }
    }

    /// Gives back what was reserved in a shared file by processes that have died, once it has expired,
    /// and tells how many reservations that were. A reservation that is denied looks for itself.
    fn return_expired(&self) -> usize {
        match &self.place {
            Place::Local(_) | Place::Remote(_) => 0,
            Place::Shared(holds, _) => holds.return_expired(),
        }
    }

    /// The name of the limit: of its table, if it is in a file.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// The limit in words, such as "sliding-window-log, 20 per minute".
    #[getter(limit)]
    fn limit_text(&self) -> String {
        self.limit().to_string()
    }

    /// The most units that can be spent at once.
    #[getter]
    fn capacity(&self) -> u64 {
        self.limit().capacity()
    }

    /// How many new keys were denied because every place for them was taken.
    #[getter]
    fn denied_for_room(&self) -> u64 {
        self.limiter().map_or(0, |limiter| limiter.table().tally().denied())
    }

    fn __repr__(&self) -> String {
        format!("<tidegate limiter {:?}: {}>", self.name, self.limit())
    }
}

/// At most so many requests per user in any window of so many seconds.
#[pyclass(frozen, subclass, extends = Limiter, module = "tidegate")]
pub(crate) struct RateLimiter;

#[pymethods]
impl RateLimiter {
    #[new]
    #[pyo3(signature = (
        max_requests, window_seconds, *, name = "requests", algorithm = None, keys = 10_000,
        when_full = "deny", shared = None, reservation_expires = 3600.0, clock = None,
        redis = None, namespace = "default", when_down = "deny", lease = 0.0
    ))]
    #[allow(clippy::too_many_arguments)] // Python has names for them
    fn new(
        py: Python<'_>,
        max_requests: u64,
        window_seconds: f64,
        name: &str,
        algorithm: Option<&str>,
        keys: usize,
        when_full: &str,
        shared: Option<PathBuf>,
        reservation_expires: f64,
        clock: Option<&Bound<'_, FakeClock>>,
        redis: Option<&str>,
        namespace: &str,
        when_down: &str,
        lease: f64,
    ) -> PyResult<PyClassInitializer<Self>> {
        let rate = options::rate_per_seconds(max_requests, window_seconds)?;
        let limit = LimitOptions { algorithm, ..LimitOptions::default() }.limit(&rate)?;
        let remote = RemoteOptions { redis, namespace, when_down, lease };
        let setting = Setting { name, keys, when_full, shared, reservation_expires, clock, remote };
        let limiter = Limiter::make(py, limit, setting)?;
        Ok(PyClassInitializer::from(limiter).add_subclass(Self))
    }
}

/// At most so many tokens per user and day.
#[pyclass(frozen, subclass, extends = Limiter, module = "tidegate")]
pub(crate) struct TokenBudget;

#[pymethods]
impl TokenBudget {
    #[new]
    #[pyo3(signature = (
        daily_limit, *, name = "tokens", time_zone = None, keys = 10_000, shared = None,
        reservation_expires = 3600.0, clock = None,
        redis = None, namespace = "default", when_down = "deny", lease = 0.0
    ))]
    #[allow(clippy::too_many_arguments)] // Python has names for them
    fn new(
        py: Python<'_>,
        daily_limit: u64,
        name: &str,
        time_zone: Option<&str>,
        keys: usize,
        shared: Option<PathBuf>,
        reservation_expires: f64,
        clock: Option<&Bound<'_, FakeClock>>,
        redis: Option<&str>,
        namespace: &str,
        when_down: &str,
        lease: f64,
    ) -> PyResult<PyClassInitializer<Self>> {
        let algorithm = Some("fixed-window");
        let options = LimitOptions { algorithm, time_zone, ..LimitOptions::default() };
        let limit = options.limit(&format!("{daily_limit} per day"))?;
        let remote = RemoteOptions { redis, namespace, when_down, lease };
        let setting =
            Setting { name, keys, when_full: "deny", shared, reservation_expires, clock, remote };
        let limiter = Limiter::make(py, limit, setting)?;
        Ok(PyClassInitializer::from(limiter).add_subclass(Self))
    }

    /// Whether the user has so many tokens left today; charges them if so.
    #[inline]
    fn check_and_deduct(
        slf: &Bound<'_, Self>,
        user: KeyRef<'_, '_>,
        tokens: Units,
    ) -> PyResult<bool> {
        slf.as_super().get().admit(slf.py(), &user, tokens.cost())
    }
}
