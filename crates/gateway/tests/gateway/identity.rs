//! Who calls: keys from a file, signed tokens, the word of a proxy; and how often one may fail.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::response::Response;
use http::Request;
use http_body_util::Full;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

use crate::process::{Gateway, Upstream, get, get_as};

const RULES: &str = "\
[[rule]]\nname = \"ip\"\nlimit = \"1000 per minute\"\nkey = \"ip\"\n\
[[rule]]\nname = \"user\"\nlimit = \"10 per minute\"\nkey = \"user\"\nmissing_key = \"skip\"\n";

/// `tidegate keys ...` on this file: its standard output.
fn keys(file: &std::path::Path, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.arg("keys").args(args).arg("--file").arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_key_of_the_keys_file_is_known_by_its_secret_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let secret = keys(&file, &["add", "alice", "--team", "ml"]).trim().to_owned();
    keys(&file, &["add", "bob"]);
    let list = keys(&file, &["list"]);
    assert!(list.contains("alice") && list.contains("ml") && list.contains("bob"), "{list}");
    assert!(!list.contains(&secret[3..]), "the secret is nowhere");
    let config = format!("[auth]\nrequired = [\"/v1/*\"]\nkeys_file = {file:?}\n{RULES}");
    let gateway = Gateway::configured(&config);
    assert_eq!(gateway.send(get_as(&secret, "/v1/models")).await.remaining("user"), 9);
    for header in ["x-api-key", "x-goog-api-key"] {
        let request = Request::get("/v1/models").header(header, &secret);
        let answer = gateway.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.status, 200, "{header}");
    }
    let hash = list.lines().find(|line| line.contains("alice")).unwrap();
    let name = hash.split(' ').next().unwrap();
    assert_eq!(gateway.send(get_as(name, "/v1/models")).await.status, 401);
}

#[tokio::test]
async fn a_signed_token_says_who_calls_and_a_wrong_one_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("issuer.pem");
    std::fs::write(&pem, include_str!("../keys/rsa.pub.pem")).unwrap();
    let config = format!(
        "[auth]\nrequired = [\"/v1/*\"]\n\
         [[auth.jwt]]\nissuer = \"https://id.example\"\naudience = \"tidegate\"\n\
         algorithm = \"RS256\"\nkey_file = {pem:?}\nuser_claim = \"email\"\n{RULES}"
    );
    let gateway = Gateway::configured(&config);
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let key = EncodingKey::from_rsa_pem(include_bytes!("../keys/rsa.pem")).unwrap();
    let token = |audience: &str, ends_s: u64| {
        let claims = json!({
            "iss": "https://id.example", "aud": audience, "email": "a@x.example", "exp": ends_s,
        });
        encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap()
    };
    let good = token("tidegate", now_s + 600);
    assert_eq!(gateway.send(get_as(&good, "/v1/models")).await.remaining("user"), 9);
    assert_eq!(gateway.send(get_as(&good, "/v1/models")).await.remaining("user"), 8);
    let refused = gateway.send(get_as(&token("others", now_s + 600), "/v1/models")).await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["error"]["message"], "The token is for another audience.");
    let expired = gateway.send(get_as(&token("tidegate", now_s - 600), "/v1/models")).await;
    assert_eq!(expired.json()["error"]["message"], "The token has expired.");
}

#[tokio::test]
async fn a_header_is_believed_of_trusted_proxies_only_and_never_passed_on_for_others() {
    let upstream = Upstream::start(|_, _| Response::new(Body::from("ok"))).await;
    let configured = |from: &str| {
        Gateway::configured(&format!(
            "upstream.url = \"http://{}\"\n[auth.header]\nuser = \"x-user\"\nfrom = [\"{from}\"]\n{RULES}",
            upstream.address
        ))
    };
    let request = || Request::get("/").header("x-user", "alice").body(Full::default()).unwrap();
    let trusting = configured("127.0.0.0/8");
    assert_eq!(trusting.send(request()).await.remaining("user"), 9);
    let wary = configured("10.0.0.0/8");
    let answer = wary.send(request()).await;
    assert!(!answer.header("ratelimit").contains("\"user\""), "{}", answer.header("ratelimit"));
    let seen = upstream.seen();
    assert_eq!(seen[0].0.headers["x-user"], "alice");
    assert!(!seen[1].0.headers.contains_key("x-user"));
}

#[tokio::test]
async fn wrong_keys_are_limited_for_each_address_and_right_ones_are_not() {
    let config = format!(
        "[auth]\nrequired = [\"/v1/*\"]\nfailed_logins = \"5 per minute\"\n\
         [[user]]\nname = \"alice\"\nkey = \"alices\"\n{RULES}"
    );
    let gateway = Gateway::configured(&config);
    for index in 0..5 {
        let wrong = format!("guess-{index}");
        assert_eq!(gateway.send(get_as(&wrong, "/v1/models")).await.status, 401);
    }
    let denied = gateway.send(get_as("guess-6", "/v1/models")).await;
    assert_eq!(denied.status, 429);
    assert!(denied.text().contains("failed-logins"), "{}", denied.text());
    assert_eq!(gateway.send(get("/v1/models")).await.status, 401, "who tries no key");
    assert_eq!(gateway.send(get_as("alices", "/v1/models")).await.status, 200, "who has one");
}

/// The API behind looks at passwords; an address that failed there too often is kept away from it.
#[tokio::test]
async fn log_ins_that_fail_at_the_api_behind_are_limited_and_others_are_not() {
    // What OAuth's token endpoint says of a wrong password, and what others say.
    for wrong in [401, 403, 400, 422] {
        limited_at(wrong).await;
    }
}

async fn limited_at(wrong: u16) {
    let upstream = Upstream::start(move |_, body| {
        let status = match &body[..] {
            b"right" => 200,
            b"elsewhere" => 404,
            b"down" => 503,
            _ => wrong,
        };
        Response::builder().status(status).body(Body::empty()).unwrap()
    })
    .await;
    let config = format!(
        "upstream.url = \"http://{}\"\n[auth]\nfailed_logins = \"3 per minute\"\n{RULES}",
        upstream.address
    );
    let gateway = Gateway::configured(&config);
    let login =
        |password: &str| Request::post("/login").body(Full::from(password.to_owned())).unwrap();
    for _ in 0..10 {
        assert_eq!(gateway.send(login("right")).await.status, 200);
    }
    for _ in 0..2 {
        assert_eq!(gateway.send(login("elsewhere")).await.status, 404);
        assert_eq!(gateway.send(login("down")).await.status, 503);
    }
    for _ in 0..3 {
        assert_eq!(gateway.send(login("wrong")).await.status, wrong);
    }
    assert_eq!(gateway.send(login("wrong")).await.status, 429);
    assert_eq!(gateway.send(login("right")).await.status, 429, "or guessing would go on");
    assert_eq!(upstream.seen().len(), 17);
}

/// The path that is looked at here is the one that the API behind sees, or there is none.
#[tokio::test]
async fn a_path_with_dot_segments_goes_around_no_log_in() {
    let upstream = Upstream::start(|_, _| Response::new(Body::from("ok"))).await;
    let gateway = Gateway::configured(&format!(
        "upstream.url = \"http://{}\"\n[auth]\nrequired = [\"/v1/*\"]\n\
         [[user]]\nname = \"alice\"\nkey = \"alices\"\n{RULES}",
        upstream.address
    ));
    for path in ["/v1/a/../../x", "/v1/a/%2e%2e/%2E./x", "/x/../v1/a", "/v1%2f..%2fx", "/v1/..;/x"]
    {
        let nobody = gateway.send(get(path)).await;
        assert!([400, 401].contains(&nobody.status), "{path}: {}", nobody.status);
        let alice = gateway.send(get_as("alices", path)).await;
        assert_eq!(alice.status, 400, "{path}");
        assert!(alice.text().contains(".."), "{}", alice.text());
    }
    assert_eq!(upstream.seen().len(), 0);
    assert_eq!(gateway.send(get_as("alices", "/v1/a..b/.c")).await.status, 200);
}
