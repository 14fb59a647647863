//! Users, by the key that they call with.

use std::collections::HashMap;
use std::fmt;

use http::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest, Sha256};

/// The users, by the SHA-256 of their keys. No key is kept.
#[derive(Default)]
pub(crate) struct Users {
    by_hash: HashMap<[u8; 32], String>,
}

impl Users {
    pub(crate) fn add_key(&mut self, user: &str, key: &str) -> Result<(), UserError> {
        if key.is_empty() {
            return Err(UserError::EmptyKey);
        }
        self.add(user, hash(key.as_bytes()))
    }

    pub(crate) fn add_hash(&mut self, user: &str, hex: &str) -> Result<(), UserError> {
        let digits = hex.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(UserError::NotAHash);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| UserError::NotAHash)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| UserError::NotAHash)?;
        }
        self.add(user, hash)
    }

    fn add(&mut self, user: &str, hash: [u8; 32]) -> Result<(), UserError> {
        match self.by_hash.insert(hash, user.to_owned()) {
            Some(other) if other != user => Err(UserError::SameKey { other }),
            _ => Ok(()),
        }
    }

    /// The user whose key the request bears. A key is looked up by its hash, so the time that takes
    /// tells nothing of other keys.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Option<&str> {
        let key = bearer(headers)?;
        self.by_hash.get(&hash(key)).map(String::as_str)
    }
}

/// The key of `Authorization: Bearer <key>`, if there is exactly one such line.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (line, None) = (lines.next()?.as_bytes(), lines.next()) else { return None };
    let (scheme, key) = line.split_at_checked(b"Bearer ".len())?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !key.is_empty()).then_some(key)
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_hash.values()).finish()
    }
}

/// Why a user cannot be added.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UserError {
    EmptyKey,
    NotAHash,
    SameKey { other: String },
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyKey => f.write_str("the key is empty"),
            Self::NotAHash => f.write_str("a SHA-256 hash has 64 hexadecimal digits"),
            Self::SameKey { other } => write!(f, "user `{other}` has the same key"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let lines = lines.iter().map(|line| (AUTHORIZATION, line.parse().unwrap()));
        lines.collect()
    }

    #[test]
    fn a_bearer_key_names_its_user_and_nothing_else_does() {
        let mut users = Users::default();
        users.add_key("alice", "demo-alice").unwrap();
        // printf secret | sha256sum
        let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        users.add_hash("bob", hash).unwrap();
        assert_eq!(users.identify(&headers(&["Bearer demo-alice"])), Some("alice"));
        assert_eq!(users.identify(&headers(&["bearer  secret "])), Some("bob"));
        for wrong in [
            "demo-alice",
            "Bearer",
            "Bearer ",
            "Bearer demo-alic",
            "Basic demo-alice",
            "Bearerdemo-alice",
        ] {
            assert_eq!(users.identify(&headers(&[wrong])), None, "{wrong}");
        }
        assert_eq!(users.identify(&headers(&[])), None);
        let two = headers(&["Bearer demo-alice", "Bearer secret"]);
        assert_eq!(users.identify(&two), None, "which one?");
    }
}
