//! Clients that take their time: to send, and to take.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::{Setup, statuses};
use crate::llm::{Kind, Setup as LlmSetup};

/// A second for all that clients take their time for.
const SHORT: &str =
    "client.head_timeout_s = 1\nclient.body_timeout_s = 1\nclient.take_timeout_s = 1";

async fn setup() -> Setup {
    Setup::new(SHORT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_come_closes_the_connection() {
    let setup = setup().await;
    for bytes in [
        "",
        "G",
        "GET / HTTP/1.1\r\nhost: x\r\n",
        // Nor does one that could be HTTP/2.
        "P",
        "PRI * HTTP/2.0\r\n\r\nSM",
        // Nor a second one.
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let answer = tokio::task::block_in_place(|| {
            let mut raw = setup.connect();
            raw.send(bytes.as_bytes());
            raw.closed()
        });
        let passed = usize::from(bytes.ends_with("\r\n\r\n") && bytes.starts_with("GET"));
        assert_eq!(statuses(&answer), vec![200; passed], "{bytes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_told_and_reaches_nobody() {
    let setup = setup().await;
    for (index, path) in ["/upload", "/v1/chat/completions"].into_iter().enumerate() {
        for framing in
            ["content-length: 100\r\n\r\n{\"mess", "transfer-encoding: chunked\r\n\r\n6\r\n{\"mess"]
        {
            let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{framing}");
            let answer = tokio::task::block_in_place(|| {
                let mut raw = setup.connect();
                raw.send(request.as_bytes());
                raw.closed()
            });
            assert_eq!(statuses(&answer), [408], "{path}: {answer}");
            assert!(answer.contains("The body took too long to arrive."), "{answer}");
        }
        let (reached, counted, charged) = setup.account(index as u64).await;
        assert_eq!((reached, charged), (0, 0), "{path}");
        assert_eq!(counted, 2 * (index as u64 + 1), "they were requests all the same");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_is_no_better() {
    let setup = setup().await;
    for path in ["/upload", "/v1/chat/completions"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n");
        let answer = tokio::task::block_in_place(|| {
            let mut raw = setup.connect();
            raw.send(head.as_bytes());
            // Until the answer is there: it is the gateway's to say when.
            raw.stream.set_nonblocking(true).unwrap();
            let mut byte = [0];
            while raw.stream.peek(&mut byte).is_err() {
                raw.send(b"x");
                std::thread::sleep(Duration::from_millis(20));
            }
            raw.stream.set_nonblocking(false).unwrap();
            raw.answer()
        });
        assert_eq!(statuses(&answer), [408], "{path}: {answer}");
    }
    assert_eq!(setup.account(0).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_over_http_2_is_told_too() {
    let setup = setup().await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for path in ["/upload", "/v1/chat/completions"] {
        let first = stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from("{\"mess")))]);
        let body =
            StreamBody::new(Box::pin(futures_util::StreamExt::chain(first, stream::pending())));
        let url = format!("http://{}{path}", setup.gateway.address());
        let answer = client.request(Request::post(url).body(body).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 408, "{path}");
    }
    assert_eq!(setup.account(0).await.0, 0);
}

/// It would hold its budget, and the provider's connection, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_more_is_given_up_and_pays_what_was_said() {
    let lines = format!("{SHORT}\nllm.drain_s = 0");
    let setup = LlmSetup::with_rules(&lines, &crate::llm::budget_rule(1_000_000, "")).await;
    let mut body = Kind::Chat.body(400_000, true);
    // One that says all that it produces.
    body["model"] = "gpt-4.1-mini".into();
    let held = body.to_string().len() as u64 + 400_000;
    let request = setup.gateway.absolute(Kind::Chat.call(&body, true, "output=150000"));
    let answer = crate::process::client().request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    // Nobody reads it; more of it is there than any buffer holds.
    let left = setup.left_after(1_000_000 - held).await;
    drop(answer);
    let billed = setup.billed();
    assert!(!billed.is_over, "{} tokens went into buffers", billed.output);
    assert!(1_000_000 - left < held);
    assert!(1_000_000 - left >= billed.input + 1_000);
}
