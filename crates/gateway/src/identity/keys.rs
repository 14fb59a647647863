//! [`Keys`]: who calls with which key.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Who;

/// The SHA-256 of a key. Keys are long and random, so a plain hash gives nothing away: there is nothing
/// to guess, as there is in passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyHash([u8; 32]);

impl KeyHash {
    pub(crate) fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// What a key is called, in logs and commands: the hash's first 8 digits.
    pub(crate) fn name(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for KeyHash {
    type Err = KeyError;

    fn from_str(hex: &str) -> Result<Self, KeyError> {
        if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(KeyError::NotAHash);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| KeyError::NotAHash)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| KeyError::NotAHash)?;
        }
        Ok(Self(hash))
    }
}

/// Who calls with which key. No key is kept, only hashes.
#[derive(Default)]
pub(crate) struct Keys {
    by_hash: HashMap<KeyHash, Arc<Who>>,
}

impl Keys {
    pub(crate) fn add(
        &mut self,
        user: &str,
        team: Option<&str>,
        hash: KeyHash,
    ) -> Result<(), KeyError> {
        if user.is_empty() || user.len() > MAX_NAME || user.chars().any(char::is_control) {
            return Err(KeyError::Name);
        }
        let who =
            Who { user: user.to_owned(), team: team.map(str::to_owned), key: Some(hash.name()) };
        match self.by_hash.insert(hash, Arc::new(who)) {
            Some(other) => Err(KeyError::SameKey { other: other.user.clone() }),
            None => Ok(()),
        }
    }

    /// Who calls with this key. It is looked up by its hash, so the time that takes tells nothing of other
    /// keys.
    pub(crate) fn find(&self, key: &[u8]) -> Option<&Arc<Who>> {
        self.by_hash.get(&KeyHash::of(key))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Who> {
        self.by_hash.values().map(|who| &**who)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_hash.len()
    }
}

/// The longest name of a user or a team, in bytes.
pub(super) const MAX_NAME: usize = 256;

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_hash.values().map(|who| &who.user)).finish()
    }
}

/// Why a key cannot be added.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeyError {
    EmptyKey,
    NotAHash,
    Name,
    SameKey { other: String },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyKey => f.write_str("the key is empty"),
            Self::NotAHash => f.write_str("a SHA-256 hash has 64 hexadecimal digits"),
            Self::Name => {
                write!(f, "a user's name has 1 to {MAX_NAME} bytes, and no control characters")
            }
            Self::SameKey { other } => write!(f, "user `{other}` has the same key"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_user_and_nothing_else_does() {
        let mut keys = Keys::default();
        keys.add("alice", None, KeyHash::of(b"demo-alice")).unwrap();
        // printf secret | sha256sum
        let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        keys.add("bob", Some("ml"), hash.parse().unwrap()).unwrap();
        assert_eq!(keys.find(b"demo-alice").unwrap().user, "alice");
        let bob = keys.find(b"secret").unwrap();
        assert_eq!((&*bob.user, bob.team.as_deref()), ("bob", Some("ml")));
        assert_eq!(bob.key.as_deref(), Some("2bb80d53"));
        assert!(keys.find(b"demo-alic").is_none() && keys.find(b"").is_none());
        let same = keys.add("carol", None, KeyHash::of(b"secret"));
        assert_eq!(same, Err(KeyError::SameKey { other: "bob".to_owned() }));
        assert!(!format!("{keys:?}").contains("2bb8"), "hashes are not shown");
    }
}
