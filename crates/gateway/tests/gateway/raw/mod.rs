//! What clients send that is no request, or is one only to some: byte by byte, over sockets.

mod bodies;
mod framing;
mod http2;
mod slow;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;

use crate::process::{Gateway, Upstream, get};

/// The calls that an address has in these tests.
const CALLS: u64 = 10_000;

/// The LLM tokens that it has.
const TOKENS: u64 = 100_000_000;

/// What every LLM call uses.
const USED: u64 = 77;

/// A gateway that counts each call of an address, and its LLM tokens, in front of an upstream that remembers.
struct Setup {
    gateway: Gateway,
    upstream: Upstream,
}

impl Setup {
    async fn new(lines: &str) -> Self {
        let upstream = Upstream::start(|_, _| {
            let usage = format!("{{\"usage\":{{\"total_tokens\":{USED}}}}}");
            let response = Response::builder().header("content-type", "application/json");
            response.body(Body::from(usage)).unwrap()
        })
        .await;
        let config = format!(
            "{lines}\nupstream.url = \"http://{}\"\n\
             [[rule]]\nname = \"ip\"\nlimit = \"{CALLS} per hour\"\nkey = \"ip\"\n\
             [[rule]]\nname = \"budget\"\nlimit = \"{TOKENS} per hour\"\nkey = \"ip\"\n\
             cost = \"llm-tokens\"\nmatch = {{ path = \"/v1/*\" }}\n",
            upstream.address
        );
        Self { gateway: Gateway::configured(&config), upstream }
    }

    fn connect(&self) -> Raw {
        let stream = TcpStream::connect(self.gateway.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        Raw { stream }
    }

    /// Sends bytes, and gives all that comes back.
    fn exchange(&self, bytes: &[u8]) -> String {
        let mut raw = self.connect();
        raw.send(bytes);
        // The other side closes it then by itself.
        let is_last = bytes.windows(17).any(|window| window == b"connection: close");
        if is_last { raw.closed() } else { raw.answer() }
    }

    /// The calls that reached the upstream, the ones that were counted, and the LLM tokens that are charged. The
    /// call that asks is none of them.
    async fn account(&self, asked_before: u64) -> (u64, u64, u64) {
        let seen = self.upstream.seen();
        let asking = |parts: &http::request::Parts| parts.uri.path() == "/v1/models";
        let reached = seen.iter().filter(|(parts, _)| !asking(parts)).count() as u64;
        let answer = self.gateway.send(get("/v1/models")).await;
        let counted = CALLS - answer.remaining("ip") - asked_before - 1;
        (reached, counted, TOKENS - answer.remaining("budget"))
    }
}

struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// Sends bytes; that the other side has had enough of them is no failure.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// What comes back until the connection is closed. It says that nothing more will come only once an answer
    /// is there: a client that says so before is one that has hung up.
    fn answer(mut self) -> String {
        let mut answer = vec![0; 1 << 16];
        let first = self.stream.read(&mut answer).unwrap_or(0);
        answer.truncate(first);
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        self.rest(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What comes until the other side closes the connection by itself.
    fn closed(mut self) -> String {
        let mut answer = Vec::new();
        self.rest(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn rest(&mut self, answer: &mut Vec<u8>) {
        match self.stream.read_to_end(answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it stays open"),
        }
    }
}

/// The statuses of the answers in what came back.
fn statuses(answer: &str) -> Vec<u16> {
    let heads =
        answer.match_indices("HTTP/1.").filter(|(at, _)| *at == 0 || !answer[..*at].ends_with('/'));
    heads.filter_map(|(at, _)| answer.get(at + 9..at + 12)?.parse().ok()).collect()
}
