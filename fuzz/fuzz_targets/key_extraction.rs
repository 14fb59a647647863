//! Any calls and any key of a rule: calls share a limit when all parts of their keys are the same, and
//! only then; those without some part of it share one, or are not let through.
#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidegate::policy::{Call, Headers, KeyPart, MissingKey, Policy, Reason, Rule, Verdict};
use tidegate::{FakeClock, Limit};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    parts: Vec<Part>,
    ipv6_prefix: u8,
    share: bool,
    calls: [Caller<'a>; 2],
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Part {
    Ip,
    User,
    Header(bool),
    Global,
}

#[derive(Arbitrary, Debug, PartialEq)]
struct Caller<'a> {
    ip: Option<IpAddr>,
    user: Option<&'a str>,
    headers: [Option<&'a str>; 2],
}

const HEADERS: [&str; 2] = ["x-team", "x-plan"];

impl Headers for Caller<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers[HEADERS.iter().position(|known| *known == name)?]
    }
}

impl Caller<'_> {
    fn call(&self) -> Call<'_> {
        let mut call = Call::new("GET", "/").with_headers(self);
        if let Some(ip) = self.ip {
            call = call.from_ip(ip);
        }
        if let Some(user) = self.user {
            call = call.by_user(user);
        }
        call
    }

    /// What tells this caller apart by one part, if it has it.
    fn value(&self, part: Part, ipv6_prefix: u8) -> Option<String> {
        match part {
            Part::Ip => self.ip.map(|ip| match ip.to_canonical() {
                IpAddr::V4(v4) => v4.to_string(),
                IpAddr::V6(v6) => {
                    let bits = 128 - u32::from(ipv6_prefix);
                    let network = u128::from(v6).checked_shr(bits).unwrap_or(0);
                    Ipv6Addr::from(network.checked_shl(bits).unwrap_or(0)).to_string()
                }
            }),
            Part::User => self.user.map(str::to_owned),
            Part::Header(second) => self.headers[usize::from(second)].map(str::to_owned),
            Part::Global => Some(String::new()),
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let parts = &input.parts[..input.parts.len().min(5)];
    if parts.is_empty() {
        return;
    }
    let ipv6_prefix = 32 + input.ipv6_prefix % 97;
    let key = parts.iter().map(|part| match part {
        Part::Ip => KeyPart::Ip,
        Part::User => KeyPart::User,
        Part::Header(second) => KeyPart::Header(HEADERS[usize::from(*second)].to_owned()),
        Part::Global => KeyPart::Global,
    });
    let limit = Limit::fixed_window("1 per hour".parse().expect("a rate"), None).expect("fits");
    let missing = if input.share { MissingKey::Share } else { MissingKey::Deny };
    let rule = Rule::with_keys("rule", limit, key, 16).expect("a rule").on_missing_key(missing);
    let rule = rule.with_ipv6_prefix(ipv6_prefix).expect("32 to 128");
    let policy = Policy::with_clock([rule], FakeClock::default()).expect("one rule");

    let [first, second] = &input.calls;
    // `None` when some part is missing.
    let key = |caller: &Caller<'_>| -> Option<Vec<_>> {
        parts.iter().map(|part| caller.value(*part, ipv6_prefix)).collect()
    };
    let (one, other) = (key(first), key(second));
    let first_allowed = policy.decide(&first.call()).is_allow();
    assert_eq!(first_allowed, input.share || one.is_some(), "{one:?}");
    match policy.decide(&second.call()) {
        Verdict::Allow(_) => {
            assert!(input.share || other.is_some(), "a missing key was let through");
            assert!(!first_allowed || one != other, "{one:?} are two keys");
        }
        Verdict::Deny(refusal) => match refusal.reason() {
            Reason::MissingKey(_) => assert!(!input.share && other.is_none()),
            _ => assert_eq!(one, other, "one key for two"),
        },
    }
});
