//! Exceptions.

use std::io;

use pyo3::create_exception;
use pyo3::exceptions::{
    PyConnectionError, PyException, PyFileNotFoundError, PyIsADirectoryError, PyOSError,
    PyValueError,
};
use pyo3::prelude::*;
use tidegate::policy::{FileError, RuleError};
use tidegate::{Cause, Denial, Limit, Retry, SharedFileError};

use crate::decision::Decision;

create_exception!(
    tidegate,
    LimitExceeded,
    PyException,
    "A limit denied what was to be reserved. `decision` says how the limit stands, `name` which it is."
);

create_exception!(
    tidegate,
    FileMismatch,
    PyOSError,
    "A file is not one that limits can be shared by: of another kind or version, cut off, or damaged."
);

create_exception!(
    tidegate,
    ServerUnavailable,
    PyConnectionError,
    "The server that counts a limit does not answer, so it is not known whether the limit is spent."
);

create_exception!(
    tidegate,
    PolicyError,
    PyValueError,
    "A policy's text is no policy. The message says where and what would be right."
);

/// Why a shared file cannot be used, as the exception that fits.
pub(crate) fn of_file(error: &SharedFileError) -> PyErr {
    let message = error.to_string();
    match error {
        SharedFileError::Missing { .. } => PyFileNotFoundError::new_err(message),
        SharedFileError::NotAFile { .. } => PyIsADirectoryError::new_err(message),
        SharedFileError::Io { kind, .. } => io::Error::new(*kind, message).into(),
        SharedFileError::Name { .. } | SharedFileError::TooLarge { .. } => {
            PyValueError::new_err(message)
        }
        _ => FileMismatch::new_err(message),
    }
}

pub(crate) fn of_policy(error: &FileError) -> PyErr {
    PolicyError::new_err(error.to_string())
}

pub(crate) fn of_rule(error: &RuleError) -> PyErr {
    match error {
        RuleError::Shared(error) => of_file(error),
        error => PyValueError::new_err(error.to_string()),
    }
}

/// The exception that a denied reservation is.
pub(crate) fn of_denial(py: Python<'_>, name: &str, limit: &Limit, denial: Denial) -> PyErr {
    let rate = limit.rate();
    let what = match denial.cause() {
        Cause::Oversized => format!(
            "it is more than the limit `{name}` of {rate} ever has, at most {} at once",
            limit.capacity()
        ),
        Cause::TableFull => format!("the limit `{name}` has no room for another key right now"),
        _ => format!("the limit `{name}` of {rate} is spent: {} left", denial.remaining()),
    };
    let decision = Decision::of(tidegate::Decision::Deny(denial));
    let when = match denial.retry() {
        Retry::Never => String::new(),
        Retry::After(wait) => format!("; try again in {} s", wait.as_secs_f64().ceil().max(1.0)),
    };
    let error = LimitExceeded::new_err(format!("{what}{when}"));
    let described = error
        .value(py)
        .setattr("decision", decision)
        .and_then(|()| error.value(py).setattr("name", name));
    described.map_or_else(|other| other, |()| error)
}
