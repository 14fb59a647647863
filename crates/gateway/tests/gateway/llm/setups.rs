//! The configurations that people are shown, as they are shown, but for addresses and the names of keys.

use http::Request;
use http_body_util::Full;

use super::{Kind, call_to};
use crate::command_line::run;
use crate::process::{Gateway, get_as};
use crate::provider::Provider;

const README: &str = include_str!("../../../../../README.md");

/// The blocks of TOML in a text.
fn blocks(markdown: &str) -> Vec<&str> {
    let blocks = markdown.split("```toml\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap()).collect()
}

/// With the provider in the place of all others, and a key that tests have.
fn behind(config: &str, provider: &Provider) -> String {
    let mut lines = Vec::new();
    for line in config.lines() {
        lines.push(match line.trim_start_matches("# ").split_once(" = ") {
            Some(("url", _)) => format!("url = \"http://{}\"", provider.address),
            Some(("api_key_env", _)) => "api_key_env = \"TIDEGATE_TEST_KEY\"".to_owned(),
            _ => line.to_owned(),
        });
    }
    lines.join("\n") + "\n"
}

fn printed() -> String {
    String::from_utf8(run(&["--print-config"]).stdout).unwrap()
}

/// A call by a client that has its key where its provider wants it.
async fn call(gateway: &Gateway, kind: Kind, model: &str) -> crate::process::Answer {
    let mut body = kind.body(300, false);
    let path = kind.path(false).replace("gemini-2.5-flash", model);
    if !matches!(kind, Kind::Gemini) {
        body["model"] = model.into();
    }
    let (mut parts, body) = call_to(&path, &body, "output=25, cached=10").into_parts();
    parts.headers.remove("authorization");
    let (name, value) = match kind {
        Kind::Messages => ("x-api-key", "demo-alice"),
        Kind::Gemini => ("x-goog-api-key", "demo-alice"),
        _ => ("authorization", "Bearer demo-alice"),
    };
    parts.headers.insert(name, value.parse().unwrap());
    gateway.send(Request::from_parts(parts, body)).await
}

/// Each provider gets its own key, where it wants it, and nothing of the caller's.
fn assert_credentials(provider: &Provider, kind: Kind) {
    let call = provider.ledger.calls().pop().unwrap();
    let (name, value) = match kind {
        Kind::Messages => ("x-api-key", "upstream-secret"),
        Kind::Gemini => ("x-goog-api-key", "upstream-secret"),
        _ => ("authorization", "Bearer upstream-secret"),
    };
    for field in ["authorization", "x-api-key", "x-goog-api-key"] {
        let expected = (field == name).then_some(value.as_bytes());
        assert_eq!(call.headers.get(field).map(|value| value.as_bytes()), expected, "{kind:?}");
    }
}

#[tokio::test]
async fn the_readmes_budget_of_money_in_front_of_three_providers() {
    let provider = Provider::start().await;
    let blocks = blocks(README);
    let shown = blocks.iter().find(|block| block.contains("[upstream]")).unwrap();
    let gateway = Gateway::configured(&(printed() + &behind(shown, &provider)));
    let (mut money, mut tokens) = (2_500_000_000, 10_000);
    for (kind, model, prices) in [
        (Kind::Chat, "gpt-5-mini", [250, 25, 2_000]),
        (Kind::Responses, "gpt-5-mini-2025-08-07", [250, 25, 2_000]),
        (Kind::Messages, "claude-sonnet-4-5", [3_000, 300, 15_000]),
    ] {
        let answer = call(&gateway, kind, model).await;
        assert_eq!(answer.status, 200, "{kind:?}: {}", answer.text());
        assert_credentials(&provider, kind);
        let billed = provider.ledger.calls().pop().unwrap();
        let [input, cached, output] = prices;
        money -= (billed.input - 10) * input + 10 * cached + billed.output * output;
        tokens -= billed.total();
        let told = gateway.send(get_as("demo-alice", "/v1/models")).await;
        assert_eq!((told.remaining("money"), told.remaining("budget")), (money, tokens));
    }
    let denied = call(&gateway, Kind::Gemini, "gemini-2.5-flash").await;
    assert_eq!(denied.status, 403);
    assert!(denied.json()["error"]["message"].as_str().unwrap().contains("has no price here"));
}

/// What stands there as a comment, for people to take the marks away.
#[tokio::test]
async fn the_printed_configuration_with_all_that_it_offers_on_llms() {
    let is_offer = |line: &str| {
        let rest = line.strip_prefix("# ").unwrap_or("");
        rest.starts_with('[') || rest.split(' ').nth(1) == Some("=")
    };
    let provider = Provider::start().await;
    let printed = printed();
    let (before, rest) = printed.split_once("# [upstream]\n").unwrap();
    let (llm, rest) = rest.split_once("# Paths that only").unwrap();
    let (rest, rules) = rest.split_once("# A budget of money").unwrap();
    let taken = |text: &str| -> String {
        text.lines().filter(|line| is_offer(line)).map(|line| line[2..].to_owned() + "\n").collect()
    };
    let config = format!("{before}\n[upstream]\n{}\n# {rest}\n{}", taken(llm), taken(rules));
    let gateway = Gateway::configured(&behind(&config, &provider));
    for kind in [Kind::Chat, Kind::Responses, Kind::Messages, Kind::Gemini] {
        let answer = call(&gateway, kind, "gpt-5-mini").await;
        assert_eq!(answer.status, 200, "{kind:?}: {}", answer.text());
        assert_credentials(&provider, kind);
        for rule in ["ip", "user", "budget", "money", "at-a-time"] {
            answer.remaining(rule);
        }
        // Nobody gets at any provider without a key.
        let path = kind.path(false);
        let stranger = Request::post(path).body(Full::from(kind.body(9, false).to_string()));
        assert_eq!(gateway.send(stranger.unwrap()).await.status, 401, "{path}");
    }
}
