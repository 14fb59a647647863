//! Keys: whom a limit is for, as Python has them.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyInt, PyString, PyTuple};

/// The type of a limiter's keys: there is no value of it, since keys are hashed where Python has them.
#[derive(Hash)]
pub(crate) enum AnyKey {}

impl<'a, 'py> Borrow<KeyRef<'a, 'py>> for AnyKey {
    fn borrow(&self) -> &KeyRef<'a, 'py> {
        match *self {}
    }
}

/// A key where Python has it: no copy, no allocation.
///
/// It hashes as the same key does in Rust, a `str`, `[u8]` or `i64`, and a tuple as a slice of them. So
/// processes in both languages can share a table.
pub(crate) enum KeyRef<'a, 'py> {
    Str(&'a str),
    Bytes(&'a [u8]),
    Int(i64),
    /// An int above those.
    LargeInt(u64),
    Tuple(Borrowed<'a, 'py, PyTuple>),
}

impl<'a, 'py> KeyRef<'a, 'py> {
    fn one(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Option<Self>> {
        if object.is_instance_of::<PyString>() {
            return Ok(Some(Self::Str(object.extract()?)));
        }
        if object.is_instance_of::<PyInt>() && !object.is_instance_of::<PyBool>() {
            return Self::int(object).map(Some);
        }
        if object.is_instance_of::<PyBytes>() {
            return Ok(Some(Self::Bytes(object.extract()?)));
        }
        Ok(None)
    }

    /// The key as text, each key another one: what a server's keys are made of.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.push_to(&mut text);
        text
    }

    fn push_to(&self, text: &mut String) {
        use std::fmt::Write;
        // Strings take everything. The length keeps the parts of a tuple apart.
        let _ = match self {
            Self::Str(part) => write!(text, "str{}:{part}", part.len()),
            Self::Bytes(bytes) => {
                let _ = write!(text, "bytes{}:", bytes.len());
                bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}"))
            }
            Self::Int(number) => write!(text, "int:{number};"),
            Self::LargeInt(number) => write!(text, "int:{number};"),
            Self::Tuple(parts) => {
                for part in parts.iter() {
                    if let Ok(Some(part)) = KeyRef::one(part.as_borrowed()) {
                        part.push_to(text);
                    }
                }
                write!(text, "tuple:{}", parts.len())
            }
        };
    }

    fn int(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let signed = object.extract::<i64>().map(Self::Int);
        signed.or_else(|_| object.extract::<u64>().map(Self::LargeInt)).map_err(|_| {
            PyOverflowError::new_err(
                "a key that is an int has at most 64 bits; use str(key) for others",
            )
        })
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for KeyRef<'a, 'py> {
    type Error = PyErr;

    #[inline]
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Some(key) = Self::one(object)? {
            return Ok(key);
        }
        let Ok(parts) = object.cast::<PyTuple>() else { return Err(not_a_key(object)) };
        if parts.is_empty() {
            return Err(PyTypeError::new_err("a key that is a tuple has at least one part"));
        }
        for part in parts.iter() {
            if KeyRef::one(part.as_borrowed())?.is_none() {
                return Err(not_a_key(part.as_borrowed()));
            }
        }
        object.cast().map(Self::Tuple).map_err(PyErr::from)
    }
}

#[cold]
fn not_a_key(object: Borrowed<'_, '_, PyAny>) -> PyErr {
    let name = object.get_type().name();
    let name = name.map_or_else(|_| "something else".to_owned(), |name| name.to_string());
    let hint = match name.as_str() {
        "NoneType" => "a caller without a key is not unlimited: give it a key, or refuse it",
        _ => "use str(key)",
    };
    PyTypeError::new_err(format!(
        "a key is a str, bytes or int, or a tuple of them, not {name}; {hint}"
    ))
}

impl Hash for KeyRef<'_, '_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Str(text) => text.hash(state),
            Self::Bytes(bytes) => bytes.hash(state),
            Self::Int(number) => number.hash(state),
            // Not as a `u64`, which hashes as the negative `i64` of the same bits does.
            Self::LargeInt(number) => u128::from(*number).hash(state),
            Self::Tuple(parts) => {
                parts.len().hash(state);
                // They were all found to be keys, and tuples do not change.
                for part in parts.iter() {
                    if let Ok(Some(part)) = KeyRef::one(part.as_borrowed()) {
                        part.hash(state);
                    }
                }
            }
        }
    }
}
