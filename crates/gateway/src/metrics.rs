//! What the gateway counts, for Prometheus and for the page. Never by key: neither the number of users nor
//! their names may leak into a time series.
//!
//! Counting takes no lock on the way of a call: atomics, whose places are known beforehand.

mod histogram;
mod outside;
mod scrape;

pub(crate) use outside::{measured, outside};
pub(crate) use scrape::{CONTENT_TYPE, scrape};

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use histogram::Histogram;
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tidegate::policy::{DecidedBy, Standing};

/// The counts of this process. They go on when the configuration is reloaded.
pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was passed on, and the API behind answered.
    Passed,
    /// A rule denied it.
    Denied,
    /// The caller had to be known, and was not.
    Unauthorized,
    /// The caller is blocked by an operator.
    Blocked,
    /// It was no call that can be passed on.
    Rejected,
    /// The API behind did not answer.
    UpstreamFailed,
    /// The server that counts a limit did not answer, or there was no room for a body.
    Unavailable,
}

impl Outcome {
    pub(crate) const ALL: [(Self, &'static str); 7] = [
        (Self::Passed, "passed"),
        (Self::Denied, "denied"),
        (Self::Unauthorized, "unauthorized"),
        (Self::Blocked, "blocked"),
        (Self::Rejected, "rejected"),
        (Self::UpstreamFailed, "upstream_failed"),
        (Self::Unavailable, "unavailable"),
    ];

    pub(crate) const fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// The kinds of LLM tokens.
pub(crate) const TOKEN_KINDS: [&str; 3] = ["input", "cached_input", "output"];

/// Who decides on rules.
pub(crate) const DECIDED_BY: [(DecidedBy, &str); 4] = [
    (DecidedBy::Process, "process"),
    (DecidedBy::Server, "server"),
    (DecidedBy::Lease, "lease"),
    (DecidedBy::Fallback, "fallback"),
];

/// The counts of a process.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    calls: [AtomicU64; Outcome::ALL.len()],
    added: Histogram,
    llm_tokens: [AtomicU64; TOKEN_KINDS.len()],
    /// In nano-units, by currency.
    money: Mutex<BTreeMap<String, AtomicU64>>,
    denials: Mutex<BTreeMap<String, Counter>>,
    /// By who decided; only where rules are on a server.
    decided: [AtomicU64; DECIDED_BY.len()],
    reloads: [AtomicU64; 2],
    reloaded_s: AtomicU64,
}

impl Metrics {
    /// Counts a call, and the time that the gateway itself took for it.
    pub(crate) fn call(&self, outcome: Outcome, added: Duration) {
        add(&self.calls[outcome as usize], 1);
        self.added.observe(added);
    }

    /// The LLM tokens that a call was charged for, by the provider's own count where it told one. Cached input
    /// is not in `input`. What keeps all its reservation, as nobody knows what it used, is not counted.
    #[allow(dead_code)] // counted by the meter of answers
    pub(crate) fn llm_tokens(&self, input: u64, cached_input: u64, output: u64) {
        for (count, tokens) in self.llm_tokens.iter().zip([input, cached_input, output]) {
            add(count, tokens);
        }
    }

    /// The money that a call cost, in nano-units of a currency.
    #[allow(dead_code)] // counted by the meter of answers
    pub(crate) fn money(&self, currency: &str, nanos: u64) {
        let mut money = self.money.lock().unwrap_or_else(PoisonError::into_inner);
        match money.get(currency) {
            Some(count) => add(count, nanos),
            None => drop(money.insert(currency.to_owned(), nanos.into())),
        }
    }

    /// Where denials of a rule are counted.
    pub(crate) fn denials_of(&self, rule: &str) -> Counter {
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        denials.entry(rule.to_owned()).or_default().clone()
    }

    /// Counts who decided on each rule of a call.
    pub(crate) fn decided(&self, standings: &[Standing<'_>]) {
        for standing in standings {
            let place = DECIDED_BY.iter().position(|(by, _)| *by == standing.decided_by());
            if let Some(place) = place {
                add(&self.decided[place], 1);
            }
        }
    }

    pub(crate) fn reloaded(&self, is_ok: bool) {
        add(&self.reloads[usize::from(is_ok)], 1);
        if is_ok {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.reloaded_s.store(now.as_secs(), Ordering::Relaxed); // a lone value
        }
    }

    /// How many calls had each outcome.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Outcome::ALL.iter().map(|(outcome, name)| (*name, read(&self.calls[*outcome as usize])))
    }
}

/// What the page shows of the counts.
#[derive(Debug, Serialize)]
pub(crate) struct Totals {
    calls: BTreeMap<&'static str, u64>,
    llm_tokens: BTreeMap<&'static str, u64>,
    /// In nano-units, by currency.
    money_nanos: BTreeMap<String, u64>,
    /// The time that the gateway adds to a call, in microseconds: of half the calls no more, and of 99 in
    /// 100.
    added_us: [u64; 2],
}

impl Metrics {
    pub(crate) fn totals(&self) -> Totals {
        let money = self.money.lock().unwrap_or_else(PoisonError::into_inner);
        Totals {
            calls: self.calls().collect(),
            llm_tokens: TOKEN_KINDS.iter().copied().zip(self.llm_tokens.iter().map(read)).collect(),
            money_nanos: money.iter().map(|(name, nanos)| (name.clone(), read(nanos))).collect(),
            added_us: [50, 99].map(|percent| self.added.percentile_us(percent)),
        }
    }
}

fn add(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed); // a lone count: nothing hangs on its order
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed) // as above
}
