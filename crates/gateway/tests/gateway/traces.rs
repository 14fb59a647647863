//! What the gateway tells of calls by OpenTelemetry, to a collector that is here, slow, or gone.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::Response;
use http_body_util::Full;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::process::{Gateway, Upstream, chat_as, get};

/// A collector that takes what it is sent.
async fn collector() -> Upstream {
    Upstream::start(|_, _| Response::new(Body::empty())).await
}

fn config(collector: impl std::fmt::Display, lines: &str) -> String {
    format!(
        "drain_timeout_s = 5\n[tracing]\nendpoint = \"http://{collector}\"\n\
         [auth]\nrequired = [\"/v1/*\"]\n\
         [[user]]\nname = \"alice\"\nkey = \"alices-secret-key\"\n{lines}"
    )
}

const RULES: &str = "[[rule]]\nname = \"user\"\nlimit = \"3 per hour\"\nkey = \"user\"\nmissing_key = \"skip\"\n\
                     [[rule]]\nname = \"budget\"\nlimit = \"5000 per day\"\nalgorithm = \"fixed-window\"\n\
                     key = \"user\"\ncost = \"llm-tokens\"\nmissing_key = \"skip\"\n\
                     [[rule]]\nname = \"money\"\nlimit = \"1 USD per day\"\nalgorithm = \"fixed-window\"\n\
                     key = \"user\"\ncost = \"money\"\nmissing_key = \"skip\"\n\
                     [[price]]\nmodel = \"gpt-5*\"\ninput = 1.25\ncached_input = 0.125\noutput = 10.00\n";

/// The spans that are at the collector once the gateway has stopped.
async fn spans_of(
    mut gateway: Gateway,
    collector: &Upstream,
) -> Vec<(Span, BTreeMap<String, String>)> {
    gateway.signal("-TERM");
    assert_eq!(tokio::task::spawn_blocking(move || gateway.wait()).await.unwrap(), Some(0));
    let mut spans = Vec::new();
    for (head, body) in collector.seen() {
        assert_eq!(head.uri.path(), "/v1/traces");
        assert_eq!(head.headers["content-type"], "application/x-protobuf");
        let sent = ExportTraceServiceRequest::decode(body).unwrap();
        for resource in sent.resource_spans {
            let about = attributes(&resource.resource.unwrap().attributes);
            assert_eq!(about["service.name"], "tidegate");
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    let told = |span: Span| (span.clone(), attributes(&span.attributes));
    spans.into_iter().map(told).collect()
}

fn attributes(
    pairs: &[opentelemetry_proto::tonic::common::v1::KeyValue],
) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |pair: &opentelemetry_proto::tonic::common::v1::KeyValue| {
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
        (pair.key.clone(), value.map(text).unwrap_or_default())
    };
    pairs.iter().map(pair).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const CHAT: &str = r#"{"model":"gpt-5-mini","max_tokens":700,"messages":[{"role":"user","content":"My secret plan"}]}"#;

const ANSWER: &str = r#"{"choices":[{"message":{"content":"What a plan"}}],"usage":{"prompt_tokens":12,"completion_tokens":30,"prompt_tokens_details":{"cached_tokens":4}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_one_span_that_tells_what_it_held_and_what_it_used() {
    let collector = collector().await;
    let api = Upstream::start(|_, _| {
        let answer = Response::builder().header("content-type", "application/json");
        answer.body(Body::from(ANSWER)).unwrap()
    });
    let api = api.await;
    let lines = format!("{RULES}[upstream]\nurl = \"http://{}\"\n", api.address);
    let gateway = Gateway::configured(&config(collector.address, &lines));
    let mut request = chat_as("alices-secret-key", CHAT);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request.headers_mut().insert("traceparent", parent.parse().unwrap());
    request.headers_mut().insert("tracestate", "vendor=kept".parse().unwrap());
    assert_eq!(gateway.send(request).await.status, 200);

    let spans = spans_of(gateway, &collector).await;
    let [(span, told)] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(span.name, "chat gpt-5-mini");
    assert_eq!(hex(&span.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex(&span.parent_span_id), "b7ad6b7169203331");
    let (head, _) = &api.seen()[0];
    let passed_on = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", hex(&span.span_id));
    assert_eq!(head.headers["traceparent"], passed_on.as_str());
    assert_eq!(head.headers["tracestate"], "vendor=kept");
    let held: u64 = told["tidegate.held.llm_tokens"].parse().unwrap();
    assert!((700 + 12..=700 + CHAT.len() as u64).contains(&held), "{held}");
    assert!(told["tidegate.held.nanos"].parse::<u64>().unwrap() >= 700 * 10_000);
    for (name, expected) in [
        ("http.request.method", "POST"),
        ("url.path", "/v1/chat/completions"),
        ("http.route", "chat-completions"),
        ("http.response.status_code", "200"),
        ("client.address", "127.0.0.1"),
        ("enduser.id", "alice"),
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt-5-mini"),
        ("gen_ai.request.max_tokens", "700"),
        ("gen_ai.usage.input_tokens", "12"),
        ("gen_ai.usage.output_tokens", "30"),
        ("gen_ai.usage.cache_read.input_tokens", "4"),
        ("tidegate.outcome", "passed"),
        ("tidegate.settled.llm_tokens", "42"),
        // 8 x 1.25 + 4 x 0.125 + 30 x 10, in millionths of a dollar.
        ("tidegate.settled.nanos", "310500"),
        ("tidegate.currency", "USD"),
    ] {
        assert_eq!(told.get(name).map(String::as_str), Some(expected), "{name}: {told:?}");
    }
    let all = format!("{:?}", collector.seen());
    for secret in ["secret plan", "What a plan", "alices-secret-key"] {
        let bytes = format!("{:?}", bytes::Bytes::from(secret));
        assert!(!all.contains(bytes.trim_matches(|c| "b\"".contains(c))), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_call_tells_the_rule_and_an_unknown_caller_nothing_but_its_address() {
    let collector = collector().await;
    let gateway = Gateway::configured(&config(collector.address, RULES));
    let dear = CHAT.replace("700", "6000");
    assert_eq!(gateway.send(chat_as("alices-secret-key", &dear)).await.status, 429);
    assert_eq!(gateway.send(get("/v1/models?key=a-key-in-the-query")).await.status, 401);
    let long = CHAT.replace("gpt-5-mini", &"m".repeat(100_000));
    gateway.send(chat_as("alices-secret-key", &long)).await;

    let spans = spans_of(gateway, &collector).await;
    let of = |outcome: &str, path: &str| {
        let fits = |told: &&BTreeMap<_, _>| {
            told["tidegate.outcome"] == outcome && told["url.path"] == path
        };
        spans.iter().map(|(_, told)| told).find(fits).unwrap()
    };
    let denied = of("denied", "/v1/chat/completions");
    assert_eq!(denied["tidegate.rule"], "budget");
    assert_eq!(denied["http.response.status_code"], "429");
    assert!(denied["tidegate.asked.llm_tokens"].parse::<u64>().unwrap() > 6000);
    assert!(!denied.contains_key("tidegate.held.llm_tokens"), "{denied:?}");
    let unknown = of("unauthorized", "/v1/models");
    assert!(!unknown.contains_key("enduser.id"), "{unknown:?}");
    assert!(!format!("{spans:?}").contains("a-key-in-the-query"));
    let lengths = spans.iter().flat_map(|(_, told)| told.values()).map(String::len);
    assert!(lengths.max().unwrap() <= 256, "a caller's text is cut");
    assert_eq!(spans.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_lasts_until_a_stream_has_ended_and_tells_its_usage() {
    let collector = collector().await;
    let api = Upstream::start(|_, _| {
        let events = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n\
                      data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":7}}\n\n\
                      data: [DONE]\n\n";
        let answer = Response::builder().header("content-type", "text/event-stream");
        answer.body(Body::from(events)).unwrap()
    });
    let lines = format!("{RULES}[upstream]\nurl = \"http://{}\"\n", api.await.address);
    let gateway = Gateway::configured(&config(collector.address, &lines));
    let streaming = CHAT.replace("\"max_tokens\"", "\"stream\":true,\"max_tokens\"");
    assert_eq!(gateway.send(chat_as("alices-secret-key", &streaming)).await.status, 200);
    let spans = spans_of(gateway, &collector).await;
    let [(_, told)] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(told["gen_ai.usage.input_tokens"], "9");
    assert_eq!(told["tidegate.settled.llm_tokens"], "16");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_are_not_sampled_have_no_span_and_pass_that_on() {
    let collector = collector().await;
    let api = Upstream::start(|_, _| Response::new(Body::empty())).await;
    let lines = format!("{RULES}[upstream]\nurl = \"http://{}\"\n", api.address);
    let config =
        config(collector.address, &lines).replace("[tracing]\n", "[tracing]\nsample_ratio = 0.0\n");
    let gateway = Gateway::configured(&config);
    let request = http::Request::get("/hello")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
    gateway.send(request.body(Full::default()).unwrap()).await;
    gateway.send(get("/hello")).await;
    assert_eq!(spans_of(gateway, &collector).await, []);
    for (head, _) in api.seen() {
        let passed_on = head.headers["traceparent"].to_str().unwrap();
        assert!(passed_on.ends_with("-00"), "{passed_on}");
    }
}

const WIDE: &str = "[[rule]]\nname = \"ip\"\nlimit = \"1000000 per minute\"\nkey = \"ip\"\n";

/// Whether the collector refuses connections, or takes them and says nothing, calls go on as if there were
/// none, and the gateway stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_or_silent_fails_no_call() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for collector in [gone, silent.local_addr().unwrap()] {
        let mut gateway = Gateway::configured(&config(collector, WIDE));
        let client = crate::process::client();
        // More than the queue holds.
        for _ in 0..3_000 {
            let answer = gateway.send_by(&client, get("/hello")).await;
            assert_eq!(answer.status, 404, "the demo's own answer");
        }
        gateway.signal("-TERM");
        assert_eq!(tokio::task::spawn_blocking(move || gateway.wait()).await.unwrap(), Some(0));
    }
}
