//! Clients over HTTP/2 that answer pings and take nothing, and such as do neither.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Reason, RecvStream};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::llm::{BUDGET, Kind, Setup};

/// A second for all that clients take their time for, and for what nobody reads.
const SHORT: &str = "client.head_timeout_s = 1\nclient.take_timeout_s = 1\n[llm]\ndrain_s = 1";

const CEILING: u64 = 400;

/// What the wait for something that must come may take.
const LONG: Duration = Duration::from_secs(60);

/// A connection whose client has room for so many bytes of each answer until it makes more.
async fn connect(setup: &Setup, window: u32) -> (SendRequest<Bytes>, Connection<TcpStream, Bytes>) {
    let stream = TcpStream::connect(setup.gateway.address()).await.unwrap();
    h2::client::Builder::new().initial_window_size(window).handshake(stream).await.unwrap()
}

/// A stream of a model that says all that it produces.
fn body() -> Value {
    let mut body = Kind::Chat.body(CEILING, true);
    body["model"] = "gpt-4.1".into();
    body
}

/// Calls, and gives the answer once it has begun.
async fn call(client: &mut SendRequest<Bytes>, setup: &Setup, script: &str) -> RecvStream {
    let request = setup.gateway.absolute(Kind::Chat.call(&body(), true, script));
    let (parts, _) = request.into_parts();
    let request = http::Request::from_parts(parts, ());
    let (response, mut sending) = client.send_request(request, false).unwrap();
    sending.send_data(Bytes::from(body().to_string()), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

/// Takes an answer to its end.
async fn take(mut answer: RecvStream) -> Result<String, h2::Error> {
    let mut text = Vec::new();
    while let Some(part) = answer.data().await {
        let part = part?;
        text.extend_from_slice(&part);
        answer.flow_control().release_capacity(part.len())?;
    }
    Ok(String::from_utf8(text).unwrap())
}

fn held() -> u64 {
    body().to_string().len() as u64 + CEILING
}

/// It is charged as that of a client who has hung up: what has passed, and no more than was reserved.
async fn assert_settled(setup: &Setup, before: u64) -> u64 {
    let left = setup.left_after(before - held()).await;
    assert!(left < before && left > before - held(), "{left} of {before}");
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_given_up_however_well_it_answers_pings() {
    let setup = Setup::new(SHORT).await;
    let (mut client, connection) = connect(&setup, 10).await;
    let closed = tokio::spawn(connection);
    let answer = call(&mut client, &setup, "output=390, pace=1").await;
    assert_settled(&setup, BUDGET).await;
    // It has no other call.
    let _ = tokio::time::timeout(LONG, closed).await.expect("the gateway closes it");
    drop(answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_that_is_not_taken_takes_no_other_with_it() {
    let setup = Setup::new(SHORT).await;
    let (mut client, connection) = connect(&setup, 1_000).await;
    let closed = tokio::spawn(connection);
    let untaken = call(&mut client, &setup, "output=390, pace=1").await;
    let taken = tokio::spawn(take(call(&mut client, &setup, "output=300, pace=10").await));
    let text = taken.await.unwrap().expect("it is whole");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let _ = tokio::time::timeout(LONG, closed).await.expect("the gateway closes it");
    // What was sent before is there, and then it ends as one that was cut off.
    assert!(take(untaken).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_taken_late_is_told_that_it_was_given_up() {
    let setup = Setup::new(SHORT).await;
    let (mut client, connection) = connect(&setup, 1_000).await;
    tokio::spawn(connection);
    let untaken = call(&mut client, &setup, "output=390, pace=1").await;
    // Another keeps the connection open meanwhile.
    let other = call(&mut client, &setup, "output=5, stall=3").await;
    setup.left_after(BUDGET - 2 * held()).await;
    let error = take(untaken).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{error}");
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_a_slow_provider_is_left_in_peace() {
    let setup = Setup::new(SHORT).await;
    let (mut client, connection) = connect(&setup, 1 << 16).await;
    tokio::spawn(connection);
    // Longer than both limits together, from one word to the next.
    let answer = call(&mut client, &setup, "output=2, pace=2500").await;
    let text = take(answer).await.expect("it is whole");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(setup.left("budget").await, BUDGET - setup.billed().total());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_answers_no_pings_is_gone() {
    let setup = Setup::new(SHORT).await;
    let (mut client, mut connection) = connect(&setup, 1 << 16).await;
    let answer = {
        let calling = call(&mut client, &setup, "output=90, stall=6");
        tokio::select! {
            answer = calling => answer,
            ended = &mut connection => panic!("{ended:?}"),
        }
    };
    // From here on nobody reads what comes. The provider says no more, so nothing is left untaken.
    assert_settled(&setup, BUDGET).await;
    drop((answer, connection));
}
