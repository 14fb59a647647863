//! Calls that the provider gives no answer to: what was reserved for them stays, unless it is plain that nothing was
//! done.

use serde_json::json;

use super::ends::{CEILING, read};
use super::{ALL, BUDGET, Kind, Setup, budget_rule, config};
use crate::process::Gateway;
use crate::provider::Provider;

/// Answers nothing, and hangs up once a request is there as a whole.
async fn hangs_up_on_all() -> std::net::SocketAddr {
    use tokio::io::AsyncReadExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            // All that is sent here is JSON, and ends with its brace.
            while !request.ends_with(b"}") {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0);
            }
        }
    });
    address
}

/// The gateway, with its provider at another address.
fn behind(address: std::net::SocketAddr, provider: Provider) -> Setup {
    let config = config(&provider, "", &budget_rule(BUDGET, ""));
    let config = config.replace(&provider.address.to_string(), &address.to_string());
    Setup { gateway: Gateway::configured(&config), provider }
}

/// What is left, as a call tells that is answered here: one of a body that is none.
async fn left_by_a_refusal(setup: &Setup) -> u64 {
    let answer = setup.gateway.send(Kind::Chat.call(&json!({}), false, "")).await;
    assert_eq!(answer.status, 400);
    answer.remaining("budget")
}

#[tokio::test]
async fn a_provider_that_breaks_off_before_its_answer_is_paid_as_reserved_and_not_asked_again() {
    let setup = behind(hangs_up_on_all().await, Provider::start().await);
    let mut before = BUDGET;
    for kind in ALL {
        for is_stream in [false, true] {
            let body = kind.body(CEILING, is_stream);
            let answer = setup.gateway.send(kind.call(&body, is_stream, "")).await;
            assert_eq!(
                (answer.status, answer.header("x-should-retry")),
                (502, "false"),
                "{kind:?}"
            );
            let left = left_by_a_refusal(&setup).await;
            assert_eq!(before - left, body.to_string().len() as u64 + CEILING, "{kind:?}");
            before = left;
        }
    }
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_costs_nothing_and_may_be_asked_again() {
    // Held, so that nobody else gets it, and nobody listens.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = closed.local_addr().unwrap();
    let setup = behind(address, Provider::start().await);
    for kind in ALL {
        let answer = setup.gateway.send(kind.call(&kind.body(CEILING, true), true, "")).await;
        assert_eq!((answer.status, answer.header("x-should-retry")), (502, ""), "{kind:?}");
        assert_eq!(left_by_a_refusal(&setup).await, BUDGET, "{kind:?}");
    }
}

/// As their own servers say it, and Cloudflare's, which is in front of most.
#[tokio::test]
async fn a_server_between_that_waited_in_vain_says_nothing_of_what_was_done() {
    let setup = Setup::new("").await;
    let mut before = BUDGET;
    for kind in ALL {
        for status in [502, 504, 520, 524] {
            let (found, ..) = read(&setup, kind, false, &format!("status={status}")).await;
            assert_eq!(found, status, "{kind:?}");
            let left = setup.left("budget").await;
            let reserved = kind.body(CEILING, false).to_string().len() as u64 + CEILING;
            assert_eq!(before - left, reserved, "{kind:?}, {status}");
            before = left;
        }
    }
}
