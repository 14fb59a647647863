//! The page for operators, in a real browser. `TIDEGATE_TEST_BROWSER` names one, or is `none`; without it,
//! Chromium is looked for. Where there is none, the tests say so and pass, unless `CI` is set.

use std::process::{Command, Stdio};

use crate::process::{ADMIN_TOKEN, Gateway, chat_as, get_as};

const CONFIG: &str = r#"
[admin]
listen = "127.0.0.1:0"
[[user]]
name = "alice"
key = "alices"
[[user]]
name = "<img src=x onerror=alert(1)>"
key = "eves"
[[rule]]
name = "user"
limit = "5 per hour"
key = "user"
missing_key = "skip"
[[rule]]
name = "budget"
limit = "1000 per day"
algorithm = "fixed-window"
key = "user"
cost = "llm-tokens"
match = { authenticated = true, path = "/v1/*" }
"#;

fn browser() -> Option<String> {
    if let Ok(named) = std::env::var("TIDEGATE_TEST_BROWSER") {
        return Some(named).filter(|named| named != "none");
    }
    let candidates = ["chromium", "chromium-browser", "google-chrome"];
    let runs = |name: &&str| {
        let mut command = Command::new(name);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let found = candidates.iter().find(|name| runs(name)).map(|name| (*name).to_owned());
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "the page is tested in Chromium; install it, such as with `apt-get install chromium`"
        );
        eprintln!("skipped: the page is tested in Chromium, which is not here");
    }
    found
}

/// The document, once its scripts have run for a while.
fn document(url: &str) -> Option<String> {
    let browser = browser()?;
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--virtual-time-budget=9000",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(url)
        .stderr(Stdio::null())
        .output()
        .unwrap();
    Some(String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_who_has_spent_what() {
    let gateway = Gateway::configured(CONFIG);
    let body = r#"{"max_tokens":900,"messages":[{"role":"user","content":"Hello"}]}"#;
    assert_eq!(gateway.send(chat_as("alices", body)).await.status, 200);
    for _ in 0..6 {
        gateway.send(get_as("eves", "/v1/models")).await;
    }
    let url = format!("http://{}/#token={ADMIN_TOKEN}", gateway.admin());
    let Some(document) = tokio::task::spawn_blocking(move || document(&url)).await.unwrap() else {
        return;
    };
    assert!(document.contains(">running<"), "{document}");
    assert!(document.contains(">alice<") && document.contains(">99 left"), "{document}");
    assert!(document.contains("1,000 LLM tokens per day"), "{document}");
    assert!(document.contains("spent · all back in"), "{document}");
    assert!(document.contains("denied <b>1</b>"), "{document}");
    assert!(document.contains("&lt;img src=x"), "a name is a name: {document}");
    assert!(!document.contains("<img src=x"), "and never markup");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_the_page_shows_nothing_but_where_to_put_it() {
    let gateway = Gateway::configured(CONFIG);
    gateway.send(get_as("alices", "/v1/models")).await;
    let url = format!("http://{}/#token=wrong", gateway.admin());
    let Some(document) = tokio::task::spawn_blocking(move || document(&url)).await.unwrap() else {
        return;
    };
    assert!(document.contains("this needs the token of the operators"), "{document}");
    assert!(!document.contains("alice"), "{document}");
}

/// Nothing comes from elsewhere, so it works without a network.
#[test]
fn the_page_asks_nobody_else() {
    let page = include_str!("../../src/admin/page.html");
    for elsewhere in ["src=\"http", "href=\"http", "url(http", "//cdn", "import(", "@import"] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    assert!(!page.contains("innerHTML"), "names are text");
}
