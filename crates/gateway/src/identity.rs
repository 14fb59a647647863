//! Who calls: by a key, by a token, or by the word of a proxy in front.
//!
//! ```text
//! trusted proxy's header -> Who
//! Authorization: Bearer, x-api-key, x-goog-api-key -> a key that is known, or a signed token -> Who
//! ```

mod auth_spec;
mod credential;
mod failed_logins;
mod jwt;
pub(crate) mod keys;
pub(crate) mod keys_file;
mod proxy_header;

pub(crate) use auth_spec::{AuthSpec, UserSpec};
pub(crate) use failed_logins::FailedLogins;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::header::HeaderMap;

use credential::Credential;
use jwt::Tokens;
use keys::Keys;
use proxy_header::ProxyHeader;

/// A caller who is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) user: String,
    pub(crate) team: Option<String>,
    /// The name of the key that was used, which is no secret.
    pub(crate) key: Option<String>,
}

/// What a request says of its caller.
#[derive(Debug)]
pub(crate) enum Identified {
    Known(Arc<Who>),
    /// It says nothing.
    Stranger,
    /// It says something that does not hold, for this reason.
    Refused(String),
}

/// All ways in which callers can be known.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    keys: Keys,
    tokens: Tokens,
    header: Option<ProxyHeader>,
    /// The files that it was read from, beside the configuration.
    files: Vec<PathBuf>,
}

impl Identity {
    /// The caller of a request with these headers, whose connection comes from `peer`.
    pub(crate) fn identify(&self, headers: &HeaderMap, peer: IpAddr) -> Identified {
        if let Some(header) = self.header.as_ref().filter(|header| header.trusts(peer)) {
            match header.read(headers) {
                Identified::Stranger => {}
                said => return said,
            }
        }
        let credential = match Credential::of(headers) {
            Ok(None) => return Identified::Stranger,
            Ok(Some(credential)) => credential,
            Err(reason) => return Identified::Refused(reason.to_owned()),
        };
        if self.tokens.takes(credential) {
            return match self.tokens.verify(credential) {
                Ok(who) => Identified::Known(who),
                Err(reason) => Identified::Refused(reason),
            };
        }
        match self.keys.find(credential.bytes()) {
            Some(who) => Identified::Known(who.clone()),
            None => Identified::Refused("The key is not known here.".to_owned()),
        }
    }

    /// Removes what only a trusted proxy may say, so that nobody behind believes it of others.
    pub(crate) fn strip(&self, headers: &mut HeaderMap, peer: IpAddr) {
        if let Some(header) = self.header.as_ref().filter(|header| !header.trusts(peer)) {
            header.remove(headers);
        }
    }

    /// The users that have keys.
    pub(crate) fn users(&self) -> impl Iterator<Item = &Who> {
        self.keys.all()
    }

    /// The files that it was read from, beside the configuration.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// How callers can be known, in a few words.
    pub(crate) fn in_words(&self) -> String {
        let keys = self.keys.len();
        let mut ways = vec![format!("{keys} key{}", if keys == 1 { "" } else { "s" })];
        let tokens = self.tokens.in_words();
        ways.extend(tokens.iter().map(|issuer| format!("tokens of {issuer}")));
        ways.extend(self.header.as_ref().map(ProxyHeader::in_words));
        ways.join(", ")
    }
}
