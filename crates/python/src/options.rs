//! What callers may say of a limit, and what is wrong with it.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tidegate::policy::Rule;
use tidegate::{AlgorithmName, Limit, Memory, Period, Protocol, Rate, WhenFull};

/// How a rate is kept.
#[derive(Clone, Copy, Default)]
pub(crate) struct LimitOptions<'a> {
    pub(crate) algorithm: Option<&'a str>,
    pub(crate) burst: Option<u64>,
    pub(crate) epochs: Option<usize>,
    pub(crate) time_zone: Option<&'a str>,
}

impl LimitOptions<'_> {
    /// The limit of a rate such as "20/minute".
    pub(crate) fn limit(self, rate: &str) -> PyResult<Limit> {
        let Self { algorithm, burst, epochs, time_zone } = self;
        let rate: Rate = rate.parse().map_err(value_error)?;
        let algorithm: Option<AlgorithmName> =
            algorithm.map(str::parse).transpose().map_err(value_error)?;
        let only = |option: &str, is_given: bool, belongs: AlgorithmName| match is_given {
            true if algorithm != Some(belongs) => {
                Err(PyValueError::new_err(format!("{option} is for algorithm=\"{belongs}\"")))
            }
            _ => Ok(()),
        };
        only("burst", burst.is_some(), AlgorithmName::TokenBucket)?;
        only("epochs", epochs.is_some(), AlgorithmName::SlidingWindowCounter)?;
        only("time_zone", time_zone.is_some(), AlgorithmName::FixedWindow)?;
        let limit = match algorithm {
            None if rate.period() == Period::Concurrent => Limit::concurrent(rate.units()),
            Some(AlgorithmName::Concurrency) => Limit::concurrent(rate.units()),
            None => Limit::sliding_window(rate),
            Some(AlgorithmName::TokenBucket) => Limit::token_bucket(rate, burst),
            Some(AlgorithmName::FixedWindow) => Limit::fixed_window(rate, time_zone),
            Some(AlgorithmName::SlidingWindowLog) => Limit::sliding_window_log(rate),
            Some(AlgorithmName::SlidingWindowCounter) => {
                Limit::sliding_window_counter(rate, epochs.unwrap_or(Limit::DEFAULT_EPOCHS))
            }
        };
        limit.map_err(value_error)
    }
}

/// The rate of so many requests in so many seconds, as people write it, so that equal ones are written
/// alike.
pub(crate) fn rate_per_seconds(requests: u64, seconds: f64) -> PyResult<String> {
    let whole = seconds as u32;
    if f64::from(whole) != seconds || whole == 0 {
        return Err(PyValueError::new_err(format!(
            "window_seconds is a whole number of seconds from 1, not {seconds}"
        )));
    }
    Ok(match whole {
        1 => format!("{requests} per second"),
        60 => format!("{requests} per minute"),
        3_600 => format!("{requests} per hour"),
        86_400 => format!("{requests} per day"),
        whole => format!("{requests} per {whole} seconds"),
    })
}

pub(crate) fn when_full(text: &str) -> PyResult<WhenFull> {
    match text {
        "deny" => Ok(WhenFull::Deny),
        "take-over" => Ok(WhenFull::TakeOver),
        other => Err(PyValueError::new_err(format!(
            "when_full={other:?} is not known; use \"deny\" or \"take-over\""
        ))),
    }
}

/// Whether there is room for so many keys, and for one at least.
pub(crate) fn check_keys(keys: usize, limit: &Limit) -> PyResult<()> {
    if keys == 0 {
        return Err(PyValueError::new_err("keys=0 has no room for anybody; give at least 1"));
    }
    let bytes = Memory::bytes_for_keys(keys, limit.ring_words());
    match bytes.is_none_or(|bytes| bytes > Rule::MAX_BYTES) {
        true => Err(PyValueError::new_err(format!(
            "keys={keys} of {} bytes each take more than {} GiB; give fewer keys, or use \
             algorithm=\"sliding-window-counter\"",
            (limit.ring_words() + 2) * 8,
            Rule::MAX_BYTES >> 30
        ))),
        false => Ok(()),
    }
}

fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}
