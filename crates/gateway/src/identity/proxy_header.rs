//! [`ProxyHeader`]: the word of a proxy that has authenticated the caller.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName};
use tidegate::TrustedProxies;

use super::keys::MAX_NAME;
use super::{Identified, Who};

/// The headers in which an authenticating proxy says who calls, and the proxies that are believed.
#[derive(Debug)]
pub(super) struct ProxyHeader {
    pub(super) user: HeaderName,
    pub(super) team: Option<HeaderName>,
    pub(super) from: TrustedProxies,
}

impl ProxyHeader {
    /// Whether a connection from this address may say who calls.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        self.from.trusts(peer)
    }

    pub(super) fn read(&self, headers: &HeaderMap) -> Identified {
        let user = match name(headers, &self.user) {
            Ok(None) => return Identified::Stranger,
            Ok(Some(user)) => user,
            Err(()) => return refused(&self.user),
        };
        let team = match self.team.as_ref().map(|team| name(headers, team)).transpose() {
            Ok(team) => team.flatten(),
            Err(()) => return self.team.as_ref().map_or(Identified::Stranger, refused),
        };
        Identified::Known(Arc::new(Who { user, team, key: None }))
    }

    pub(super) fn remove(&self, headers: &mut HeaderMap) {
        for name in std::iter::once(&self.user).chain(&self.team) {
            headers.remove(name);
        }
    }

    pub(super) fn in_words(&self) -> String {
        format!("the header `{}` of trusted proxies", self.user)
    }
}

/// The one name in a header. `Err` when there are several, or it is none.
fn name(headers: &HeaderMap, header: &HeaderName) -> Result<Option<String>, ()> {
    let mut lines = headers.get_all(header).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let name = std::str::from_utf8(line.as_bytes()).map_err(|_| ())?.trim();
    let is_name = name.len() <= MAX_NAME && !name.chars().any(char::is_control);
    match (lines.next(), name) {
        (None, "") => Ok(None),
        (None, name) if is_name => Ok(Some(name.to_owned())),
        _ => Err(()),
    }
}

fn refused(header: &HeaderName) -> Identified {
    Identified::Refused(format!("The header `{header}` is no name."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> ProxyHeader {
        ProxyHeader {
            user: HeaderName::from_static("x-user"),
            team: Some(HeaderName::from_static("x-team")),
            from: TrustedProxies::new(["10.0.0.0/8".parse().unwrap()]),
        }
    }

    fn read(lines: &[(&'static str, &str)]) -> Identified {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        header().read(&lines.iter().map(line).collect())
    }

    #[test]
    fn a_proxy_says_who_calls_once_or_nobody_is_known() {
        let Identified::Known(who) = read(&[("x-user", " alice "), ("x-team", "ml")]) else {
            panic!("is known");
        };
        assert_eq!((&*who.user, who.team.as_deref()), ("alice", Some("ml")));
        assert!(matches!(read(&[]), Identified::Stranger));
        assert!(matches!(read(&[("x-user", "")]), Identified::Stranger));
        let two = [("x-user", "alice"), ("x-user", "bob")];
        assert!(matches!(read(&two), Identified::Refused(_)));
        let long = "a".repeat(MAX_NAME + 1);
        assert!(matches!(read(&[("x-user", &long)]), Identified::Refused(_)));
    }

    #[test]
    fn only_trusted_peers_are_believed() {
        assert!(header().trusts("10.1.2.3".parse().unwrap()));
        assert!(header().trusts("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!header().trusts("192.0.2.1".parse().unwrap()));
        let mut headers: HeaderMap =
            [(HeaderName::from_static("x-user"), "eve".parse().unwrap())].into_iter().collect();
        header().remove(&mut headers);
        assert!(headers.is_empty());
    }
}
