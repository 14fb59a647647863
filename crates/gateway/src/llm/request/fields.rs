//! Members of a request that are of a kind: numbers, texts, and what may be spelt in two ways.

use super::RequestError;
use crate::llm::members::Members;

/// The one of two spellings that is there, with its value. Both are one too many.
pub(in crate::llm) fn one_of<'m>(
    members: &Members<'m>,
    spellings: [&'static str; 2],
) -> Result<Option<(&'m str, &'static str)>, RequestError> {
    let mut found = spellings.into_iter().filter_map(|name| Some((members.find(name)?, name)));
    match (found.next(), found.next()) {
        (_, Some((_, name))) => Err(RequestError::Twice(name.to_owned())),
        (first, None) => Ok(first),
    }
}

/// A field that is a whole number, or is not there.
pub(in crate::llm) fn number(
    members: &Members<'_>,
    field: &'static str,
) -> Result<Option<u64>, RequestError> {
    members.find(field).map_or(Ok(None), |value| whole(value, field))
}

pub(in crate::llm) fn whole(value: &str, field: &'static str) -> Result<Option<u64>, RequestError> {
    let error = |_| RequestError::Number { field, found: value.to_owned() };
    if value == "null" { Ok(None) } else { value.parse().map(Some).map_err(error) }
}

/// A ceiling, if one is set.
pub(super) fn positive(value: &str, field: &'static str) -> Result<Option<u64>, RequestError> {
    match whole(value, field)? {
        Some(0) => Err(RequestError::Zero(field)),
        set => Ok(set),
    }
}

/// A field that is a text, or is not there.
pub(in crate::llm) fn text(
    value: Option<&str>,
    field: &'static str,
) -> Result<Option<String>, RequestError> {
    let value = value.filter(|value| *value != "null");
    value.map(serde_json::from_str).transpose().map_err(|_| RequestError::Text(field))
}
