//! [`FailedLogins`]: how many wrong keys and passwords an address may try.

use std::net::IpAddr;

use tidegate::policy::{Call, KeyPart, PathPattern, Policy, PolicyError, Rule, RuleError, Verdict};
use tidegate::{Limit, Rate, SharedFile, SystemClock};

/// How many wrong keys and passwords a client address may try: each one that is wrong counts.
///
/// A key that is right passes however many wrong ones came from its address: keys cannot be guessed, and
/// many people may share an address. Passwords can be, so the log-in paths of the API behind are closed
/// to an address that has failed there too often.
#[derive(Debug, Clone)]
pub(crate) struct FailedLogins {
    policy: Policy,
    rate: Rate,
    paths: Vec<PathPattern>,
}

impl FailedLogins {
    /// The name of the limit, in answers and metrics.
    pub(crate) const RULE: &str = "failed-logins";

    /// So many, with their count in a file, or in this process where `former` began it.
    pub(super) fn new(
        rate: Rate,
        paths: Vec<PathPattern>,
        state: Option<&SharedFile>,
        former: Option<&Self>,
    ) -> Result<Self, String> {
        if let Some(former) = former.filter(|former| former.rate == rate) {
            return Ok(Self { paths, ..former.clone() });
        }
        // The lightest one: two words for an address.
        let limit = Limit::token_bucket(rate, None);
        let limit = limit.map_err(|error| error.to_string())?;
        let rule = match state {
            None => Rule::new(Self::RULE, limit, [KeyPart::Ip]),
            Some(file) => Rule::shared(Self::RULE, limit, [KeyPart::Ip], Rule::DEFAULT_KEYS, file),
        };
        let rule = [rule.map_err(|error: RuleError| error.to_string())?];
        let policy = match state {
            None => Policy::with_clock(rule, SystemClock::new()),
            Some(file) => Policy::with_clock(rule, file.clock()),
        };
        let policy = policy.map_err(|error: PolicyError| error.to_string())?;
        Ok(Self { policy, rate, paths })
    }

    /// Whether people log in there, by a password that the API behind looks at.
    pub(crate) fn are_on(&self, method: &http::Method, path: &str) -> bool {
        *method == http::Method::POST && self.paths.iter().any(|pattern| pattern.applies_to(path))
    }

    /// Counts a log-in that failed, or that may yet; denied when there were too many.
    pub(crate) fn count(&self, ip: Option<IpAddr>) -> Verdict<'_> {
        self.policy.decide(&call(ip))
    }

    /// Takes back a count: the log-in did not fail.
    pub(crate) fn forgive(&self, ip: Option<IpAddr>) {
        if let Ok(account) = self.policy.account(Self::RULE, &call(ip)) {
            let _ = account.top_up(1);
        }
    }

    /// The limit, to be looked at.
    pub(crate) const fn policy(&self) -> &Policy {
        &self.policy
    }
}

fn call(ip: Option<IpAddr>) -> Call<'static> {
    let call = Call::new("POST", "/");
    ip.map_or(call, |ip| call.from_ip(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_fails_so_often_and_others_are_not_touched() {
        let rate = "3 per minute".parse().unwrap();
        let logins = FailedLogins::new(rate, vec!["/login".parse().unwrap()], None, None).unwrap();
        let (one, other) = (Some([192, 0, 2, 1].into()), Some([192, 0, 2, 2].into()));
        assert!((0..3).all(|_| logins.count(one).is_allow()));
        assert!(!logins.count(one).is_allow());
        assert!(logins.count(other).is_allow());
        logins.forgive(one);
        assert!(logins.count(one).is_allow(), "that one had not failed");
        assert!(!logins.count(one).is_allow());
        let reloaded = FailedLogins::new(rate, vec![], None, Some(&logins)).unwrap();
        assert!(!reloaded.count(one).is_allow(), "a reload forgets nothing");
        assert!(logins.are_on(&http::Method::POST, "//login/"));
        assert!(!logins.are_on(&http::Method::GET, "/login"));
        assert!(!logins.are_on(&http::Method::POST, "/logins"));
    }
}
