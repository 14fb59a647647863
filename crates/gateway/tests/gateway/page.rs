//! The page for operators, in a real browser.

use std::process::{Command, Stdio};

use crate::browser::{Page, QUIET, browser};
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

/// The document, once its scripts have run for a while.
fn document(url: &str) -> Option<String> {
    let browser = browser()?;
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(QUIET)
        .args(["--virtual-time-budget=9000", "--dump-dom"])
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

const CHAT: &str = r#"{"max_tokens":500,"messages":[{"role":"user","content":"Hello"}]}"#;

/// The button of the open dialog with this text.
fn button(text: &str) -> String {
    format!(
        "[...document.querySelectorAll('#dialog button')].find(one => one.textContent === '{text}')"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_tops_up_resets_and_blocks_with_the_mouse() {
    let gateway = Gateway::configured(CONFIG);
    let large = CHAT.replace("500", "900");
    assert_eq!(gateway.send(chat_as("alices", &large)).await.status, 200);
    assert_eq!(gateway.send(chat_as("alices", CHAT)).await.status, 429, "99 are left");
    let url = format!("http://{}/#token={ADMIN_TOKEN}", gateway.admin());
    let Some(mut page) = Page::open(&url) else { return };
    let row = "document.querySelector('[data-row^=\"budget/\"]')";

    page.click(row);
    page.until("document.querySelector('#dialog h2').textContent === 'alice'");
    assert!(page.value("location.href").as_str().is_some_and(|url| !url.contains(ADMIN_TOKEN)));
    page.fill("document.querySelector('#dialog input')", "600");
    page.click(&button("Top up"));
    page.until("document.querySelector('#dialog').innerText.includes('Given back: 699 left now.')");
    page.until("document.querySelector('#dialog').innerText.includes('301 of 1,000 used')");
    assert_eq!(gateway.send(chat_as("alices", CHAT)).await.status, 200);

    page.click(&button("Reset to full"));
    page.until("document.querySelector('#dialog').innerText.includes('Reset: 1,000 left now.')");

    page.click(&button("Block this user"));
    page.until(
        "document.querySelector('#dialog').innerText.includes('Calls get 403 from now on.')",
    );
    assert_eq!(gateway.send(chat_as("alices", CHAT)).await.status, 403);
    page.click(&button("Close"));
    page.value("window.confirm = question => { window.asked = question; return true; }");
    page.click("document.querySelector('#blocked button')");
    page.until("document.querySelector('#blocked-count').textContent === 'nobody'");
    assert_eq!(page.value("window.asked"), "Let alice in again?");
    let answer = gateway.send(chat_as("alices", CHAT)).await;
    assert_eq!(answer.status, 200);
    // Of a full budget, with the ceiling and the bound of the input reserved.
    assert!((400..500).contains(&answer.remaining("budget")), "{}", answer.remaining("budget"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_told_in_the_dialog() {
    let gateway = Gateway::configured(CONFIG);
    gateway.send(chat_as("alices", CHAT)).await;
    let url = format!("http://{}/#token={ADMIN_TOKEN}", gateway.admin());
    let Some(mut page) = Page::open(&url) else { return };
    // By name, which a user who never called has too.
    page.fill("document.querySelector('#find input')", "alice");
    page.click("document.querySelector('#find button')");
    page.until("document.querySelector('#dialog').innerText.includes('499 of 1,000 left')");
    page.click("[...document.querySelectorAll('#dialog tr')].find(one => one.innerText.includes('budget')).querySelector('button')");
    page.fill("document.querySelector('#dialog input')", "0.4");
    page.value("document.querySelector('#dialog form').noValidate = true");
    page.click(&button("Top up"));
    page.until("document.querySelector('#dialog').innerText.includes('`units` must be 1 or more')");
}

/// Everything that can be clicked or filled in has a name, all text is readable, and nothing is wider than
/// the screen.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_can_be_read_by_everybody_in_light_and_dark_and_on_a_phone() {
    let gateway = Gateway::configured(CONFIG);
    gateway.send(chat_as("alices", CHAT)).await;
    let url = format!("http://{}/#token={ADMIN_TOKEN}", gateway.admin());
    let Some(mut page) = Page::open(&url) else { return };
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)] {
        page.show(scheme, width);
        page.click("document.querySelector('[data-row^=\"budget/\"]')");
        let found = page.value(READABLE);
        assert_eq!(found, serde_json::json!([]), "{scheme}, {width} px");
        page.click(&button("Close"));
    }
}

/// What is wrong, as a list of sentences. Contrast is that of WCAG 2, of at least 4.5.
const READABLE: &str = r"(() => {
    const wrong = [];
    const rgba = text => text.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const part = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    };
    const ground = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = rgba(getComputedStyle(at).backgroundColor);
            if (colour.length < 4 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    for (const element of document.querySelectorAll('body *')) {
        if (!element.checkVisibility() || ['SCRIPT', 'STYLE'].includes(element.tagName)) continue;
        const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        if (!own) continue;
        const [one, other] = [light(rgba(getComputedStyle(element).color)), light(ground(element))];
        const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (contrast < 4.5) wrong.push(`${element.textContent}: contrast ${contrast.toFixed(2)}`);
    }
    const name = element => element.getAttribute('aria-label') || element.textContent.trim()
        || document.getElementById(element.getAttribute('aria-labelledby'))?.textContent;
    for (const element of document.querySelectorAll('button, input, dialog, th, svg')) {
        if (!name(element)) wrong.push(`no name: ${element.outerHTML}`);
    }
    if (document.documentElement.scrollWidth > innerWidth) {
        wrong.push(`wider than the screen: ${document.documentElement.scrollWidth} of ${innerWidth}`);
    }
    return wrong;
})()";

/// Nothing comes from elsewhere, so it works without a network.
#[test]
fn the_page_asks_nobody_else() {
    let page = include_str!("../../src/admin/page.html");
    for elsewhere in ["src=\"http", "href=\"http", "url(http", "//cdn", "import(", "@import"] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    assert!(!page.contains("innerHTML"), "names are text");
}
