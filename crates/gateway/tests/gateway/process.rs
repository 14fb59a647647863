//! A gateway process, a client for it, and an upstream to put behind it.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tempfile::{NamedTempFile, TempDir};

/// A running gateway, killed when it is dropped.
pub struct Gateway {
    process: Child,
    address: SocketAddr,
    admin: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    config: Option<NamedTempFile>,
    _state: TempDir,
}

impl Gateway {
    /// The demo.
    pub fn demo(args: &[&str]) -> Self {
        Self::start(args, None)
    }

    /// With this configuration.
    pub fn configured(config: &str) -> Self {
        Self::configured_with(config, &[])
    }

    /// With this configuration, and arguments.
    pub fn configured_with(config: &str, args: &[&str]) -> Self {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(config.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        Self::start(&[&["--config", &path], args].concat(), Some(file))
    }

    fn start(args: &[&str], config: Option<NamedTempFile>) -> Self {
        // Not the user's own, which other gateways on this machine use.
        let state = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(args)
            .args(
                (!args.contains(&"--listen"))
                    .then_some(["--listen", "127.0.0.1:0"])
                    .iter()
                    .flatten(),
            )
            .env("STATE_DIRECTORY", state.path())
            .env("TIDEGATE_TEST_KEY", "upstream-secret")
            .env("TIDEGATE_ADMIN_TOKEN", ADMIN_TOKEN)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut banner = String::new();
        for line in BufReader::new(process.stdout.take().unwrap()).lines() {
            banner = banner + &line.unwrap() + "\n";
            // The last line says how to stop it.
            if banner.contains("Stop it:") {
                break;
            }
        }
        let address = |after: &str| {
            let rest = banner.split_once(after)?.1.strip_prefix("http://")?;
            let end = rest.find([',', '/', ' ', '\n']).unwrap_or(rest.len());
            Some(rest[..end].parse::<SocketAddr>().unwrap())
        };
        Self {
            process,
            address: address("listens on ").unwrap_or_else(|| panic!("no address in {banner:?}")),
            admin: address("Page for operators: "),
            metrics: address("Metrics: "),
            config,
            _state: state,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes another configuration over its own.
    pub fn rewrite_config(&self, config: &str) {
        std::fs::write(self.config.as_ref().unwrap().path(), config).unwrap();
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("a listener for operators")
    }

    /// Sends a request with the operators' token.
    pub async fn ask_admin(&self, path: &str, body: Option<serde_json::Value>) -> Answer {
        let method = if body.is_some() { "POST" } else { "GET" };
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.admin()))
            .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
            .body(Full::from(body));
        answer_of(client().request(request.unwrap()).await.unwrap()).await
    }

    /// Gets something from the listener for metrics.
    pub async fn get_metrics(&self, path: &str) -> Answer {
        let url = format!("http://{}{path}", self.metrics.expect("a listener for metrics"));
        answer_of(client().get(url.parse().unwrap()).await.unwrap()).await
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> Option<i32> {
        self.process.wait().unwrap().code()
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        self.send_by(&client(), request).await
    }

    pub async fn send_by(&self, client: &TestClient, request: Request<Full<Bytes>>) -> Answer {
        answer_of(client.request(self.absolute(request)).await.unwrap()).await
    }

    /// The request, addressed to this gateway.
    pub fn absolute(&self, mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
        let path = request.uri().path_and_query().unwrap().as_str().to_owned();
        *request.uri_mut() = format!("http://{}{path}", self.address).parse().unwrap();
        request
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The token of the operators of every gateway here.
pub const ADMIN_TOKEN: &str = "a-token-of-the-tests";

async fn answer_of(response: http::Response<hyper::body::Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

pub type TestClient = Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>;

pub fn client() -> TestClient {
    Client::builder(TokioExecutor::new()).build_http()
}

/// A client that speaks HTTP/2 only.
pub fn http2_client() -> TestClient {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// What is left of a rule, by the `RateLimit` field.
    pub fn remaining(&self, rule: &str) -> u64 {
        let field = self.header("ratelimit");
        let (_, rest) =
            field.split_once(&format!("\"{rule}\";r=")).unwrap_or_else(|| panic!("{field}"));
        rest.split([';', ',']).next().unwrap().parse().unwrap()
    }
}

pub fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

pub fn get_as(key: &str, path: &str) -> Request<Full<Bytes>> {
    let request = Request::get(path).header("authorization", format!("Bearer {key}"));
    request.body(Full::default()).unwrap()
}

pub fn chat_as(key: &str, body: &str) -> Request<Full<Bytes>> {
    Request::post("/v1/chat/completions")
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(Full::from(body.to_owned()))
        .unwrap()
}

/// An upstream that answers as it is told, and remembers what it was asked.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<(http::request::Parts, Bytes)>>>,
}

type Respond = Arc<dyn Fn(&http::request::Parts, &Bytes) -> Response + Send + Sync>;

impl Upstream {
    pub async fn start(
        respond: impl Fn(&http::request::Parts, &Bytes) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let state: (Respond, _) = (Arc::new(respond), upstream.seen.clone());
        let router = axum::Router::new().fallback(answer).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        upstream
    }

    pub fn seen(&self) -> Vec<(http::request::Parts, Bytes)> {
        self.seen.lock().unwrap().clone()
    }
}

type Seen = Arc<Mutex<Vec<(http::request::Parts, Bytes)>>>;

async fn answer(
    State((respond, seen)): State<(Respond, Seen)>,
    request: Request<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    // A body that has broken off is no request.
    let Ok(body) = body.collect().await else { return Response::default() };
    let body = body.to_bytes();
    let response = respond(&parts, &body);
    seen.lock().unwrap().push((parts, body));
    response
}
