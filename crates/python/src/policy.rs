//! [`Policy`]: layers of rules on requests, all or nothing.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tidegate::policy::{Call, CostRule, Headers, KeyPart, MissingKey, Rule, Source};
use tidegate::{Clock, SharedFile, SystemClock};
use tidegate_tower::Fields;

use crate::client::TrustedProxies;
use crate::clock::{AnyClock, FakeClock, seconds};
use crate::error;
use crate::options::{self, LimitOptions};
use crate::remote;
use crate::reservation::Ready;
use crate::scope::Scope;
use crate::units::Units;
use crate::verdict::Verdict;

/// Layers of rules that a request must pass, all or nothing, from a policy file's text.
#[pyclass(frozen, module = "tidegate")]
pub(crate) struct Policy {
    policy: tidegate::policy::Policy,
    proxies: TrustedProxies,
    fields: Fields,
}

/// What a request is, where a caller says it.
struct Told {
    headers: Vec<(String, String)>,
}

impl Headers for Told {
    fn header(&self, name: &str) -> Option<&str> {
        let mut of_name = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        of_name.next().map(|(_, value)| value.as_str())
    }
}

/// A request that outlives its scope, while a server is asked.
struct Owned {
    told: Told,
    method: String,
    path: String,
    ip: Option<IpAddr>,
    user: Option<String>,
    llm_tokens: Option<Units>,
}

impl Owned {
    fn of(request: &Scope<'_>, user: Option<&str>, llm_tokens: Option<Units>) -> Self {
        Self {
            told: Told { headers: request.headers() },
            method: request.method().to_owned(),
            path: request.path().to_owned(),
            ip: request.ip(),
            user: user.map(str::to_owned),
            llm_tokens,
        }
    }

    fn call(&self) -> Call<'_> {
        let call = Call::new(&self.method, &self.path).with_headers(&self.told);
        let call = self.ip.map_or(call, |ip| call.from_ip(ip));
        let call = self.user.as_deref().map_or(call, |user| call.by_user(user));
        self.llm_tokens.map_or(call, |tokens| call.with_llm_tokens(tokens.0))
    }
}

impl Policy {
    fn read(
        source: &Source<'_>,
        shared: Option<PathBuf>,
        (redis, namespace): (Option<&str>, &str),
        clock: Option<&Bound<'_, FakeClock>>,
    ) -> PyResult<tidegate::policy::Policy> {
        if let Some(url) = redis {
            if shared.is_some() || clock.is_some() {
                return Err(PyValueError::new_err(
                    "a policy on a server goes by the server's clock and is in no file; leave out shared= and clock=",
                ));
            }
            let policy = tidegate_redis::policy_on(source, &remote::backend(url, namespace)?);
            return policy.map_err(|errors| {
                let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
                error::PolicyError::new_err(texts.join("\n"))
            });
        }
        let policy = match shared {
            None => tidegate::policy::Policy::from_source(source, AnyClock::or_system(clock)),
            Some(_) if clock.is_some() => return Err(clock_and_file()),
            Some(path) => {
                let file = SharedFile::open(path).map_err(|error| error::of_file(&error))?;
                tidegate::policy::Policy::shared(source, &file)
            }
        };
        policy.map_err(|error| error::of_policy(&error))
    }

    fn answer(&self, py: Python<'_>, call: &Call<'_>, charges: bool) -> PyResult<Verdict> {
        let policy = &self.policy;
        let verdict = match (policy.engine(), charges) {
            (None, true) => policy.decide(call),
            (None, false) => policy.peek(call),
            (Some(_), true) => remote::wait(py, policy.decide_async(call))?,
            (Some(_), false) => remote::wait(py, policy.peek_async(call))?,
        };
        Verdict::of(py, policy, verdict, charges, self.fields)
    }
}

fn clock_and_file() -> PyErr {
    PyValueError::new_err("a policy in a shared file goes by the file's clock; leave out clock=")
}

fn fields(text: &str) -> PyResult<Fields> {
    match text {
        "ietf" => Ok(Fields::Ietf),
        "x-ratelimit" => Ok(Fields::XRateLimit),
        "none" => Ok(Fields::None),
        other => Err(PyValueError::new_err(format!(
            "fields={other:?} is not known; use \"ietf\", \"x-ratelimit\" or \"none\""
        ))),
    }
}

#[pymethods]
impl Policy {
    #[new]
    #[pyo3(signature = (
        text, /, *, shared = None, redis = None, namespace = "default", trusted_proxies = Vec::new(),
        fields = "ietf", source = "policy", clock = None
    ))]
    #[allow(clippy::too_many_arguments)] // Python has names for them
    fn new(
        text: &str,
        shared: Option<PathBuf>,
        redis: Option<&str>,
        namespace: &str,
        trusted_proxies: Vec<String>,
        fields: &str,
        source: &str,
        clock: Option<&Bound<'_, FakeClock>>,
    ) -> PyResult<Self> {
        let (proxies, fields) = (TrustedProxies::parse(&trusted_proxies)?, self::fields(fields)?);
        let policy = Self::read(&Source::new(source, text), shared, (redis, namespace), clock)?;
        Ok(Self { policy, proxies, fields })
    }

    /// A policy from a file: TOML with a [[rule]] for each layer.
    #[staticmethod]
    #[pyo3(signature = (
        path, /, *, shared = None, redis = None, namespace = "default", trusted_proxies = Vec::new(),
        fields = "ietf", clock = None
    ))]
    #[allow(clippy::too_many_arguments)] // Python has names for them
    fn from_file(
        path: PathBuf,
        shared: Option<PathBuf>,
        redis: Option<&str>,
        namespace: &str,
        trusted_proxies: Vec<String>,
        fields: &str,
        clock: Option<&Bound<'_, FakeClock>>,
    ) -> PyResult<Self> {
        let text = fs::read_to_string(&path)?;
        let name = path.display().to_string();
        Self::new(&text, shared, redis, namespace, trusted_proxies, fields, &name, clock)
    }

    /// A policy of one rule: a layer of `tidegate.fastapi`. Its cost is what calls say, if it is None.
    #[staticmethod]
    #[pyo3(signature = (
        limit, /, *, name, key, cost = Some(Units::ONE), algorithm = None, burst = None, epochs = None,
        time_zone = None, keys = 10_000, when_full = "deny", missing_key = "deny",
        ipv6_prefix = Rule::DEFAULT_IPV6_PREFIX, reservation_expires = 3600.0, shared = None,
        trusted_proxies = Vec::new(), fields = "ietf", clock = None
    ))]
    #[allow(clippy::too_many_arguments)] // Python has names for them
    fn layer(
        limit: &str,
        name: &str,
        key: &str,
        cost: Option<Units>,
        algorithm: Option<&str>,
        burst: Option<u64>,
        epochs: Option<usize>,
        time_zone: Option<&str>,
        keys: usize,
        when_full: &str,
        missing_key: &str,
        ipv6_prefix: u8,
        reservation_expires: f64,
        shared: Option<PathBuf>,
        trusted_proxies: Vec<String>,
        fields: &str,
        clock: Option<&Bound<'_, FakeClock>>,
    ) -> PyResult<Self> {
        let limit = LimitOptions { algorithm, burst, epochs, time_zone }.limit(limit)?;
        let key: KeyPart =
            key.parse().map_err(|error| PyValueError::new_err(format!("{error}")))?;
        let file = shared.map(SharedFile::open).transpose();
        let file = file.map_err(|error| error::of_file(&error))?;
        let rule = match &file {
            None => Rule::with_keys(name, limit, [key], keys),
            Some(file) => Rule::shared(name, limit, [key], keys, file),
        };
        let of_rule = |error| error::of_rule(&error);
        let rule = rule.map_err(of_rule)?.with_ipv6_prefix(ipv6_prefix).map_err(of_rule)?;
        let rule = rule
            .with_when_full(options::when_full(when_full)?)
            .on_missing_key(self::missing_key(missing_key)?)
            .costing(cost.map_or(CostRule::LlmTokens, |cost| CostRule::Fixed(cost.0)));
        let lifetime: Duration = seconds(reservation_expires)?;
        let rule = match &file {
            Some(file) if rule.is_settled_later() => {
                rule.with_expiring_reservations(file, lifetime).map_err(of_rule)?
            }
            _ => rule,
        };
        let policy = match (&file, clock) {
            (Some(_), Some(_)) => return Err(clock_and_file()),
            (Some(file), None) => of_one_rule(rule, file.clock())?,
            (None, None) => of_one_rule(rule, SystemClock::new())?,
            (None, clock) => of_one_rule(rule, AnyClock::or_system(clock))?,
        };
        let (proxies, fields) = (TrustedProxies::parse(&trusted_proxies)?, self::fields(fields)?);
        Ok(Self { policy, proxies, fields })
    }

    /// Whether a request may go on; charges it to every rule that applies if so.
    #[pyo3(signature = (
        method = "GET", path = "/", *, ip = None, user = None, headers = None, llm_tokens = None
    ))]
    #[allow(clippy::too_many_arguments)] // Python has names for them
    fn decide(
        &self,
        py: Python<'_>,
        method: &str,
        path: &str,
        ip: Option<&str>,
        user: Option<&str>,
        headers: Option<&Bound<'_, PyDict>>,
        llm_tokens: Option<Units>,
    ) -> PyResult<Verdict> {
        let told = Told { headers: pairs(headers)? };
        let call = told.call(method, path, ip, user, llm_tokens)?;
        self.answer(py, &call, true)
    }

    /// What `decide` would answer. Charges nothing.
    #[pyo3(signature = (
        method = "GET", path = "/", *, ip = None, user = None, headers = None, llm_tokens = None
    ))]
    #[allow(clippy::too_many_arguments)] // Python has names for them
    fn peek(
        &self,
        py: Python<'_>,
        method: &str,
        path: &str,
        ip: Option<&str>,
        user: Option<&str>,
        headers: Option<&Bound<'_, PyDict>>,
        llm_tokens: Option<Units>,
    ) -> PyResult<Verdict> {
        let told = Told { headers: pairs(headers)? };
        let call = told.call(method, path, ip, user, llm_tokens)?;
        self.answer(py, &call, false)
    }

    /// As `decide`, for the scope of an ASGI request, whose client is looked for behind the trusted
    /// proxies.
    #[pyo3(signature = (scope, /, user = None, llm_tokens = None))]
    fn decide_scope(
        &self,
        scope: &Bound<'_, PyDict>,
        user: Option<&str>,
        llm_tokens: Option<Units>,
    ) -> PyResult<Verdict> {
        let request = Scope::read(scope, &self.proxies.0)?;
        self.answer(scope.py(), &request.call(user, llm_tokens), true)
    }

    /// As `decide_scope`, awaited: where a server decides, the loop goes on meanwhile.
    #[pyo3(signature = (scope, /, user = None, llm_tokens = None))]
    fn decide_scope_async(
        &self,
        scope: &Bound<'_, PyDict>,
        user: Option<&str>,
        llm_tokens: Option<Units>,
    ) -> PyResult<Py<PyAny>> {
        let (py, request) = (scope.py(), Scope::read(scope, &self.proxies.0)?);
        let fields = self.fields;
        if self.policy.engine().is_none() {
            let verdict = self.answer(py, &request.call(user, llm_tokens), true)?;
            return Ok(Py::new(py, Ready::new(Py::new(py, verdict)?.into_any()))?.into_any());
        }
        let (policy, owned) = (self.policy.clone(), Owned::of(&request, user, llm_tokens));
        let deciding = async move {
            let deciding = policy.decide_async(&owned.call());
            let verdict = deciding.await;
            Python::attach(|py| Verdict::of(py, &policy, verdict, true, fields))
        };
        let value =
            |py: Python<'_>, verdict: PyResult<Verdict>| Ok(Py::new(py, verdict?)?.into_any());
        remote::awaitable(py, Box::pin(deciding), value)
    }

    /// Whether rules are on a server, which must be waited for.
    #[getter]
    fn is_remote(&self) -> bool {
        self.policy.engine().is_some()
    }

    /// Waits until what requests have settled is booked, and gives back what is leased from a server: before
    /// the process ends.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        remote::wait(py, self.policy.finish())
    }

    /// Gives back what was reserved by processes that have died, once it has expired, and tells how many
    /// reservations that were. A request that is denied looks for itself.
    fn return_expired(&self) -> usize {
        self.policy.return_expired()
    }

    /// Keeps what this process has reserved in a shared file from expiring, and tells how many reservations
    /// that are. For a timer, every 20 seconds, where concurrent requests are limited; the middleware and
    /// the dependencies have one.
    fn renew_reservations(&self) -> usize {
        self.policy.renew_reservations()
    }

    /// Whether it limits concurrent requests, and so wants to know when one ends.
    #[getter]
    fn is_concurrent(&self) -> bool {
        self.policy.rules().iter().any(|rule| rule.limit().is_concurrency())
    }

    /// The names of the rules, in their order.
    #[getter]
    fn rules(&self) -> Vec<&str> {
        self.policy.rules().iter().map(Rule::name).collect()
    }

    fn __repr__(&self) -> String {
        let rules = self.policy.rules().iter();
        let rules: Vec<_> =
            rules.map(|rule| format!("{}: {}", rule.name(), rule.limit().rate())).collect();
        format!("<tidegate policy {}>", rules.join(", "))
    }
}

fn missing_key(text: &str) -> PyResult<MissingKey> {
    match text {
        "deny" => Ok(MissingKey::Deny),
        "share" => Ok(MissingKey::Share),
        "skip" => Ok(MissingKey::Skip),
        other => Err(PyValueError::new_err(format!(
            "missing_key={other:?} is not known; use \"deny\", \"share\" or \"skip\""
        ))),
    }
}

fn of_one_rule(
    rule: Rule,
    clock: impl Clock + Send + Sync + 'static,
) -> PyResult<tidegate::policy::Policy> {
    tidegate::policy::Policy::with_clock([rule], clock)
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

fn pairs(headers: Option<&Bound<'_, PyDict>>) -> PyResult<Vec<(String, String)>> {
    let Some(headers) = headers else { return Ok(Vec::new()) };
    headers.iter().map(|(name, value)| Ok((name.extract()?, value.extract()?))).collect()
}

impl Told {
    fn call<'a>(
        &'a self,
        method: &'a str,
        path: &'a str,
        ip: Option<&str>,
        user: Option<&'a str>,
        llm_tokens: Option<Units>,
    ) -> PyResult<Call<'a>> {
        let mut call = Call::new(method, path).with_headers(self);
        if let Some(text) = ip {
            let ip: IpAddr = text.parse().map_err(|_| {
                PyValueError::new_err(format!(
                    "`{text}` is not an address; write it as in `192.0.2.1`"
                ))
            })?;
            call = call.from_ip(ip);
        }
        if let Some(user) = user {
            call = call.by_user(user);
        }
        if let Some(tokens) = llm_tokens {
            call = call.with_llm_tokens(tokens.0);
        }
        Ok(call)
    }
}
