//! A real browser, told what to do through a pipe (the DevTools protocol).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What Chromium is started with, so that it shows pages and does nothing else.
pub const QUIET: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
];

/// `TIDEGATE_TEST_BROWSER` names one, or is `none`; without it, Chromium is looked for. Where there is none,
/// the tests say so and pass, unless `CI` is set.
pub fn browser() -> Option<String> {
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

/// A page in a browser, which ends with it.
pub struct Page {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    asked: u64,
    _profile: TempDir,
}

impl Page {
    /// Opens a page; `None` where there is no browser.
    pub fn open(url: &str) -> Option<Self> {
        let browser = browser()?;
        let profile = tempfile::tempdir().unwrap();
        // It reads commands from its file 3, and answers in its file 4.
        let mut process = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null"])
            .arg(browser)
            .args(QUIET)
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = process.stdin.take().unwrap();
        let from = BufReader::new(process.stdout.take().unwrap());
        let mut page = Self { process, to, from, session: None, asked: 0, _profile: profile };
        let target = page.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = page.ask("Target.attachToTarget", attach);
        page.session = session["sessionId"].as_str().map(ToOwned::to_owned);
        page.ask("Page.navigate", json!({ "url": url }));
        Some(page)
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut command = json!({ "id": self.asked, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).unwrap();
            assert!(!answer.is_empty(), "the browser has ended");
            let mut answer: Value = serde_json::from_slice(&answer[..answer.len() - 1]).unwrap();
            // The others are about what happens meanwhile.
            if answer["id"] == self.asked {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }

    /// The value of an expression of JavaScript, awaited.
    pub fn value(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.ask("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str) {
        let is_true = self.value(&format!(
            "new Promise(done => {{ const end = Date.now() + 60000; const look = () => {{ \
             let is; try {{ is = {expression}; }} catch {{ is = false; }} \
             if (is || Date.now() > end) done(!!is); else setTimeout(look, 20); }}; look(); }})"
        ));
        if is_true != true {
            panic!("never: {expression}\n{}", self.value("document.body.innerText"));
        }
    }

    /// Shows the page in `light` or `dark`, on a screen that is so wide.
    pub fn show(&mut self, scheme: &str, width: u32) {
        let screen =
            json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", screen);
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.ask("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// Clicks with the mouse in the middle of the element that an expression gives, once it is there. It must
    /// be what lies on top there.
    pub fn click(&mut self, element: &str) {
        self.until(&format!("{element}.checkVisibility()"));
        let place = self.value(&format!(
            "(() => {{ const element = {element}; element.scrollIntoView({{ block: 'center' }}); \
             const box = element.getBoundingClientRect(); \
             const [x, y] = [box.x + box.width / 2, box.y + box.height / 2]; \
             const top = document.elementFromPoint(x, y); \
             return [x, y, element.contains(top)]; }})()"
        ));
        assert_eq!(place[2], true, "{element} is covered");
        for kind in ["mousePressed", "mouseReleased"] {
            let button = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.ask("Input.dispatchMouseEvent", button);
        }
    }

    /// Types over what is in the field that an expression gives.
    pub fn fill(&mut self, field: &str, text: &str) {
        self.until(&format!("{field}.checkVisibility()"));
        self.value(&format!(
            "(() => {{ const field = {field}; field.focus(); field.select(); }})()"
        ));
        self.ask("Input.insertText", json!({ "text": text }));
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
