//! The metrics as text, in the OpenMetrics format.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tidegate::policy::Rule;

use super::{DECIDED_BY, METRICS, Metrics, TOKEN_KINDS, read};
use crate::gateway::Gateway;

/// What [`scrape`] gives.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = [(&'static str, String); 1];

/// All that is counted, at this moment. Looks at every slot of every table.
pub(crate) fn scrape(gateway: &Gateway) -> String {
    let mut registry = Registry::with_prefix("tidegate");
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    registry.register("build", "The version that runs", Info::new(version));
    METRICS.register(&mut registry);
    register_rules(gateway, &mut registry);
    register_engine(gateway, &mut registry);
    let mut text = String::with_capacity(8 << 10);
    // Strings take everything.
    let _ = text::encode(&mut text, &registry);
    text
}

fn counters(values: impl IntoIterator<Item = (Labels, u64)>) -> Family<Labels, Counter> {
    let family = Family::<Labels, Counter>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).inc_by(value);
    }
    family
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let calls = self.calls().map(|(name, count)| ([("outcome", name.to_owned())], count));
        registry.register("calls", "Calls, by what became of them", counters(calls));
        registry.register_with_unit(
            "added",
            "Time that a call took in the gateway itself, without the API behind and the client",
            Unit::Seconds,
            self.added.snapshot(),
        );
        let kinds = TOKEN_KINDS.iter().zip(&self.llm_tokens);
        let tokens = kinds.map(|(kind, count)| ([("kind", (*kind).to_owned())], read(count)));
        registry.register(
            "llm_tokens",
            "LLM tokens that calls were charged for, by the provider's own count where it told one",
            counters(tokens),
        );
        let spent = Family::<Labels, Counter<f64, std::sync::atomic::AtomicU64>>::default();
        for (currency, nanos) in &*self.money.lock().unwrap_or_else(PoisonError::into_inner) {
            let labels = [("currency", currency.clone())];
            spent.get_or_create(&labels).inc_by(read(nanos) as f64 / 1e9);
        }
        registry.register("money", "Money that calls cost, by the price table", spent);
        let denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        let denials = denials.iter().map(|(rule, count)| ([("rule", rule.clone())], count.get()));
        registry.register("denials", "Calls that a rule denied", counters(denials));
        let reloads = ["failed", "ok"].iter().zip(&self.reloads);
        let reloads =
            reloads.map(|(result, count)| ([("result", (*result).to_owned())], read(count)));
        registry.register("config_reloads", "Reloads of the configuration", counters(reloads));
        registry.register(
            "config_reloaded_timestamp",
            "When the configuration was last taken over; 0 since the start",
            ConstGauge::new(self.reloaded_s.load(Ordering::Relaxed) as i64), // a lone value
        );
    }
}

/// What is known of the server that rules are on, where there is one.
fn register_engine(gateway: &Gateway, registry: &mut Registry) {
    let Some(engine) = gateway.policy().engine() else { return };
    let decided = DECIDED_BY.iter().zip(&METRICS.decided);
    let decided = decided.map(|((_, by), count)| ([("by", (*by).to_owned())], read(count)));
    registry.register(
        "rule_decisions",
        "Decisions on rules, by who made them: this process, the server, a lease of its units, or the rule's \
         fallback since the server did not answer",
        counters(decided),
    );
    let events = engine.counts().into_iter();
    let events = events.map(|(event, count)| ([("event", event.to_owned())], count));
    registry.register(
        "redis_events",
        "What happened between this process and the server that rules are on",
        counters(events),
    );
    registry.register(
        "redis_given_up",
        "1 while the server is not asked, since it has not answered several times",
        ConstGauge::new(i64::from(engine.is_given_up())),
    );
}

/// What the tables of the rules hold.
fn register_rules(gateway: &Gateway, registry: &mut Registry) {
    let policies = [gateway.policy(), gateway.failed_logins().policy()];
    let rules: Vec<(&Rule, _)> = policies
        .iter()
        .flat_map(|policy| policy.rules().iter().map(|rule| (rule, policy.now())))
        .collect();
    let labels = |rule: &Rule| [("rule", rule.name().to_owned())];
    let gauges = |of: &dyn Fn(&Rule, tidegate::Timestamp) -> i64| {
        let family = Family::<Labels, Gauge>::default();
        for (rule, now) in &rules {
            family.get_or_create(&labels(rule)).set(of(rule, *now));
        }
        family
    };
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    registry.register(
        "table_keys",
        "Keys that are not idle, in the rule's table",
        gauges(&|rule, now| count(rule.live_keys(now) as u64)),
    );
    registry.register(
        "table_slots",
        "Keys that there is room for in the rule's table",
        gauges(&|rule, _| count(rule.slots() as u64)),
    );
    registry.register(
        "reservations_open",
        "Reservations that are not settled yet",
        gauges(&|rule, _| count(rule.open_reservations().0)),
    );
    registry.register(
        "reserved_units",
        "Units that open reservations hold",
        gauges(&|rule, _| i64::try_from(rule.open_reservations().1).unwrap_or(i64::MAX)),
    );
    let dry_runs = rules.iter().filter(|(rule, _)| rule.is_dry_run());
    let dry_runs = dry_runs.map(|(rule, _)| (labels(rule), rule.dry_run_denials()));
    registry.register(
        "dry_run_denials",
        "Calls that a rule in dry run would have denied",
        counters(dry_runs),
    );
    let denied = rules.iter().map(|(rule, _)| (labels(rule), rule.tally().denied()));
    registry.register(
        "table_denied",
        "New keys denied since the rule's table was full",
        counters(denied),
    );
    let taken = rules.iter().map(|(rule, _)| (labels(rule), rule.tally().taken_over()));
    registry.register(
        "table_taken_over",
        "Keys forgotten for new ones since the rule's table was full",
        counters(taken),
    );
}
