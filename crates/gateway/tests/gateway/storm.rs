//! Two hundred calls at a time against a budget for ten, while clients hang up, the provider fails and stands
//! still, and the gateway is killed, and started again on what it has left behind.
//!
//! `TIDEGATE_STORM_SEED` gives another seed, and `TIDEGATE_STORM_SEEDS` so many of them, one after the other.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::json;

use crate::llm::{ALL, Kind, config};
use crate::process::{Gateway, client};
use crate::provider::Provider;

const BUDGET: u64 = 10_000;
const CALLS: u64 = 200;
/// With the input, each call reserves a tenth of the budget.
const CEILING: u64 = 800;

const RULES: &str = r#"
[[rule]]
name = "budget"
limit = "10_000 per hour"
key = "user"
cost = "llm-tokens"
reservation_expires_s = 2

[[rule]]
name = "at-a-time"
limit = "30 concurrent"
key = "user"
reservation_expires_s = 2
"#;

/// Numbers that look like chance and are the same for a seed (SplitMix64).
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of so many.
    fn below(&mut self, many: u64) -> u64 {
        self.next() % many
    }
}

/// A call, and how its client behaves.
struct Plan {
    id: u64,
    kind: Kind,
    is_stream: bool,
    script: String,
    /// The client hangs up after so many frames.
    hangs_up: Option<u64>,
    /// Whether the provider tells all that it bills, so that all of it is known.
    is_told: bool,
}

impl Plan {
    fn new(id: u64, chance: &mut Chance) -> Self {
        let kind = ALL[chance.below(ALL.len() as u64) as usize];
        let (output, pace) = (chance.below(400), 2 + chance.below(4));
        let place = chance.below(30);
        let fault = match chance.below(12) {
            0 => format!("status={}", [500, 503, 429][chance.below(3) as usize]),
            1 => format!("stall={place}"),
            2 => format!("cut={place}"),
            3 => format!("error={place}"),
            4 => format!("end={place}"),
            5 => "no-usage".to_owned(),
            6 => "garbage".to_owned(),
            _ => String::new(),
        };
        let hangs_up = (chance.below(4) == 0).then(|| chance.below(20));
        let is_told = fault.is_empty() && hangs_up.is_none();
        let script = format!("output={output}, pace={pace}, {fault}");
        Self { id, kind, is_stream: chance.below(3) > 0, script, hangs_up, is_told }
    }
}

/// What a client saw of its call.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Seen {
    Denied,
    /// All of an answer that went well.
    Whole,
    /// Anything else.
    Other,
}

async fn call(plan: Plan, gateway: SocketAddr) -> (u64, bool, Seen) {
    let body = plan.kind.body(CEILING, plan.is_stream);
    let mut request = plan.kind.call(&body, plan.is_stream, &plan.script);
    request.headers_mut().insert("x-call", plan.id.into());
    let url = format!("http://{gateway}{}", request.uri());
    *request.uri_mut() = url.parse().unwrap();
    // A connection of its own, which closes when it hangs up.
    let client = client();
    let seen = async {
        let Ok(response) = client.request(request).await else { return Seen::Other };
        let (status, mut body) = (response.status(), response.into_body());
        let mut frames = 0;
        while plan.hangs_up.is_none_or(|limit| frames < limit) {
            match body.frame().await {
                None if status == 429 && !plan.script.contains("status") => return Seen::Denied,
                None if status.is_success() => return Seen::Whole,
                None | Some(Err(_)) => return Seen::Other,
                Some(Ok(_)) => frames += 1,
            }
        }
        Seen::Other
    };
    (plan.id, plan.is_told, seen.await)
}

struct Storm {
    provider: Provider,
    config: String,
    state: tempfile::TempDir,
    chance: Chance,
    /// By call.
    seen: HashMap<u64, (bool, Seen)>,
}

impl Storm {
    fn start_gateway(&self) -> Gateway {
        let state = self.state.path().join("state");
        Gateway::configured_with(&self.config, &["--state", state.to_str().unwrap()])
    }

    /// All calls of a phase; the gateway is killed when so many more calls have reached the provider.
    async fn phase(
        &mut self,
        phase: u64,
        gateway: Gateway,
        kill_after: Option<u64>,
    ) -> Option<Gateway> {
        let before = self.provider.ledger.calls().len() as u64;
        let address = gateway.address();
        let mut tasks = Vec::new();
        for index in 0..CALLS {
            let plan = Plan::new(phase * CALLS + index, &mut self.chance);
            tasks.push(tokio::spawn(call(plan, address)));
        }
        let mut gateway = Some(gateway);
        if let Some(kill_after) = kill_after {
            let is_time = || self.provider.ledger.calls().len() as u64 >= before + kill_after;
            while !is_time() && !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            gateway = None; // by SIGKILL
        }
        for task in tasks {
            let (id, is_told, seen) = task.await.unwrap();
            self.seen.insert(id, (is_told, seen));
        }
        gateway
    }
}

/// What is used of a rule, what is reserved, and by how many calls.
async fn standing(gateway: &Gateway, rule: &str) -> (u64, u64, u64) {
    // In this order: what is not reserved any more has been settled before it is asked what is used.
    let overview = gateway.ask_admin("/api/v1/overview", None).await.json();
    let usage = gateway.ask_admin("/api/v1/usage?user=alice", None).await.json();
    let of = |list: &serde_json::Value, name: &str| {
        list.as_array().unwrap().iter().find(|one| one[name] == rule).unwrap().clone()
    };
    let used = of(&usage["usage"], "rule")["used"].as_u64().unwrap();
    let open = &of(&overview["rules"], "name")["reservations"];
    (used, open["units"].as_u64().unwrap(), open["open"].as_u64().unwrap())
}

/// Waits until nothing is reserved any more, and tells what is used then. Whatever happens, that is soon.
async fn settled(gateway: &Gateway) -> u64 {
    for _ in 0..1_500 {
        let (used, _, open) = standing(gateway, "budget").await;
        let (running, _, places) = standing(gateway, "at-a-time").await;
        assert!(used <= BUDGET, "{used}");
        if open == 0 && places == 0 {
            assert_eq!(running, 0, "a place has leaked");
            return used;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("reservations have leaked: {:?}", standing(gateway, "budget").await);
}

async fn storm(seed: u64) {
    println!("seed {seed}");
    let provider = Provider::start().await;
    let lines = "[admin]\nlisten = \"127.0.0.1:0\"\n[llm]\ndrain_s = 1\ntokenizer = \"never\"";
    let config = config(&provider, lines, RULES)
        .replace("[upstream]", "[upstream]\nidle_timeout_s = 1\nanswer_timeout_s = 1");
    let (state, chance) = (tempfile::tempdir().unwrap(), Chance(seed));
    let mut storm = Storm { provider, config, state, chance, seen: HashMap::new() };
    let kills = [1 + storm.chance.below(20), 1 + storm.chance.below(10)];
    for (phase, kill) in kills.into_iter().enumerate() {
        let gateway = storm.start_gateway();
        assert!(storm.phase(phase as u64, gateway, Some(kill)).await.is_none());
    }
    // What died with calls under way has reserved for them, and nothing of that is lost for good.
    let gateway = storm.start_gateway();
    settled(&gateway).await;
    let gateway = storm.phase(2, gateway, None).await.unwrap();
    let used = settled(&gateway).await;
    check(&storm, used);
    // All of it can be had again: nothing is held by nobody.
    let reset = json!({ "rule": "budget", "of": { "user": "alice" } });
    gateway.ask_admin("/api/v1/reset", Some(reset)).await;
    let body = Kind::Chat.body(CEILING, false);
    let reserved = CEILING + body.to_string().len() as u64;
    let before = storm.provider.ledger.calls().len();
    // They stay under way until they are given up, and charged then: nothing comes free meanwhile.
    let calls: Vec<_> = (0..CALLS)
        .map(|_| client().request(gateway.absolute(Kind::Chat.call(&body, false, "stall=0"))))
        .collect();
    let answers = futures_util::future::join_all(calls).await;
    let denied = answers.iter().filter(|answer| answer.as_ref().unwrap().status() == 429).count();
    let reached = storm.provider.ledger.calls().len() - before;
    assert_eq!((reached as u64, CALLS - denied as u64), (BUDGET / reserved, BUDGET / reserved));
}

/// What the provider bills, beside what is charged.
fn check(storm: &Storm, used: u64) {
    let (mut known, mut all, mut most) = (0, 0, 0);
    for billed in storm.provider.ledger.calls() {
        let id = billed.headers["x-call"].to_str().unwrap().parse::<u64>().unwrap();
        let (is_told, seen) = storm.seen[&id];
        assert_ne!(seen, Seen::Denied, "a denied call has reached the provider");
        all += billed.total();
        // What was under way when the gateway was killed came back. Where the client has all of it, it was not.
        let is_known = seen == Seen::Whole || id >= 2 * CALLS;
        known += if is_known { billed.total() } else { 0 };
        most += if is_told && seen == Seen::Whole { billed.total() } else { CEILING + 400 };
    }
    let denied = storm.seen.values().filter(|(_, seen)| *seen == Seen::Denied).count();
    println!("used {used}; billed {known}, and {} around the kills; {denied} denied", all - known);
    assert!(used <= BUDGET);
    assert!(known <= used, "the provider bills {known}, and {used} are charged");
    assert!(used <= most, "{used} are charged, and {most} is the most that was under way");
    assert!(all <= 3 * BUDGET, "no more than a budget was under way at each kill");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_with_kills_overspends_nothing_and_leaks_nothing() {
    let number = |name: &str, usual| {
        std::env::var(name).map_or(usual, |text| text.parse::<u64>().expect("a number"))
    };
    let first = number("TIDEGATE_STORM_SEED", 1);
    for seed in first..first + number("TIDEGATE_STORM_SEEDS", 1) {
        storm(seed).await;
    }
}
