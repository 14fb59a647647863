//! The gateway in operation: reloads, metrics, health, and what operators can do.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::process::{ADMIN_TOKEN, Gateway, Upstream, chat_as, client, get, get_as};

/// With listeners for operators and metrics, and these lines beside.
fn config(lines: &str) -> String {
    format!(
        "drain_timeout_s = 5\n[admin]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [auth]\nrequired = [\"/v1/*\"]\n\
         [[user]]\nname = \"alice\"\nkey = \"alices\"\n\
         [[user]]\nname = \"bob\"\nkey = \"bobs\"\n{lines}"
    )
}

const USER: &str =
    "[[rule]]\nname = \"user\"\nlimit = \"5 per hour\"\nkey = \"user\"\nmissing_key = \"skip\"\n";
const BUDGET: &str = "[[rule]]\nname = \"budget\"\nlimit = \"1000 per day\"\nalgorithm = \"fixed-window\"\n\
                      key = \"user\"\ncost = \"llm-tokens\"\nmatch = { authenticated = true, path = \"/v1/*\" }\n";
const CHAT: &str = r#"{"max_tokens":700,"messages":[{"role":"user","content":"Hello"}]}"#;

/// Waits until the gateway has looked at a changed file: so many reloads have been tried.
async fn reloads(gateway: &Gateway, result: &str, count: u32) {
    let wanted = format!("tidegate_config_reloads_total{{result=\"{result}\"}} {count}\n");
    while !gateway.get_metrics("/metrics").await.text().contains(&wanted) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_changed_file_is_taken_over_and_counters_of_unchanged_rules_survive() {
    let gateway = Gateway::configured(&config(&format!("{USER}{BUDGET}")));
    assert_eq!(gateway.send(chat_as("alices", CHAT)).await.status, 200);
    assert_eq!(gateway.send(get_as("alices", "/v1/models")).await.remaining("user"), 3);
    // By itself, as soon as the file has changed.
    let more = "[[user]]\nname = \"carol\"\nkey = \"carols\"\n";
    gateway.rewrite_config(&config(&format!("{more}{BUDGET}{}", USER.replace("5 per", "9 per"))));
    reloads(&gateway, "ok", 1).await;
    let answer = gateway.send(get_as("alices", "/v1/models")).await;
    assert_eq!(answer.remaining("user"), 8, "another limit begins fresh");
    assert_eq!(answer.remaining("budget"), 1000 - 701, "the same one goes on");
    assert_eq!(gateway.send(get_as("carols", "/v1/models")).await.status, 200, "a new user");
    // When told to, also without a change.
    gateway.signal("-HUP");
    reloads(&gateway, "ok", 2).await;
    assert_eq!(gateway.send(get_as("alices", "/v1/models")).await.remaining("user"), 7);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_why() {
    let gateway = Gateway::configured(&config(&format!("{USER}{BUDGET}")));
    assert_eq!(gateway.send(get_as("alices", "/v1/models")).await.remaining("user"), 4);
    gateway.rewrite_config(&config(
        "[[rule]]\nname = \"user\"\nlimit = \"5 an hour\"\nkey = \"usr\"\n",
    ));
    reloads(&gateway, "failed", 1).await;
    assert_eq!(gateway.send(get_as("alices", "/v1/models")).await.remaining("user"), 3);
    let overview = gateway.ask_admin("/api/v1/overview", None).await.json();
    let error = overview["config"]["failed"]["error"].as_str().unwrap();
    assert!(error.contains("limit: `5 an hour` is not a rate"), "{error}");
    assert!(error.contains("key: `usr` is not a key"), "{error}");
    let asked = gateway.ask_admin("/api/v1/reload", Some(json!({}))).await;
    assert_eq!(asked.status, 422);
    assert!(asked.json()["error"].as_str().unwrap().contains("is not a rate"));
    gateway.rewrite_config(&config(&format!("{USER}{BUDGET}")));
    reloads(&gateway, "ok", 1).await;
    let overview = gateway.ask_admin("/api/v1/overview", None).await.json();
    assert!(overview["config"]["failed"].is_null());
    assert_eq!(gateway.send(get_as("alices", "/v1/models")).await.remaining("user"), 2);
}

/// A token that has leaked is of no use once it is no longer configured.
#[tokio::test]
async fn another_token_for_operators_is_taken_over() {
    let hash_of = |token: &str| {
        let hash = Sha256::digest(token.as_bytes());
        hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let with_token = |token: &str| {
        let lines = format!("[admin]\ntoken_sha256 = \"{}\"\n", hash_of(token));
        config(USER).replace("[admin]\n", &lines)
    };
    let gateway = Gateway::configured(&with_token(ADMIN_TOKEN));
    assert_eq!(gateway.ask_admin("/api/v1/overview", None).await.status, 200);
    gateway.rewrite_config(&with_token("another-token-for-operators"));
    reloads(&gateway, "ok", 1).await;
    assert_eq!(gateway.ask_admin("/api/v1/overview", None).await.status, 401);
    gateway.rewrite_config(&with_token(ADMIN_TOKEN));
    reloads(&gateway, "ok", 2).await;
    assert_eq!(gateway.ask_admin("/api/v1/overview", None).await.status, 200);
}

#[tokio::test]
async fn a_reload_of_the_demo_forgets_nothing() {
    let gateway = Gateway::demo(&["--no-state", "--metrics", "127.0.0.1:0"]);
    assert_eq!(gateway.send(get_as("demo-alice", "/v1/models")).await.remaining("user"), 19);
    gateway.signal("-HUP");
    reloads(&gateway, "ok", 1).await;
    assert_eq!(gateway.send(get_as("demo-alice", "/v1/models")).await.remaining("user"), 18);
}

#[tokio::test]
async fn a_key_that_is_added_works_at_once_and_one_that_is_removed_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let keys = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let output = command.arg("keys").args(args).arg("--file").arg(&file).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let first = keys(&["add", "carol"]);
    let with_keys = config(USER).replace("[auth]\n", &format!("[auth]\nkeys_file = {file:?}\n"));
    let gateway = Gateway::configured(&with_keys);
    assert_eq!(gateway.send(get_as(&first, "/v1/models")).await.status, 200);
    let second = keys(&["add", "dave"]);
    reloads(&gateway, "ok", 1).await;
    assert_eq!(gateway.send(get_as(&second, "/v1/models")).await.status, 200);
    keys(&["remove", "carol"]);
    reloads(&gateway, "ok", 2).await;
    assert_eq!(gateway.send(get_as(&first, "/v1/models")).await.status, 401);
}

#[tokio::test]
async fn metrics_count_by_rule_and_never_by_key() {
    let dry = "[[rule]]\nname = \"trial\"\nlimit = \"1 per hour\"\nkey = \"user\"\nmissing_key = \"skip\"\ndry_run = true\n";
    let gateway = Gateway::configured(&config(&format!("{USER}{BUDGET}{dry}")));
    for _ in 0..8 {
        gateway.send(get_as("alices", "/v1/models")).await;
    }
    gateway.send(get("/v1/models")).await;
    let metrics = gateway.get_metrics("/metrics").await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    let text = metrics.text();
    for line in [
        "tidegate_calls_total{outcome=\"passed\"} 5",
        "tidegate_calls_total{outcome=\"denied\"} 3",
        "tidegate_calls_total{outcome=\"unauthorized\"} 1",
        "tidegate_denials_total{rule=\"user\"} 3",
        "tidegate_dry_run_denials_total{rule=\"trial\"} 4",
        "tidegate_table_keys{rule=\"user\"} 1",
        "tidegate_added_seconds_count 9",
        "tidegate_added_seconds_bucket{le=\"+Inf\"} 9",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("alice"), "no label by key");
    // The same on the operators' listener, with their token only.
    assert_eq!(gateway.ask_admin("/metrics", None).await.status, 200);
    let request = http::Request::get(format!("http://{}/metrics", gateway.admin()));
    let client = crate::process::client();
    let answer = client.request(request.body(Default::default()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn a_spent_user_is_topped_up_and_the_call_passes() {
    let gateway = Gateway::configured(&config(&format!("{USER}{BUDGET}")));
    assert_eq!(gateway.send(chat_as("alices", CHAT)).await.status, 200);
    assert_eq!(gateway.send(chat_as("alices", CHAT)).await.status, 429, "299 are left");
    let overview = gateway.ask_admin("/api/v1/overview", None).await.json();
    let budget = overview["rules"].as_array().unwrap().iter().find(|rule| rule["name"] == "budget");
    let top = &budget.unwrap()["top"][0];
    assert_eq!((top["name"].as_str(), top["used"].as_u64()), (Some("alice"), Some(701)));
    let by_id = json!({"rule": "budget", "units": 500, "of": {"id": top["id"]}});
    let answer = gateway.ask_admin("/api/v1/top-up", Some(by_id)).await;
    assert_eq!(answer.json(), json!({"rule": "budget", "left_before": 299, "left": 799}));
    assert_eq!(gateway.send(chat_as("alices", CHAT)).await.status, 200);
    let by_name = json!({"rule": "budget", "of": {"user": "alice"}});
    let answer = gateway.ask_admin("/api/v1/reset", Some(by_name)).await;
    assert_eq!(answer.json()["reset"][0]["left"], 1000);
    let usage = gateway.ask_admin("/api/v1/usage?user=alice", None).await.json();
    let used: Vec<_> = usage["usage"].as_array().unwrap().iter().map(|one| &one["used"]).collect();
    assert_eq!(used, [2, 0], "two calls, and no tokens any more");
}

#[tokio::test]
async fn what_operators_get_wrong_is_told_with_the_remedy() {
    let gateway = Gateway::configured(&config(USER));
    for (path, body, expected) in [
        ("/api/v1/top-up", json!({"rule": "user"}), "missing field `units`"),
        (
            "/api/v1/top-up",
            json!({"rule": "usr", "units": 1, "of": {}}),
            "no rule `usr`; the rules are `user`",
        ),
        (
            "/api/v1/top-up",
            json!({"rule": "user", "units": 1, "of": {}}),
            "tells callers apart by `user`; say which",
        ),
        (
            "/api/v1/top-up",
            json!({"rule": "user", "units": 0, "of": {"user": "a"}}),
            "`units` must be 1 or more",
        ),
        (
            "/api/v1/top-up",
            json!({"rule": "user", "units": 1, "of": {"usr": "a"}}),
            "unknown field `usr`",
        ),
        ("/api/v1/block", json!({"usr": "alice"}), "send {\"user\": \"alice\""),
        ("/api/v1/block", json!({"ip": "everybody"}), "is not a network"),
        ("/api/v1/unblock", json!({"user": "alice"}), "user alice is not blocked"),
        ("/api/v1/nothing", json!({}), "there is nothing here"),
    ] {
        let answer = gateway.ask_admin(path, Some(body.clone())).await;
        assert!((400..500).contains(&answer.status), "{path} {body}");
        let json = answer.json();
        let error = json["error"].as_str().unwrap();
        assert!(error.contains(expected), "{path} {body}: {error}");
    }
}

#[tokio::test]
async fn who_is_blocked_is_kept_out_until_unblocked() {
    let gateway = Gateway::configured(&config(USER));
    let block = json!({"user": "alice", "reason": "key leaked"});
    assert_eq!(gateway.ask_admin("/api/v1/block", Some(block)).await.status, 200);
    let answer = gateway.send(get_as("alices", "/v1/models")).await;
    assert_eq!((answer.status, answer.header("x-should-retry")), (403, "false"));
    assert!(!answer.text().contains("leaked"), "the reason is for operators");
    assert_eq!(gateway.send(get_as("bobs", "/v1/models")).await.status, 200);
    let blocks = gateway.ask_admin("/api/v1/blocks", None).await.json();
    assert_eq!(blocks["blocks"][0]["user"], "alice");
    assert_eq!(blocks["blocks"][0]["reason"], "key leaked");
    gateway.ask_admin("/api/v1/unblock", Some(json!({"user": "alice"}))).await;
    let answer = gateway.send(get_as("alices", "/v1/models")).await;
    assert_eq!((answer.status, answer.remaining("user")), (200, 4), "nothing was charged");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_stops_it_says_that_it_is_not_ready() {
    let (arrived, has_arrived) = std::sync::mpsc::channel();
    let (finish, may_finish) = std::sync::mpsc::channel::<()>();
    let channels = std::sync::Mutex::new((arrived, may_finish));
    // It blocks its thread, so it has threads of its own, for as long as the tests run.
    let start = move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let upstream = runtime.block_on(Upstream::start(move |_, _| {
            let (arrived, may_finish) = &*channels.lock().unwrap();
            arrived.send(()).unwrap();
            may_finish.recv().unwrap();
            axum::response::Response::new(axum::body::Body::from("done"))
        }));
        std::mem::forget(runtime);
        upstream
    };
    let upstream = std::thread::spawn(start).join().unwrap();
    let lines = format!("[upstream]\nurl = \"http://{}\"\n{USER}", upstream.address);
    let gateway = std::sync::Arc::new(Gateway::configured(&config(&lines)));
    assert_eq!(gateway.get_metrics("/ready").await.status, 200);
    assert_eq!(gateway.get_metrics("/live").await.status, 200);
    let calling = gateway.clone();
    let call = tokio::spawn(async move { calling.send(get("/")).await });
    tokio::task::spawn_blocking(move || has_arrived.recv().unwrap()).await.unwrap();
    gateway.signal("-TERM");
    while gateway.get_metrics("/ready").await.status == 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(gateway.get_metrics("/ready").await.status, 503);
    assert_eq!(gateway.get_metrics("/live").await.status, 200);
    finish.send(()).unwrap();
    assert_eq!(call.await.unwrap().text(), "done");
}

/// Else the test does not end.
#[tokio::test]
async fn a_reload_takes_over_how_long_a_stop_waits() {
    let upstream = Upstream::start(|_, _| {
        let chunk = stream::iter([Ok::<_, Infallible>("data: {}\n\n")]).chain(stream::pending());
        let answer = Response::builder().header("content-type", "text/event-stream");
        answer.body(Body::from_stream(chunk)).unwrap()
    });
    let upstream = upstream.await;
    let waiting = |seconds: u32| {
        let config =
            config(&format!("{USER}\n[upstream]\nurl = \"http://{}\"\n", upstream.address));
        config.replace("drain_timeout_s = 5", &format!("drain_timeout_s = {seconds}"))
    };
    let mut gateway = Gateway::configured(&waiting(100_000));
    gateway.rewrite_config(&waiting(0));
    reloads(&gateway, "ok", 1).await;
    let request = gateway.absolute(get_as("alices", "/v1/files"));
    let mut answer = client().request(request).await.unwrap();
    assert!(answer.body_mut().frame().await.is_some_and(|frame| frame.is_ok()));
    gateway.signal("-TERM");
    assert_eq!(gateway.wait(), Some(0));
    drop(answer);
}
