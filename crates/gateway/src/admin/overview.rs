//! All that an operator looks at, in one answer.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tidegate::policy::{CostRule, Policy, Rule};
use tidegate::{Decision, LiveKey, Timestamp};

use super::blocks::Block;
use super::subject::Subject;
use crate::live::Live;
use crate::metrics::{METRICS, Totals};

/// Keys that are shown of each rule.
const TOP: usize = 12;

/// When this process began.
pub(super) static STARTED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

#[derive(Serialize)]
pub(super) struct Overview {
    version: &'static str,
    now_s: u64,
    started_s: u64,
    draining: bool,
    config: ConfigState,
    totals: Totals,
    rules: Vec<RuleState>,
    blocks: Vec<Block>,
}

/// What runs, and whether the latest reload failed.
#[derive(Serialize)]
struct ConfigState {
    file: Option<String>,
    taken_over_s: Option<u64>,
    failed: Option<Failed>,
}

#[derive(Serialize)]
struct Failed {
    at_s: u64,
    error: String,
}

#[derive(Serialize)]
struct RuleState {
    name: String,
    limit: String,
    /// The limit, as people say it.
    limit_text: String,
    /// The currency, where money is counted, in nano-units.
    currency: Option<String>,
    /// By what it tells callers apart.
    key: Vec<String>,
    words: String,
    /// What is counted.
    unit: &'static str,
    /// The most units that one key can have at once.
    capacity: u64,
    dry_run: bool,
    /// Whether calls reserve and are settled later.
    settles: bool,
    denials: u64,
    dry_run_denials: u64,
    keys: usize,
    slots: usize,
    denied_for_room: u64,
    reservations: Reservations,
    top: Vec<Consumer>,
}

#[derive(Serialize)]
struct Reservations {
    open: u64,
    units: u64,
}

/// A key that has used much.
#[derive(Serialize)]
struct Consumer {
    /// What it is called; nothing, when it has not called since the start.
    name: Option<String>,
    /// The key, to top up or reset; nothing, when only its fingerprint is known.
    id: Option<String>,
    fingerprint: String,
    used: u64,
    left: u64,
    /// When all of it is back, in seconds.
    back_in_s: u64,
}

/// Looks at every slot of every table, so it is not for the threads that calls are served on.
pub(super) fn overview(live: &Live) -> Overview {
    let gateway = live.gateway();
    let reloads = live.reloads();
    let policies = [gateway.policy(), gateway.failed_logins().policy()];
    let rules = policies.iter().flat_map(|policy| {
        let now = policy.now();
        policy.rules().iter().map(move |rule| (rule, now))
    });
    Overview {
        version: env!("CARGO_PKG_VERSION"),
        now_s: unix_s(SystemTime::now()),
        started_s: unix_s(*STARTED),
        draining: live.is_draining(),
        config: ConfigState {
            file: live.files().first().map(|file| file.display().to_string()),
            taken_over_s: reloads.taken_over.map(unix_s),
            failed: reloads.failed.map(|(at, error)| Failed { at_s: unix_s(at), error }),
        },
        totals: METRICS.totals(),
        rules: rules.map(|(rule, now)| rule_state(live, rule, now)).collect(),
        blocks: live.blocks().all(),
    }
}

/// How each rule stands with one caller.
#[derive(Serialize)]
pub(super) struct Usage {
    rule: String,
    unit: &'static str,
    limit: u64,
    used: u64,
    left: u64,
    back_in_s: u64,
}

impl Usage {
    /// With each rule that has such a key; and the rules that are on a server which does not answer.
    pub(super) async fn of(policy: &Policy, subject: &Subject) -> (Vec<Self>, Vec<String>) {
        let (mut usage, mut unavailable) = (Vec::new(), Vec::new());
        for rule in policy.rules() {
            match subject.standing(policy, rule.name()).await {
                Ok(standing) => usage.push(Self::with(rule, standing)),
                Err(error) if error.is_unavailable() => unavailable.push(rule.name().to_owned()),
                Err(_) => {}
            }
        }
        (usage, unavailable)
    }

    fn with(rule: &Rule, standing: Decision) -> Self {
        let limit = rule.limit().capacity();
        Self {
            rule: rule.name().to_owned(),
            unit: unit(rule),
            limit,
            used: limit.saturating_sub(standing.remaining()),
            left: standing.remaining(),
            back_in_s: whole_s(standing.reset_after()),
        }
    }
}

fn rule_state(live: &Live, rule: &Rule, now: Timestamp) -> RuleState {
    let (open, units) = rule.open_reservations();
    RuleState {
        name: rule.name().to_owned(),
        limit: rule.limit().rate().to_string(),
        limit_text: rule.limit_text(),
        currency: match rule.cost() {
            CostRule::Money(currency) => Some(currency.to_string()),
            _ => None,
        },
        key: rule.key().iter().map(ToString::to_string).collect(),
        words: rule.in_words().to_string(),
        unit: unit(rule),
        capacity: rule.limit().capacity(),
        dry_run: rule.is_dry_run(),
        settles: !matches!(rule.cost(), CostRule::Fixed(_)),
        denials: METRICS.denials_of(rule.name()).get(),
        dry_run_denials: rule.dry_run_denials(),
        keys: rule.live_keys(now),
        slots: rule.slots(),
        denied_for_room: rule.tally().denied(),
        reservations: Reservations { open, units: u64::try_from(units).unwrap_or(u64::MAX) },
        top: rule.top_consumers(TOP, now).iter().map(|key| consumer(live, rule, key)).collect(),
    }
}

fn consumer(live: &Live, rule: &Rule, key: &LiveKey) -> Consumer {
    let (left, capacity) = (key.standing.remaining(), rule.limit().capacity());
    let (id, name) = live.names().find(key.fingerprint).unzip();
    Consumer {
        name: name.map(String::from),
        id: id.map(|id| format!("{:016x}", id.hash())),
        fingerprint: format!("{:012x}", key.fingerprint),
        used: capacity.saturating_sub(left),
        left,
        back_in_s: whole_s(key.standing.reset_after()),
    }
}

fn unit(rule: &Rule) -> &'static str {
    match rule.cost() {
        CostRule::Fixed(_) if rule.limit().is_concurrency() => "calls at a time",
        CostRule::Fixed(1) => "calls",
        CostRule::Fixed(_) => "units",
        CostRule::LlmTokens => "LLM tokens",
        CostRule::Money(_) => "money",
    }
}

/// Rounded up, as waits are.
fn whole_s(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

pub(super) fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
