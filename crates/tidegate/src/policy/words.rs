//! What a rule means, in plain words.

use std::fmt::{self, Write};

use super::{CostRule, KeyPart, Match, MissingKey, Rule, WhenDown};
use crate::limit::AlgorithmName;
use crate::money::Money;

/// Says what a rule means, in a sentence or a few: who may do how much of what, and what happens else.
pub(super) fn write(rule: &Rule, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{} may ", whom(rule))?;
    write_amount(rule, f)?;
    write_matching(rule.matches(), rule.key(), f)?;
    f.write_str(".")?;
    if rule.key().contains(&KeyPart::Ip) && rule.ipv6_prefix() != 128 {
        write!(f, " IPv6 addresses with the same first {} bits are one.", rule.ipv6_prefix())?;
    }
    if let Some(missing) = missing_of(rule) {
        let then = match rule.missing_key() {
            MissingKey::Deny => "are denied",
            MissingKey::Share => "share one limit",
            MissingKey::Skip => "are not limited by this rule",
        };
        write!(f, " Calls without {missing} {then}.")?;
    }
    if let Some(engine) = rule.engine() {
        f.write_str(" Counted on the server that all machines share")?;
        if engine.lease.is_some() {
            f.write_str(", which leases units to those that have many calls")?;
        }
        match engine.when_down {
            WhenDown::Deny => f.write_str("; while it does not answer, calls are denied.")?,
            WhenDown::Allow => f.write_str("; while it does not answer, all calls pass.")?,
            WhenDown::Share { of } => write!(
                f,
                "; while it does not answer, each process allows 1/{of} of that by itself."
            )?,
        }
    }
    if rule.is_dry_run() {
        f.write_str(" Dry run: what it would deny is counted, and passes.")?;
    }
    Ok(())
}

fn whom(rule: &Rule) -> String {
    let parts: Vec<String> = rule.key().iter().filter_map(part_in_words).collect();
    match parts.as_slice() {
        [] => "All calls together".to_owned(),
        [one] => format!("Each {one}"),
        [first @ .., last] => format!("Each combination of {} and {last}", first.join(", ")),
    }
}

fn part_in_words(part: &KeyPart) -> Option<String> {
    match part {
        KeyPart::Ip => Some("client address".to_owned()),
        KeyPart::User => Some("user".to_owned()),
        KeyPart::Team => Some("team".to_owned()),
        KeyPart::ApiKey => Some("API key".to_owned()),
        KeyPart::Model => Some("model".to_owned()),
        KeyPart::Route => Some("route".to_owned()),
        KeyPart::Header(name) => Some(format!("value of the header `{name}`")),
        KeyPart::Global => None,
    }
}

/// What a call may lack of the rule's key, unless the rule only applies to those that have it.
fn missing_of(rule: &Rule) -> Option<String> {
    let knows_users = rule.matches().wants_authenticated() == Some(true);
    let may_lack = |part: &&KeyPart| match part {
        KeyPart::Global => false,
        KeyPart::User => !knows_users,
        _ => true,
    };
    let parts = rule.key().iter().filter(may_lack).filter_map(|part| match part {
        // Whoever connects has one.
        KeyPart::Ip => None,
        KeyPart::User => Some("a known user".to_owned()),
        KeyPart::ApiKey => Some("an API key".to_owned()),
        part => part_in_words(part).map(|part| format!("a {part}")),
    });
    let parts: Vec<_> = parts.collect();
    (!parts.is_empty()).then(|| parts.join(" or "))
}

fn write_amount(rule: &Rule, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let rate = rule.limit().rate();
    if let CostRule::Money(currency) = rule.cost() {
        let amount = Money::from_nanos(rate.units(), currency);
        return write_period(rule, "spend", &amount.to_string(), f);
    }
    let (units, what) = match rule.cost() {
        CostRule::Fixed(1) => (rate.units(), counted(rate.units(), "call")),
        CostRule::Fixed(cost) => {
            (rate.units(), format!("{}, at {cost} a call,", counted(rate.units(), "unit")))
        }
        CostRule::LlmTokens | CostRule::Money(_) => {
            (rate.units(), counted(rate.units(), "LLM token"))
        }
    };
    let verb = if rule.cost() == CostRule::LlmTokens { "use" } else { "make" };
    write_period(rule, verb, &format!("{} {what}", grouped(units)), f)
}

/// So much of something, in which time.
fn write_period(rule: &Rule, verb: &str, amount: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (limit, rate) = (rule.limit(), rule.limit().rate());
    let period = rate.to_string();
    let period = period.split_once(" per ").map_or("", |(_, period)| period);
    match limit.algorithm() {
        AlgorithmName::TokenBucket => {
            write!(f, "{verb} {amount} per {period}, evenly")?;
            if limit.capacity() != rate.units() {
                let burst = match rule.cost() {
                    CostRule::Money(_) => rule.units_text(limit.capacity()),
                    _ => grouped(limit.capacity()),
                };
                write!(f, ", and up to {burst} at once")?;
            }
            Ok(())
        }
        AlgorithmName::FixedWindow => match limit.time_zone() {
            Some(zone) => {
                write!(f, "{verb} at most {amount} in each {period} of the calendar in {zone}")
            }
            None => write!(f, "{verb} at most {amount} in each {period}"),
        },
        AlgorithmName::SlidingWindowCounter | AlgorithmName::SlidingWindowLog => {
            write!(f, "{verb} at most {amount} in any {period}")
        }
        AlgorithmName::Concurrency => write!(f, "{verb} at most {amount} at a time"),
    }
}

fn counted(units: u64, what: &str) -> String {
    if units == 1 { what.to_owned() } else { format!("{what}s") }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn write_matching(matching: &Match, key: &[KeyPart], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (paths, methods, headers) = matching.conditions();
    let mut said = String::new();
    if !methods.is_empty() {
        write!(said, " by {}", methods.join(" or "))?;
    }
    if !paths.is_empty() {
        let paths: Vec<String> = paths.iter().map(|path| format!("`{path}`")).collect();
        write!(said, " on {}", paths.join(" or "))?;
    }
    for (name, value) in headers {
        write!(said, " with `{name}: {value}`")?;
    }
    let (users, teams, models) = matching.names();
    for (what, names) in [("users", users), ("teams", teams), ("models", &models)] {
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            write!(said, ", of the {what} {}", names.join(" or "))?;
        }
    }
    if said.is_empty() {
        said.push_str(", on every path");
    }
    match matching.wants_authenticated() {
        // "Each user" says it.
        Some(true) if key.contains(&KeyPart::User) => {}
        Some(true) => said.push_str(", if the caller is known"),
        Some(false) => said.push_str(", if the caller is not known"),
        None => {}
    }
    f.write_str(&said)
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;

    #[test]
    fn rules_are_told_in_plain_words() {
        let cases = [
            (
                "limit = \"100 per minute\"\nkey = \"ip\"",
                "Each client address may make at most 100 calls in any minute, on every path. \
                 IPv6 addresses with the same first 64 bits are one.",
            ),
            (
                "limit = \"10_000 per day\"\nalgorithm = \"fixed-window\"\nkey = \"user\"\n\
                 cost = \"llm-tokens\"\nmatch = { authenticated = true, path = \"/v1/*\" }",
                "Each user may use at most 10,000 LLM tokens in each day of the calendar in UTC on \
                 `/v1/*`.",
            ),
            (
                "limit = \"5 per second\"\nalgorithm = \"token-bucket\"\nburst = 20\n\
                 key = [\"user\", \"header:x-plan\"]\nmissing_key = \"share\"\ndry_run = true",
                "Each combination of user and value of the header `x-plan` may make 5 calls per second, \
                 evenly, and up to 20 at once, on every path. Calls without a known user or a value of \
                 the header `x-plan` share one limit. Dry run: what it would deny is counted, and passes.",
            ),
            (
                "limit = \"1 per 30 seconds\"\nalgorithm = \"fixed-window\"\nkey = \"global\"\n\
                 match = { method = \"POST\", path = [\"/login\", \"/signup\"] }",
                "All calls together may make at most 1 call in each 30 seconds by POST on `/login` or \
                 `/signup`.",
            ),
            (
                "limit = \"2.50 USD per month\"\nalgorithm = \"fixed-window\"\ncost = \"money\"\n\
                 key = \"team\"\nmatch = { model = [\"gpt-5*\", \"o3\"], path = \"/v1/*\" }",
                "Each team may spend at most 2.5 USD in each month of the calendar in UTC on `/v1/*`, of \
                 the models `gpt-5*` or `o3`. Calls without a team are denied.",
            ),
            (
                "limit = \"3 concurrent\"\nkey = \"api-key\"\nmissing_key = \"skip\"",
                "Each API key may make at most 3 calls at a time, on every path. Calls without an API \
                 key are not limited by this rule.",
            ),
        ];
        for (rule, words) in cases {
            let policy = Policy::from_toml(&format!("[[rule]]\nname = \"r\"\n{rule}\n")).unwrap();
            assert_eq!(policy.rules()[0].in_words().to_string(), words);
        }
    }
}
