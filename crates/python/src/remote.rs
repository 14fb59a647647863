//! [`Remote`]: a limit on a Redis that machines share; and the runtime that waits for it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tidegate::policy::DecidedBy;
use tidegate::{Cost, Decision, Limit};
use tidegate_redis::{
    Ask, LeaseRules, LimitId, LimiterHold, Namespace, RedisBackend, RemoteLimit, RemoteLimiter,
    Server, ServerConfig, WhenDown,
};
use tokio::runtime::{Builder, Runtime};

use crate::error;
use crate::reservation::Ready;

/// The runtime of this process: one thread, which keeps the connections. A forked child gets its own, since
/// threads are not copied.
pub(crate) fn runtime() -> PyResult<&'static Runtime> {
    static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);
    let mut known = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    match *known {
        Some((of, runtime)) if of == process => Ok(runtime),
        _ => {
            let builder = Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime: &'static Runtime = Box::leak(Box::new(builder?));
            *known = Some((process, runtime));
            Ok(runtime)
        }
    }
}

/// Waits for a server, without the interpreter's lock.
pub(crate) fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = T> + Send) -> PyResult<T> {
    let runtime = runtime()?;
    Ok(py.detach(|| runtime.block_on(future)))
}

/// An awaitable for asyncio: of the value itself, if no server has to be waited for, or a future of the loop
/// that runs.
pub(crate) fn awaitable<T: Send + 'static>(
    py: Python<'_>,
    mut future: Pin<Box<dyn Future<Output = T> + Send>>,
    value: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
) -> PyResult<Py<PyAny>> {
    let runtime = runtime()?;
    let _entered = runtime.enter();
    if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return Ok(Py::new(py, Ready::new(value(py, done)?))?.into_any());
    }
    let running = py.import("asyncio")?.call_method0("get_running_loop")?;
    let waiting = running.call_method0("create_future")?;
    let (running, told) = (running.unbind(), waiting.clone().unbind());
    runtime.spawn(async move {
        let done = future.await;
        Python::attach(|py| {
            let outcome = value(py, done);
            // The loop may have been closed meanwhile, and then nobody waits.
            let _ = match outcome {
                Ok(value) => {
                    let told = call_soon(py, &running, &told, "set_result", value.clone_ref(py));
                    told.inspect_err(|_| take_back(py, &value))
                }
                Err(error) => {
                    call_soon(py, &running, &told, "set_exception", error.into_value(py).into_any())
                }
            };
        });
    });
    Ok(waiting.unbind())
}

/// Ends a future of asyncio's, on its loop's thread, unless it was cancelled.
fn call_soon(
    py: Python<'_>,
    running: &Py<PyAny>,
    waiting: &Py<PyAny>,
    how: &'static str,
    value: Py<PyAny>,
) -> PyResult<()> {
    let end = Py::new(py, End { waiting: waiting.clone_ref(py), how, value })?;
    running.call_method1(py, "call_soon_threadsafe", (end,)).map(drop)
}

/// Gives back what an answer was charged or reserved that reaches nobody: the call is not made.
fn take_back(py: Python<'_>, value: &Py<PyAny>) {
    // Answers that hold something can be cancelled; others, and errors, cannot.
    if let Ok(cancel) = value.getattr(py, "cancel") {
        let _ = cancel.call0(py);
    }
}

/// What the loop calls to end a future.
#[pyclass(frozen)]
struct End {
    waiting: Py<PyAny>,
    how: &'static str,
    value: Py<PyAny>,
}

#[pymethods]
impl End {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        if self.waiting.call_method0(py, "done")?.is_truthy(py)? {
            take_back(py, &self.value);
            return Ok(());
        }
        self.waiting.call_method1(py, self.how, (self.value.clone_ref(py),)).map(drop)
    }
}

fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// The server at an address: one connection for all limiters of a process that name it.
pub(crate) fn backend(url: &str, namespace: &str) -> PyResult<RedisBackend> {
    static SERVERS: Mutex<Vec<(u32, String, Arc<Server>)>> = Mutex::new(Vec::new());
    let namespace = Namespace::new(namespace).map_err(value_error)?;
    let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    let known = servers.iter().find(|(of, other, _)| *of == process && other == url);
    let server = match known {
        Some((.., server)) => server.clone(),
        None => {
            let config = ServerConfig::single(url).with_timeout(TIMEOUT);
            let server = Arc::new(Server::new(&config).map_err(value_error)?);
            servers.push((process, url.to_owned(), server.clone()));
            server
        }
    };
    Ok(RedisBackend::new(server, namespace))
}

/// How long a call waits for the server. Longer than in a gateway: the interpreter may keep threads waiting.
const TIMEOUT: Duration = Duration::from_millis(250);

/// Where a limiter's server is, and what it says about it.
#[derive(Clone, Copy)]
pub(crate) struct RemoteOptions<'a> {
    pub(crate) redis: Option<&'a str>,
    pub(crate) namespace: &'a str,
    pub(crate) when_down: &'a str,
    pub(crate) lease: f64,
}

/// A limit on a server.
pub(crate) struct Remote {
    limiter: RemoteLimiter,
    id: LimitId,
}

impl Remote {
    pub(crate) fn new(
        url: &str,
        name: &str,
        limit: Limit,
        options: RemoteOptions<'_>,
    ) -> PyResult<Self> {
        let backend = backend(url, options.namespace)?;
        let when_down: WhenDown = options.when_down.parse().map_err(value_error)?;
        let limit = RemoteLimit::new(backend.namespace(), name, limit).map_err(value_error)?;
        let limit = limit.when_down(when_down);
        let limit = match options.lease {
            0.0 => limit,
            lasts => {
                let lasts = crate::clock::seconds(lasts)?;
                limit.with_leases(LeaseRules::new(lasts)).map_err(value_error)?
            }
        };
        let limiter = RemoteLimiter::new(backend.server().clone(), [limit]).map_err(value_error)?;
        let id = limiter.limit(name).ok_or_else(|| value_error("the limit has no name"))?;
        Ok(Self { limiter, id })
    }

    pub(crate) fn limit(&self) -> &Limit {
        self.limiter.remote(self.id).limit()
    }

    /// Decides; charges if `charges`.
    pub(crate) fn decide(
        &self,
        py: Python<'_>,
        caller: &str,
        cost: Cost,
        charges: bool,
    ) -> PyResult<Decision> {
        let asks = [Ask::new(self.id, caller, cost)];
        if charges && let Some(answer) = self.limiter.decide_here(&asks) {
            return Ok(answer.decisions()[0]);
        }
        let answer = match charges {
            true => wait(py, self.limiter.decide(&asks))?,
            false => wait(py, self.limiter.peek(&asks))?,
        };
        let answer = answer.map_err(value_error)?;
        self.told(answer.decisions()[0], answer.decided_by()[0])
    }

    /// Reserves an estimate: the reservation, or the denial.
    pub(crate) fn reserve(
        &self,
        py: Python<'_>,
        caller: &str,
        estimate: Cost,
    ) -> PyResult<Result<RemoteOpen, tidegate::Denial>> {
        let asks = [Ask::new(self.id, caller, estimate)];
        let reserved = wait(py, self.limiter.reserve(&asks, &[true]))?;
        let (answer, hold) = reserved.map_err(value_error)?;
        let decision = self.told(answer.decisions()[0], answer.decided_by()[0])?;
        match decision {
            Decision::Deny(denial) => Ok(Err(denial)),
            Decision::Allow(_) => {
                Ok(Ok(RemoteOpen { hold: hold.map(Arc::new), reserved: estimate }))
            }
        }
    }

    /// A denial since nobody could look is an error.
    fn told(&self, decision: Decision, by: DecidedBy) -> PyResult<Decision> {
        let denies = self.limiter.remote(self.id).fallback() == WhenDown::Deny;
        if by == DecidedBy::Fallback && denies && !decision.is_allow() {
            return Err(error::ServerUnavailable::new_err(
                "the server that counts this limit does not answer; try again, or say what happens then: \
                 when_down=\"allow\", or \"share of 4\" with the number of processes",
            ));
        }
        Ok(decision)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // What is leased goes back, if there is still somebody to do it.
        if let Ok(runtime) = runtime() {
            let limiter = self.limiter.clone();
            runtime.spawn(async move { limiter.give_back().await });
        }
    }
}

/// A reservation on a server.
pub(crate) struct RemoteOpen {
    hold: Option<Arc<LimiterHold>>,
    reserved: Cost,
}

impl RemoteOpen {
    pub(crate) const fn reserved(&self) -> Cost {
        self.reserved
    }

    /// Settles it in the background, however long the server takes.
    pub(crate) fn settle(self, used: Cost) {
        if let (Some(hold), Ok(runtime)) = (self.hold, runtime()) {
            runtime.spawn(async move { hold.settle_at_last(&[used]).await });
        }
    }
}
