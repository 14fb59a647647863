//! Each API, whole and streamed: settled to what the provider bills, and passed through as it is.

use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::{ALL, BUDGET, Kind, Setup, call_to, data_of};
use crate::process::client;

/// What the provider itself answers to a call.
async fn direct(setup: &Setup, kind: Kind, body: &Value, is_stream: bool, script: &str) -> String {
    let mut request = kind.call(body, is_stream, script);
    let url = format!("http://{}{}", setup.provider.address, request.uri());
    *request.uri_mut() = url.parse().unwrap();
    let answer = client().request(request).await.unwrap().into_body().collect().await.unwrap();
    String::from_utf8(answer.to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn every_api_is_settled_to_what_the_provider_bills_and_passes_as_it_is() {
    let setup = Setup::new("").await;
    let mut left = BUDGET;
    for kind in ALL {
        for is_stream in [false, true] {
            let script = match kind {
                Kind::Messages => "output=30, reasoning=9, cached=7, cache-write=5",
                _ => "output=30, reasoning=9, cached=7",
            };
            let body = kind.body(500, is_stream);
            let answer = setup.gateway.send(kind.call(&body, is_stream, script)).await;
            assert_eq!(answer.status, 200, "{kind:?}: {}", answer.text());
            let billed = setup.billed();
            assert!(billed.is_over, "{kind:?}");
            assert_eq!(billed.output, 39, "{kind:?}");
            left -= billed.total();
            assert_eq!(setup.left("budget").await, left, "{kind:?}, stream: {is_stream}");

            let asks_usage = is_stream && billed.json() != body;
            if !asks_usage {
                let direct = direct(&setup, kind, &body, is_stream, script).await;
                assert_eq!(answer.text(), direct, "{kind:?}, byte for byte");
                assert_eq!(billed.body, body.to_string(), "{kind:?}, byte for byte");
            }
            let is_openai_chunks =
                matches!(kind, Kind::Chat | Kind::ChatMaxTokens | Kind::Completions);
            assert_eq!(asks_usage, is_stream && is_openai_chunks, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn the_last_event_is_read_also_without_the_line_that_would_end_it() {
    for lines in ["", "debt = false"] {
        let setup = Setup::with_rules("", &super::budget_rule(BUDGET, lines)).await;
        let mut left = BUDGET;
        for kind in ALL.into_iter().filter(|kind| kind.has_events()) {
            let (body, script) = (kind.body(500, true), "output=30, reasoning=9, unended");
            let answer = setup.gateway.send(kind.call(&body, true, script)).await;
            left -= setup.billed().total();
            assert_eq!(setup.left("budget").await, left, "{kind:?}, {lines}");
            let direct = direct(&setup, kind, &body, true, script).await;
            let (end, whole) = (answer.text().lines().last(), direct.lines().last());
            assert_eq!((end, answer.text().ends_with("\n\n")), (whole, false), "{kind:?}");
        }
    }
}

/// All that the standard allows, and no provider does today.
#[tokio::test]
async fn events_are_read_however_they_are_written() {
    let setup = Setup::new("").await;
    let mut left = BUDGET;
    for script in ["two-lines", "mixed-ends", "two-lines, mixed-ends"] {
        for kind in ALL.into_iter().filter(|kind| kind.has_events()) {
            let (body, script) =
                (kind.body(500, true), format!("output=30, reasoning=9, {script}"));
            let answer = setup.gateway.send(kind.call(&body, true, &script)).await;
            left -= setup.billed().total();
            assert_eq!(setup.left("budget").await, left, "{kind:?}, {script}");
            if setup.billed().json() == body {
                let direct = direct(&setup, kind, &body, true, &script).await;
                assert_eq!(answer.text(), direct, "{kind:?}, byte for byte");
            } else {
                let told = answer.text().matches("completion_tokens").count();
                assert_eq!(told, 0, "{kind:?}, {script}: {}", answer.text());
            }
        }
    }
}

/// It is asked for as it is; what comes compressed all the same is nothing that can be counted.
#[tokio::test]
async fn an_answer_that_is_compressed_stays_charged_as_reserved() {
    let setup = Setup::new("").await;
    let mut left = BUDGET;
    for kind in ALL.into_iter().filter(|kind| kind.has_events()) {
        let body = kind.body(500, true);
        let mut request = kind.call(&body, true, "output=30, compressed");
        request.headers_mut().insert("accept-encoding", "gzip, br".parse().unwrap());
        assert_eq!(setup.gateway.send(request).await.status, 200);
        let accepted = &setup.billed().headers["accept-encoding"];
        assert_eq!(accepted, "identity", "{kind:?}");
        left -= body.to_string().len() as u64 + 500;
        assert_eq!(setup.left("budget").await, left, "{kind:?}");
    }
}

#[tokio::test]
async fn the_chunk_of_usage_is_for_those_only_who_have_asked() {
    let setup = Setup::new("").await;
    let mut left = BUDGET;
    for kind in [Kind::Chat, Kind::Completions] {
        let quiet = kind.body(500, true);
        let mut asking = quiet.clone();
        asking["stream_options"] = json!({ "include_usage": true });
        for (body, is_told) in [(&quiet, false), (&asking, true)] {
            let answer = setup.gateway.send(kind.call(body, true, "output=20")).await;
            let billed = setup.billed();
            assert_eq!(billed.json()["stream_options"]["include_usage"], true);
            left -= billed.total();
            assert_eq!(setup.left("budget").await, left);
            let mut events = data_of(answer.text());
            // Without a usage to tell, the provider says so in every chunk.
            let nothing = |event: &Value| event.get("usage").is_none_or(Value::is_null);
            let told = events.iter().filter(|event| !nothing(event)).count();
            assert_eq!(told, usize::from(is_told), "{}", answer.text());
            events
                .iter_mut()
                .for_each(|event| drop(event.as_object_mut().unwrap().remove("usage")));
            let direct = direct(&setup, kind, body, true, "output=20").await;
            let mut expected = data_of(&direct);
            expected
                .iter_mut()
                .for_each(|event| drop(event.as_object_mut().unwrap().remove("usage")));
            assert_eq!(events, expected);
            assert!(answer.text().ends_with("data: [DONE]\n\n"));
        }
    }
}

#[tokio::test]
async fn several_choices_and_tools_are_settled_as_billed() {
    let setup = Setup::new("").await;
    let mut left = BUDGET;
    let tool = json!([{ "type": "function", "function": { "name": "tide", "parameters": {} } }]);
    for is_stream in [false, true] {
        for (name, value) in [("n", json!(3)), ("tools", tool.clone())] {
            let mut body = Kind::Chat.body(500, is_stream);
            body[name] = value;
            let answer = setup.gateway.send(Kind::Chat.call(&body, is_stream, "output=20")).await;
            assert_eq!(answer.status, 200);
            assert_eq!(setup.billed().output, if name == "n" { 60 } else { 20 });
            left -= setup.billed().total();
            assert_eq!(setup.left("budget").await, left, "{name}, stream: {is_stream}");
        }
    }
    let mut body = Kind::Gemini.body(500, true);
    body["generationConfig"]["candidateCount"] = 2.into();
    setup.gateway.send(Kind::Gemini.call(&body, true, "output=20, reasoning=4")).await;
    assert_eq!(setup.billed().output, 48);
    assert_eq!(setup.left("budget").await, left - setup.billed().total());
}

#[tokio::test]
async fn embeddings_are_settled_and_have_no_ceiling() {
    let setup = Setup::new("").await;
    let body = json!({ "model": "text-embedding-3-small", "input": "The tide." });
    let answer = setup.gateway.send(call_to("/v1/embeddings", &body, "")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(setup.billed().body, body.to_string());
    assert_eq!(setup.left("budget").await, BUDGET - setup.billed().total());
}

/// A call of an endpoint that nobody here can price reaches no provider.
#[tokio::test]
async fn an_endpoint_that_is_not_known_is_denied_by_a_budget() {
    let setup = Setup::new("").await;
    let body = json!({ "model": "gpt-image-1", "prompt": "A tide." });
    let answer = setup.gateway.send(call_to("/v1/images/generations", &body, "")).await;
    assert_eq!((answer.status, answer.header("x-should-retry")), (403, "false"));
    // Nor does a GET that some servers would take for a POST.
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        let mut request = call_to("/v1/chat/completions", &Kind::Chat.body(9, false), "");
        *request.method_mut() = http::Method::GET;
        request.headers_mut().insert(name, "POST".parse().unwrap());
        assert_eq!(setup.gateway.send(request).await.status, 403, "{name}");
    }
    // Nor where a parameter would say so to Google's servers, of which Gemini's paths are in other folders as well.
    for path in ["/v1/models/m:generateContent", "/v1beta/models/m:generateContent"] {
        let path = format!("{path}?%24httpMethod=POST&alt=sse");
        let mut request = call_to(&path, &Kind::Gemini.body(9, false), "");
        *request.method_mut() = http::Method::GET;
        assert_eq!(setup.gateway.send(request).await.status, 403, "{path}");
    }
    let get = http::Request::get("/v1/models").header("authorization", "Bearer alice-key");
    assert_eq!(setup.gateway.send(get.body(Full::default()).unwrap()).await.status, 200);
    assert!(setup.provider.ledger.calls().is_empty());
}

/// Where nobody counts what a call uses, it is none of the gateway's business.
#[tokio::test]
async fn where_no_rule_counts_tokens_all_passes_as_it_is() {
    let requests = "[[rule]]\nname = \"user\"\nlimit = \"900 per hour\"\nkey = \"user\"\n";
    let calls = "[[rule]]\nname = \"calls\"\nlimit = \"5 concurrent\"\nkey = \"user\"\n";
    let bobs = super::budget_rule(900, "").replace("authenticated = true", "user = \"bob\"");
    for rules in [requests, calls, &bobs] {
        let setup = Setup::with_rules("", rules).await;
        for kind in ALL {
            for is_stream in [false, true] {
                let mut body = kind.body(500, is_stream);
                drop(kind.take_ceiling(&mut body));
                let answer = setup.gateway.send(kind.call(&body, is_stream, "output=20")).await;
                assert_eq!(setup.billed().body, body.to_string(), "{kind:?}, byte for byte");
                let direct = direct(&setup, kind, &body, is_stream, "output=20").await;
                assert_eq!(answer.text(), direct, "{kind:?}, byte for byte");
            }
        }
    }
}

/// A trial changes nothing that a client sees: no ceiling is set for it, and no stream cut off.
#[tokio::test]
async fn a_rule_on_trial_sets_no_ceiling_and_still_learns_the_usage() {
    let trial = super::budget_rule(BUDGET, "dry_run = true\ndebt = false");
    let setup = Setup::with_rules("[metrics]\nlisten = \"127.0.0.1:0\"", &trial).await;
    let mut body = Kind::Chat.body(500, true);
    drop(Kind::Chat.take_ceiling(&mut body));
    let answer = setup.gateway.send(Kind::Chat.call(&body, true, "output=9000")).await;
    let billed = setup.billed();
    assert_eq!(billed.output, 9_000);
    assert!(billed.json().get("max_completion_tokens").is_none());
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    let metrics = setup.gateway.get_metrics("/metrics").await;
    let line = "tidegate_llm_tokens_total{kind=\"output\"} 9000\n";
    assert!(metrics.text().contains(line), "{}", metrics.text());
}

/// Nothing is read, parsed and counted for who has nothing left: it would be for nothing, and they pay for none
/// of it.
#[tokio::test]
async fn no_body_is_read_of_who_has_nothing_left() {
    let body = Kind::Chat.body(400, false);
    let reserved = body.to_string().len() as u64 + 400;
    let setup = Setup::with_rules("", &super::budget_rule(reserved, "")).await;
    setup.gateway.send(Kind::Chat.call(&body, false, "no-usage")).await;
    assert_eq!(setup.left("budget").await, 0);
    for kind in ALL {
        let no_request = json!("no request");
        let answer = setup.gateway.send(kind.call(&no_request, false, "")).await;
        assert_eq!(answer.status, 429, "{kind:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn cached_input_is_counted_once_in_metrics() {
    let rules = super::budget_rule(BUDGET, "");
    let setup = Setup::with_rules("[metrics]\nlisten = \"127.0.0.1:0\"", &rules).await;
    let body = Kind::Chat.body(500, false);
    setup.gateway.send(Kind::Chat.call(&body, false, "output=7, cached=4")).await;
    let metrics = setup.gateway.get_metrics("/metrics").await;
    let input = setup.billed().input - 4;
    for (kind, tokens) in [("input", input), ("cached_input", 4), ("output", 7)] {
        let line = format!("tidegate_llm_tokens_total{{kind=\"{kind}\"}} {tokens}\n");
        assert!(metrics.text().contains(&line), "{line}{}", metrics.text());
    }
}
