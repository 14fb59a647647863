//! [`Verdict`]: a policy's answer, as a response is made of it.

use std::sync::{Mutex, PoisonError};

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use tidegate::Retry;
use tidegate::policy::{Charged, Policy, Reason};
use tidegate_tower::{Fields, Problem, retry_after_s};

use crate::clock::rounded_up;
use crate::decision::cause_name;
use crate::reservation::{Open, Reservation};

/// A policy's answer to a request: true where a truth value is wanted if it may go on.
#[pyclass(frozen, module = "tidegate")]
pub(crate) struct Verdict {
    refusal: Option<Refused>,
    standings: Vec<Standing>,
    headers: Py<PyList>,
    reservation: Option<Py<Reservation>>,
    place: Option<Py<Reservation>>,
    /// What was charged at fixed costs, until it is taken back.
    charged: Mutex<Option<Charged>>,
}

/// What a denied request is told.
struct Refused {
    rule: String,
    cause: &'static str,
    retry_after: Option<f64>,
    status: u16,
    detail: String,
    body: Vec<u8>,
}

impl Verdict {
    pub(crate) fn of(
        py: Python<'_>,
        policy: &Policy,
        verdict: tidegate::policy::Verdict<'_>,
        is_charged: bool,
        fields: Fields,
    ) -> PyResult<Self> {
        let standings = verdict.standings().iter().map(Standing::of).collect();
        let mut headers = HeaderMap::with_capacity(5);
        let refusal = match &verdict {
            tidegate::policy::Verdict::Allow(_) => None,
            tidegate::policy::Verdict::Deny(refusal) => {
                let problem = Problem::of(refusal);
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                if let Some(secs) = retry_after_s(refusal) {
                    headers.insert(RETRY_AFTER, secs.into());
                }
                Some(Refused {
                    rule: refusal.rule().name().to_owned(),
                    cause: match refusal.reason() {
                        Reason::Limit(denial) => cause_name(denial.cause()),
                        Reason::MissingKey(_) => "missing-key",
                        Reason::MissingCost => "missing-cost",
                        Reason::Unavailable { .. } => "unavailable",
                    },
                    retry_after: match refusal.retry() {
                        Retry::After(wait) => Some(rounded_up(wait)),
                        Retry::Never => None,
                    },
                    status: problem.status(),
                    detail: problem.detail().to_owned(),
                    body: problem.to_json(),
                })
            }
        };
        fields.render(verdict.standings()).append_to(&mut headers);
        let (charged, reservation) = match verdict {
            tidegate::policy::Verdict::Deny(_) => (None, None),
            tidegate::policy::Verdict::Allow(grant) => {
                (is_charged.then(|| policy.charged(&grant)), grant.into_reservation())
            }
        };
        let (used, place) = match reservation {
            None => (None, None),
            Some(reservation) => reservation.split_places(),
        };
        let place = place
            .map(|place| Py::new(py, Reservation::new(Open::Policy(place), false)))
            .transpose()?;
        // Who keeps the reservation and forgets the verdict keeps the place.
        let kept = |place: &Py<Reservation>| place.clone_ref(py);
        let reservation = used
            .map(|used| {
                let place = place.as_ref().map(kept);
                Py::new(py, Reservation::beside(place, Open::Policy(used), false))
            })
            .transpose()?;
        let headers = pairs(py, &headers)?;
        Ok(Self { refusal, standings, headers, reservation, place, charged: Mutex::new(charged) })
    }
}

/// Headers as ASGI has them.
fn pairs(py: Python<'_>, headers: &HeaderMap) -> PyResult<Py<PyList>> {
    let list = PyList::empty(py);
    for (name, value) in headers {
        let name = PyBytes::new(py, name.as_str().as_bytes());
        list.append(PyTuple::new(py, [name, PyBytes::new(py, value.as_bytes())])?)?;
    }
    Ok(list.unbind())
}

#[pymethods]
impl Verdict {
    /// Whether the request may go on.
    #[getter]
    fn allowed(&self) -> bool {
        self.refusal.is_none()
    }

    /// The name of the rule that denied; None when the request is allowed.
    #[getter]
    fn rule(&self) -> Option<&str> {
        self.refusal.as_ref().map(|refused| refused.rule.as_str())
    }

    /// Why it was denied: "exhausted", "oversized", "table-full", "missing-key" or "missing-cost".
    #[getter]
    fn cause(&self) -> Option<&'static str> {
        self.refusal.as_ref().map(|refused| refused.cause)
    }

    /// After how many seconds a denied request can succeed, rounded up; None when it is allowed, or never
    /// can.
    #[getter]
    fn retry_after(&self) -> Option<f64> {
        self.refusal.as_ref().and_then(|refused| refused.retry_after)
    }

    /// How the rules that apply stand, in their order.
    #[getter]
    fn standings(&self) -> Vec<Standing> {
        self.standings.clone()
    }

    /// The status of the answer: 429, or 403 when the request does not say what a rule needs to know; 200
    /// when it is allowed.
    #[getter]
    fn status(&self) -> u16 {
        self.refusal.as_ref().map_or(200, |refused| refused.status)
    }

    /// The fields of the answer, as ASGI has them: all of a denial's, or those to be added to the answer
    /// of a request that is allowed.
    #[getter]
    fn headers(&self, py: Python<'_>) -> Py<PyList> {
        self.headers.clone_ref(py)
    }

    /// What happened, which rule, and what to do; empty when the request is allowed.
    #[getter]
    fn detail(&self) -> &str {
        self.refusal.as_ref().map_or("", |refused| &refused.detail)
    }

    /// The body of a denial's answer, as RFC 9457 has it; empty when the request is allowed.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.refusal.as_ref().map_or(b"", |refused| &refused.body))
    }

    /// What was reserved for LLM tokens, to be settled; None when no rule counts them.
    #[getter]
    fn reservation(&self, py: Python<'_>) -> Option<Py<Reservation>> {
        self.reservation.as_ref().map(|reservation| reservation.clone_ref(py))
    }

    /// The request's place among concurrent requests, which it leaves when this is cancelled, or used in a
    /// `with` block that ends, or garbage; None when no rule limits them. Settling LLM tokens keeps it.
    #[getter]
    fn place(&self, py: Python<'_>) -> Option<Py<Reservation>> {
        self.place.as_ref().map(|place| place.clone_ref(py))
    }

    /// Takes back all that an allowed request was charged: somebody else has refused it.
    fn cancel(&self) -> PyResult<()> {
        let charged = self.charged.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(charged) = charged {
            charged.take_back();
        }
        let reserved = [&self.reservation, &self.place].into_iter().flatten();
        let mut open = reserved.filter(|reserved| reserved.get().is_open());
        open.try_for_each(|reserved| reserved.get().cancel())
    }

    fn __bool__(&self) -> bool {
        self.allowed()
    }

    fn __repr__(&self) -> String {
        match &self.refusal {
            None => "Verdict(allowed)".to_owned(),
            Some(refused) => format!("Verdict(denied by {:?}: {})", refused.rule, refused.cause),
        }
    }
}

/// How a rule stands with a request's key.
#[pyclass(frozen, get_all, module = "tidegate")]
#[derive(Clone)]
pub(crate) struct Standing {
    /// The rule's name.
    name: String,
    /// The most units that can be spent at once.
    capacity: u64,
    /// The units still free.
    remaining: u64,
    /// The seconds until every unit is free again, rounded up.
    reset_after: f64,
}

impl Standing {
    fn of(standing: &tidegate::policy::Standing<'_>) -> Self {
        Self {
            name: standing.rule().name().to_owned(),
            capacity: standing.rule().limit().capacity(),
            remaining: standing.remaining(),
            reset_after: rounded_up(standing.reset_after()),
        }
    }
}

#[pymethods]
impl Standing {
    fn __repr__(&self) -> String {
        let Self { name, capacity, remaining, reset_after } = self;
        format!("Standing({name:?}, {remaining} of {capacity}, reset_after={reset_after})")
    }
}
