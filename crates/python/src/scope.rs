//! [`Scope`]: a request as ASGI has it.

use std::net::IpAddr;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use tidegate::TrustedProxies;
use tidegate::policy::{Call, Headers};

use crate::units::Units;

/// What of a scope rules look at.
pub(crate) struct Scope<'py> {
    method: Option<Bound<'py, PyString>>,
    path: Bound<'py, PyString>,
    headers: Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>,
    ip: Option<IpAddr>,
}

impl<'py> Scope<'py> {
    /// The request of a scope, with its client as far as the proxies are trusted.
    pub(crate) fn read(scope: &Bound<'py, PyDict>, proxies: &TrustedProxies) -> PyResult<Self> {
        let py = scope.py();
        let text = |name: &Bound<'py, PyString>| -> PyResult<Option<Bound<'py, PyString>>> {
            scope.get_item(name)?.map(|text| Ok(text.cast_into()?)).transpose()
        };
        let path: Option<Bound<'py, PyString>> = text(pyo3::intern!(py, "path"))?;
        let Some(path) = path else {
            return Err(PyTypeError::new_err("this is not the scope of a request: it has no path"));
        };
        let method = text(pyo3::intern!(py, "method"))?; // a websocket has none
        let headers = match scope.get_item(pyo3::intern!(py, "headers"))? {
            Some(headers) => read_headers(&headers)?,
            None => Vec::new(),
        };
        let mut read = Self { method, path, headers, ip: None };
        if let Some(peer) = peer(scope)? {
            let is_forwarded = |name: &[u8]| name.eq_ignore_ascii_case(b"x-forwarded-for");
            let lines = read.headers.iter().filter(|(name, _)| is_forwarded(name.as_bytes()));
            read.ip = Some(proxies.client(peer, lines.map(|(_, value)| value.as_bytes())));
        }
        Ok(read)
    }

    pub(crate) fn method(&self) -> &str {
        self.method.as_ref().and_then(|method| method.to_str().ok()).unwrap_or("GET")
    }

    pub(crate) fn path(&self) -> &str {
        // With characters that no path has, it is none that a rule names.
        self.path.to_str().unwrap_or("")
    }

    pub(crate) const fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The headers that are text.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        let text = |bytes: &Bound<'_, PyBytes>| String::from_utf8(bytes.as_bytes().to_vec()).ok();
        self.headers.iter().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
    }

    /// The call that the request is.
    pub(crate) fn call<'a>(&'a self, user: Option<&'a str>, llm_tokens: Option<Units>) -> Call<'a> {
        let call = Call::new(self.method(), self.path()).with_headers(self);
        let call = self.ip.map_or(call, |ip| call.from_ip(ip));
        let call = user.map_or(call, |user| call.by_user(user));
        llm_tokens.map_or(call, |tokens| call.with_llm_tokens(tokens.0))
    }
}

/// The address that the connection comes from; `None` for what is no address, such as a local socket.
fn peer(scope: &Bound<'_, PyDict>) -> PyResult<Option<IpAddr>> {
    let Some(client) = scope.get_item(pyo3::intern!(scope.py(), "client"))? else {
        return Ok(None);
    };
    let host = match (client.cast::<PyTuple>(), client.cast::<PyList>()) {
        (Ok(pair), _) => pair.get_item(0)?,
        (_, Ok(pair)) => pair.get_item(0)?,
        _ => return Ok(None),
    };
    let host = host.cast::<PyString>().map_err(PyErr::from)?;
    Ok(host.to_str()?.parse().ok())
}

type Pair<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);

fn read_headers<'py>(headers: &Bound<'py, PyAny>) -> PyResult<Vec<Pair<'py>>> {
    let Ok(list) = headers.cast::<PyList>() else {
        return headers.try_iter()?.map(|pair| pair?.extract()).collect();
    };
    list.iter()
        .map(|pair| match pair.cast::<PyTuple>() {
            Ok(pair) if pair.len() == 2 => Ok((
                pair.get_item(0)?.cast_into().map_err(PyErr::from)?,
                pair.get_item(1)?.cast_into().map_err(PyErr::from)?,
            )),
            _ => Ok(pair.extract()?),
        })
        .collect()
}

impl Headers for Scope<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        let is_named = |other: &[u8]| other.eq_ignore_ascii_case(name.as_bytes());
        let mut of_name = self.headers.iter().filter(|(other, _)| is_named(other.as_bytes()));
        of_name.next().and_then(|(_, value)| std::str::from_utf8(value.as_bytes()).ok())
    }
}
