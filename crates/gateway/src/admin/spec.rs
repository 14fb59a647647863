//! The configuration of the operators' listeners: `[admin]` and `[metrics]`.

use std::net::SocketAddr;

use serde::Deserialize;
use tidegate::policy::{FileError, Source, Spanned};

use super::token::{Token, TokenError};
use crate::address::parse_address;
use crate::config::Wrong;

/// `[admin]` as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminSpec {
    listen: Spanned<String>,
    token_env: Option<Spanned<String>>,
    token_sha256: Option<Spanned<String>>,
}

/// `[metrics]` as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MetricsSpec {
    listen: Spanned<String>,
}

/// The listener for operators.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    pub(crate) listen: SocketAddr,
    token: Token,
}

/// The variable that holds the token, unless it is said otherwise.
const TOKEN_ENV: &str = "TIDEGATE_ADMIN_TOKEN";

impl Admin {
    /// On this address, with the token that is in the environment, or one that is made for this run.
    pub(crate) fn from_environment(listen: SocketAddr) -> Result<Self, TokenError> {
        let token = match std::env::var(TOKEN_ENV) {
            Ok(token) => Token::given(&token)?,
            Err(_) => Token::made()?,
        };
        Ok(Self { listen, token })
    }

    pub(super) const fn token(&self) -> &Token {
        &self.token
    }

    /// The token, where it was made for this run and nobody knows it yet.
    pub(crate) fn made_token(&self) -> Option<&str> {
        self.token.shown()
    }
}

impl AdminSpec {
    pub(crate) fn build(&self, source: &Source<'_>, wrong: &mut Wrong) -> Option<Admin> {
        let listen = wrong.note(address(&self.listen, "admin.listen", source));
        let token = match (&self.token_env, &self.token_sha256) {
            (None, Some(hash)) => {
                let token = Token::of_hash(hash.get_ref());
                token.map_err(|error| source.error(hash.span(), "admin.token_sha256", &error))
            }
            (None, None) => std::env::var(TOKEN_ENV).map_or_else(
                |_| {
                    let message = format!(
                        "a token is needed: set {TOKEN_ENV}, or name another variable by `token_env`, \
                         or give `token_sha256`"
                    );
                    Err(source.error(self.listen.span(), "admin", &message))
                },
                |token| {
                    let token = Token::given(&token);
                    token.map_err(|error| source.error(self.listen.span(), TOKEN_ENV, &error))
                },
            ),
            (Some(variable), None) => {
                let wrong = |message: &dyn std::fmt::Display| {
                    let message = format!("{}: {message}", variable.get_ref());
                    source.error(variable.span(), "admin.token_env", &message)
                };
                let token = std::env::var(variable.get_ref());
                let token = token.map_err(|_| wrong(&"this environment variable is not set"));
                token.and_then(|token| Token::given(&token).map_err(|error| wrong(&error)))
            }
            (Some(variable), Some(_)) => {
                let message = "give either `token_env` or `token_sha256`";
                Err(source.error(variable.span(), "admin", &message))
            }
        };
        let token = wrong.note(token);
        Some(Admin { listen: listen?, token: token? })
    }
}

impl MetricsSpec {
    pub(crate) fn build(&self, source: &Source<'_>, wrong: &mut Wrong) -> Option<SocketAddr> {
        wrong.note(address(&self.listen, "metrics.listen", source))
    }
}

fn address(
    text: &Spanned<String>,
    field: &str,
    source: &Source<'_>,
) -> Result<SocketAddr, FileError> {
    parse_address(text.get_ref()).map_err(|error| source.error(text.span(), field, &error))
}
