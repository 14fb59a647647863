//! [`Token`]: what operators show to be let in.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HeaderMap};

use crate::identity::keys::{KeyError, KeyHash};

/// What operators show to be let in. Only its hash is kept, unless it was made for this run.
#[derive(Clone)]
pub(crate) struct Token {
    hash: KeyHash,
    made: Option<String>,
}

/// A token that is shorter can be guessed.
const LEAST_BYTES: usize = 16;

impl Token {
    pub(super) fn given(token: &str) -> Result<Self, TokenError> {
        let token = token.trim();
        if token.len() < LEAST_BYTES {
            return Err(TokenError::Short);
        }
        Ok(Self { hash: KeyHash::of(token.as_bytes()), made: None })
    }

    pub(super) fn of_hash(hex: &str) -> Result<Self, TokenError> {
        Ok(Self { hash: hex.parse().map_err(TokenError::Hash)?, made: None })
    }

    /// A new one, which nobody can guess.
    pub(super) fn made() -> Result<Self, TokenError> {
        let mut random = [0; 24];
        getrandom::fill(&mut random).map_err(|error| TokenError::Random(error.to_string()))?;
        let token = BASE64_URL_SAFE_NO_PAD.encode(random);
        Ok(Self { hash: KeyHash::of(token.as_bytes()), made: Some(token) })
    }

    pub(super) fn shown(&self) -> Option<&str> {
        self.made.as_deref()
    }

    /// Whether a request shows it. Hashes are compared, so the time that takes tells nothing of the token.
    pub(super) fn is_shown_by(&self, headers: &HeaderMap) -> bool {
        let line = headers.get(AUTHORIZATION).map(|line| line.as_bytes());
        let token = line.and_then(|line| line.strip_prefix(b"Bearer "));
        token.is_some_and(|token| KeyHash::of(token.trim_ascii()) == self.hash)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Why there is no token.
#[derive(Debug)]
pub(crate) enum TokenError {
    Short,
    Hash(KeyError),
    Random(String),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(
                f,
                "the token for operators is too short; give at least {LEAST_BYTES} bytes, as \
                 `openssl rand -hex 24` makes"
            ),
            Self::Hash(error) => error.fmt(f),
            Self::Random(reason) => write!(f, "cannot make a token: {reason}"),
        }
    }
}

impl std::error::Error for TokenError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(token: &Token, line: &str) -> bool {
        token.is_shown_by(&[(AUTHORIZATION, line.parse().unwrap())].into_iter().collect())
    }

    #[test]
    fn only_the_token_lets_in() {
        let token = Token::given("0123456789abcdef").unwrap();
        assert!(shows(&token, "Bearer 0123456789abcdef"));
        for wrong in
            ["Bearer 0123456789abcde", "0123456789abcdef", "Bearer ", "Basic 0123456789abcdef"]
        {
            assert!(!shows(&token, wrong), "{wrong}");
        }
        assert!(!token.is_shown_by(&HeaderMap::new()));
        assert!(matches!(Token::given("short"), Err(TokenError::Short)));
        let made = Token::made().unwrap();
        assert!(shows(&made, &format!("Bearer {}", made.shown().unwrap())));
        assert!(!format!("{made:?}").contains(made.shown().unwrap()));
    }
}
