//! [`Ledger`]: what the provider would bill.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::script::Script;

/// What the provider would bill, call by call.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    calls: Vec<Billed>,
    /// The names of scripts whose faults have come.
    came: HashSet<String>,
}

/// A call that has reached the provider.
#[derive(Debug, Clone)]
pub struct Billed {
    pub api: &'static str,
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
    pub input: u64,
    /// What was produced, as far as it was: no more, once nobody reads it.
    pub output: u64,
    /// Whether the answer was read to its end.
    pub is_over: bool,
}

impl Billed {
    pub fn total(&self) -> u64 {
        self.input + self.output
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Ledger {
    pub fn calls(&self) -> Vec<Billed> {
        self.lock().calls.clone()
    }

    /// LLM tokens of all calls.
    #[allow(dead_code, reason = "the process tells calls, and leaves sums to others")]
    pub fn total(&self) -> u64 {
        self.lock().calls.iter().map(Billed::total).sum()
    }

    pub fn as_json(&self) -> Value {
        let header = |call: &Billed, name: &str| {
            call.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let told = |call: &Billed| {
            json!({
                "api": call.api, "input": call.input, "output": call.output, "total": call.total(),
                "body": call.json(), "is_over": call.is_over,
                "retries": header(call, "x-stainless-retry-count"),
            })
        };
        self.calls().iter().map(told).collect()
    }

    /// The script, without its faults when they have come already, and were to come once.
    pub(super) fn faults_once(&self, script: Script) -> Script {
        match &script.once {
            Some(name) if !self.lock().came.insert(name.clone()) => script.faultless(),
            _ => script,
        }
    }

    pub(super) fn open(&self, api: &'static str, headers: &HeaderMap, body: Bytes) -> Bill {
        let mut inner = self.lock();
        let headers = headers.clone();
        inner.calls.push(Billed { api, headers, body, input: 0, output: 0, is_over: false });
        Bill { ledger: self.clone(), call: inner.calls.len() - 1 }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one call is billed.
pub struct Bill {
    ledger: Ledger,
    call: usize,
}

impl Bill {
    pub(super) fn input(&self, tokens: u64) {
        self.ledger.lock().calls[self.call].input = tokens;
    }

    /// What has been produced is not taken back.
    pub(super) fn output(&self, tokens: u64) {
        let output = &mut self.ledger.lock().calls[self.call].output;
        *output = tokens.max(*output);
    }

    pub(super) fn is_output_zero(&self) -> bool {
        self.ledger.lock().calls[self.call].output == 0
    }

    pub(super) fn over(&self) {
        self.ledger.lock().calls[self.call].is_over = true;
    }
}
