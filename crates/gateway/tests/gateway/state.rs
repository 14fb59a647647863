//! What was spent, kept in a file.

use std::os::unix::fs::PermissionsExt;

use crate::command_line::{run, stderr};
use crate::process::{Gateway, chat_as, client, get, get_as};

const CHAT: &str = r#"{"max_tokens":6000,"messages":[{"role":"user","content":"a b c"}]}"#;

#[tokio::test]
async fn a_budget_is_still_spent_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let args = ["--state", state.to_str().unwrap()];
    let gateway = Gateway::demo(&args);
    let spent = gateway.send(chat_as("demo-alice", CHAT)).await;
    assert_eq!((spent.status, &spent.json()["usage"]["total_tokens"]), (200, &6_003.into()));
    drop(gateway); // by SIGKILL

    let gateway = Gateway::demo(&args);
    let denied = gateway.send(chat_as("demo-alice", CHAT)).await;
    assert_eq!(denied.status, 429);
    assert_eq!(denied.json()["error"]["code"], "insufficient_quota");
    assert_eq!(denied.remaining("budget"), 10_000 - 6_003);
    assert_eq!(gateway.send(chat_as("demo-bob", CHAT)).await.status, 200);
    assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn without_state_a_restart_forgets() {
    let args = ["--no-state"];
    for _ in 0..2 {
        let gateway = Gateway::demo(&args);
        assert_eq!(gateway.send(chat_as("demo-alice", CHAT)).await.status, 200);
    }
}

#[tokio::test]
async fn gateways_on_one_address_share_exact_limits() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let state = state.to_str().unwrap();
    let first = Gateway::demo(&["--state", state, "--reuse-port"]);
    let address = first.address().to_string();
    let _second = Gateway::demo(&["--state", state, "--reuse-port", "--listen", &address]);
    let mut passed = 0;
    for _ in 0..130 {
        // A connection of its own, so that the system picks one of the two for each.
        let answer = first.send_by(&client(), get("/health")).await;
        passed += u32::from(answer.status != 429);
    }
    assert_eq!(passed, 100);
}

#[tokio::test]
async fn inspect_tells_who_has_used_how_much() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let state = state.to_str().unwrap();
    let gateway = Gateway::demo(&["--state", state]);
    for _ in 0..3 {
        assert_eq!(gateway.send(get_as("demo-alice", "/v1/models")).await.status, 200);
    }
    let output = run(&["inspect", "--verify", state]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains(": 4 tables, "), "{text}");
    assert!(text.contains("user: sliding-window-log, 20 per minute\n  1 live key in "), "{text}");
    assert!(text.contains("     3    17  "), "{text}");
    assert!(text.ends_with("slots checked: all sound\n"), "{text}");
}

#[test]
fn a_bad_state_is_one_clear_error_and_exit_code_2() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "not a state").unwrap();
    let path = file.path().to_str().unwrap();
    for args in [&["--state", path][..], &["inspect", path]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("is not a file of Tidegate's tables"), "{args:?}");
    }
    let output = run(&["--state", "/no/such/folder/state"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot create /no/such/folder/state"), "{}", stderr(&output));
    let output = run(&["inspect", "/no/such/file"]);
    assert!(stderr(&output).contains("there is no file /no/such/file"), "{}", stderr(&output));
    let output = run(&["--state", path, "--no-state"]);
    assert_eq!(output.status.code(), Some(2));
}
