//! What is paid otherwise than by plain tokens: tiers, other models, tools, long stays in a cache. What of it has
//! no price is denied.

use serde_json::{Value, json};

use super::{Kind, Setup, call_to};
use crate::process::Gateway;
use crate::provider::Provider;

/// All tokens of a kind cost the same, so that factors show.
const PRICES: &str = "\
[[price]]\nmodel = \"gpt-5-mini\"\ninput = 1\noutput = 1\n\
service_tiers = { priority = 2, flex = 0.5 }\ntools = { web_search = 0.01 }\n\
[[price]]\nmodel = \"gpt-5\"\ninput = 5\noutput = 5\n\
[[price]]\nmodel = \"claude-*\"\ninput = 1\ncache_write = 2\ncache_write_1h = 3\noutput = 1\n\
tools = { web_search = 0.01 }\nservice_tiers = { priority = 4, fast = 6 }\n\
[[price]]\nmodel = \"gemini-*\"\ninput = 1\noutput = 1\n\
long_context = { above = 500, input_factor = 3, output_factor = 2 }\n";

const LIMIT: u64 = 1_000_000_000;

fn rules(lines: &str) -> String {
    format!(
        "{PRICES}[[rule]]\nname = \"money\"\nlimit = \"1.00 USD per hour\"\nkey = \"user\"\n\
         cost = \"money\"\nmatch = {{ authenticated = true }}\n{lines}\n"
    )
}

/// What a call has cost, in nano-dollars, and the tokens that were billed for it.
async fn cost(setup: &Setup, kind: Kind, body: &Value, script: &str) -> (u64, u64) {
    let before = setup.left("money").await;
    let is_stream = body["stream"] == true;
    let answer = setup.gateway.send(kind.call(body, is_stream, script)).await;
    assert_eq!(answer.status, 200, "{kind:?}, {body}: {}", answer.text());
    (before - setup.left("money").await, setup.billed().total())
}

/// Why a call is denied. Nothing of it has come to the provider, and nothing is charged.
async fn denial(setup: &Setup, kind: Kind, body: &Value) -> String {
    let (before, calls) = (setup.left("money").await, setup.provider.ledger.calls().len());
    let answer = setup.gateway.send(kind.call(body, false, "")).await;
    assert_eq!((answer.status, answer.header("x-should-retry")), (403, "false"), "{body}");
    assert_eq!(setup.provider.ledger.calls().len(), calls);
    assert_eq!(setup.left("money").await, before);
    answer.json()["error"]["message"].as_str().unwrap().to_owned()
}

fn with(kind: Kind, is_stream: bool, rest: Value) -> Value {
    let mut body = kind.body(200, is_stream);
    for (name, value) in rest.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_tier_that_is_asked_for_is_reserved_and_the_one_that_has_served_is_paid() {
    let setup = Setup::with_rules("", &rules("")).await;
    for kind in [Kind::Chat, Kind::Responses, Kind::Messages] {
        let dear = if kind == Kind::Messages { 4 } else { 2 };
        for is_stream in [false, true] {
            let body = with(kind, is_stream, json!({ "service_tier": "priority" }));
            let (paid, tokens) = cost(&setup, kind, &body, "output=20, tier=priority").await;
            assert_eq!(paid, tokens * 1_000 * dear, "{kind:?}, stream: {is_stream}");
            let (paid, tokens) = cost(&setup, kind, &body, "output=20, tier=default").await;
            assert_eq!(paid, tokens * 1_000, "{kind:?}: there was no room in it");
            // What the operator's account is set to.
            let body = kind.body(200, is_stream);
            let (paid, tokens) = cost(&setup, kind, &body, "output=20, tier=priority").await;
            assert_eq!(paid, tokens * 1_000 * dear, "{kind:?}: nobody asked");
        }
    }
    let body = with(Kind::Chat, true, json!({ "service_tier": "flex" }));
    let (paid, tokens) = cost(&setup, Kind::Chat, &body, "output=20, tier=flex").await;
    assert_eq!(paid, tokens * 500);
    let fast = with(Kind::Messages, false, json!({ "speed": "fast" }));
    let (paid, tokens) = cost(&setup, Kind::Messages, &fast, "output=20").await;
    assert_eq!(paid, tokens * 6_000, "nothing else is told");
}

/// The ceiling is lowered to what the dearest that may serve it leaves.
#[tokio::test]
async fn no_tier_and_no_fallback_overspends_what_is_left() {
    let lines = "when_short = \"lower\"";
    for (rest, script, rate) in [
        (json!({ "service_tier": "priority" }), "output=90000, tier=priority", 2_000),
        (json!({ "models": ["gpt-5"] }), "output=90000, served-by=gpt-5", 5_000),
    ] {
        let rules = rules(lines).replace("1.00 USD", "0.01 USD");
        let setup = Setup::with_rules("", &rules).await;
        let mut body = with(Kind::Chat, true, rest);
        body["max_completion_tokens"] = 50_000.into();
        let (paid, tokens) = cost(&setup, Kind::Chat, &body, script).await;
        assert_eq!(paid, tokens * rate);
        assert!(paid <= 10_000_000, "{paid}");
    }
}

#[tokio::test]
async fn of_models_that_may_serve_a_call_the_one_that_did_is_paid() {
    let setup = Setup::with_rules("", &rules("")).await;
    for is_stream in [false, true] {
        let body = with(Kind::Chat, is_stream, json!({ "models": ["x/gpt-5"] }));
        for (model, rate) in [("gpt-5", 5_000), ("gpt-5-mini", 1_000), ("unknown", 5_000)] {
            let script = format!("output=20, served-by={model}");
            let (paid, tokens) = cost(&setup, Kind::Chat, &body, &script).await;
            assert_eq!(paid, tokens * rate, "{model}, stream: {is_stream}");
        }
    }
    let message =
        denial(&setup, Kind::Chat, &with(Kind::Chat, false, json!({ "models": ["o3"] }))).await;
    assert!(message.contains("the model \"o3\" has no price here"), "{message}");
}

/// They would be asked about one model, and another would be called.
#[tokio::test]
async fn where_rules_look_at_the_model_a_request_may_name_one() {
    let lines = "[[rule]]\nname = \"dear\"\nlimit = \"1 per day\"\nkey = \"user\"\nmatch = { model = \"gpt-5\" }";
    let setup = Setup::with_rules("", &rules(lines)).await;
    let body = with(Kind::Chat, false, json!({ "models": ["gpt-5"] }));
    let answer = setup.gateway.send(Kind::Chat.call(&body, false, "")).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("may name only one"), "{}", answer.text());
    let same = with(Kind::Chat, false, json!({ "models": ["GPT-5-mini"] }));
    assert_eq!(setup.gateway.send(Kind::Chat.call(&same, false, "")).await.status, 200);
}

#[tokio::test]
async fn tools_of_the_provider_are_paid_as_often_as_they_were_used() {
    let setup = Setup::with_rules("", &rules("")).await;
    let search = json!([{ "type": "web_search_20250305", "name": "web_search", "max_uses": 3 }]);
    for is_stream in [false, true] {
        let body = with(Kind::Messages, is_stream, json!({ "tools": search }));
        let (paid, tokens) = cost(&setup, Kind::Messages, &body, "output=20, searches=2").await;
        assert_eq!(paid, tokens * 1_000 + 20_000_000, "stream: {is_stream}");
        let tools = json!({ "tools": [{ "type": "web_search" }], "max_tool_calls": 3 });
        let body = with(Kind::Responses, is_stream, tools);
        let (paid, tokens) = cost(&setup, Kind::Responses, &body, "output=20, searches=1").await;
        assert_eq!(paid, tokens * 1_000 + 10_000_000, "stream: {is_stream}");
    }
    let body = with(Kind::Chat, false, json!({ "web_search_options": {} }));
    let (paid, tokens) = cost(&setup, Kind::Chat, &body, "output=20").await;
    assert_eq!(paid, tokens * 1_000 + 10_000_000, "nothing is told of it");
    // A stream that ends too soon has not told them.
    let body = with(Kind::Messages, true, json!({ "tools": search }));
    let (paid, _) = cost(&setup, Kind::Messages, &body, "output=20, searches=2, end=6").await;
    assert!(paid > 30_000_000, "{paid}");
}

#[tokio::test]
async fn a_longer_stay_in_a_cache_and_long_input_have_their_prices() {
    let setup = Setup::with_rules("", &rules("")).await;
    let mut body = Kind::Messages.body(200, true);
    body["cache_control"] = json!({ "type": "ephemeral", "ttl": "1h" });
    let script = "output=20, cache-write=90, cache-write-1h=60";
    let (paid, tokens) = cost(&setup, Kind::Messages, &body, script).await;
    assert_eq!(paid, (tokens - 90) * 1_000 + 30 * 2_000 + 60 * 3_000);
    let mut body = Kind::Gemini.body(200, false);
    body["contents"][0]["parts"][0]["text"] = "tide ".repeat(1_000).into();
    let (paid, tokens) = cost(&setup, Kind::Gemini, &body, "output=20").await;
    assert_eq!(paid, (tokens - 20) * 3_000 + 20 * 2_000);
}

#[tokio::test]
async fn what_is_asked_for_and_has_no_price_is_denied() {
    let setup = Setup::with_rules("", &rules("")).await;
    let audio = json!([{ "role": "user", "content": [{ "type": "input_audio", "input_audio": { "data": "x" } }] }]);
    for (kind, rest, reason) in [
        (Kind::Chat, json!({ "service_tier": "scale" }), "service tier \"scale\""),
        (Kind::Completions, json!({ "service_tier": "Scale" }), "service tier \"scale\""),
        (Kind::Responses, json!({ "service_tier": "scale" }), "service tier \"scale\""),
        (Kind::Messages, json!({ "inference_geo": "us" }), "service tier \"us\""),
        (Kind::Gemini, json!({ "serviceTier": "PRIORITY" }), "service tier \"priority\""),
        (Kind::Chat, json!({ "plugins": [{ "id": "web" }] }), "`plugins`"),
        (Kind::Chat, json!({ "fallbacks": ["gpt-5"] }), "`fallbacks`"),
        (Kind::Chat, json!({ "route": "fallback" }), "`route`"),
        (Kind::Chat, json!({ "model": "gpt-5-mini:online" }), "has no price here"),
        (Kind::Chat, json!({ "modalities": ["text", "audio"] }), "`audio_output`"),
        (Kind::Chat, json!({ "messages": audio }), "`audio_input`"),
        (Kind::Chat, json!({ "cache_control": { "type": "ephemeral" } }), "`cache_write`"),
        (Kind::Responses, json!({ "tools": [{ "type": "web_search" }] }), "without end"),
        (
            Kind::Responses,
            json!({ "tools": [{ "type": "image_generation" }], "max_tool_calls": 1 }),
            "tool \"image_generation\"",
        ),
        (Kind::Messages, json!({ "tools": [{ "type": "web_search_20250305" }] }), "without end"),
        (
            Kind::Messages,
            json!({ "tools": [{ "type": "code_execution_20250825" }] }),
            "tool \"code_execution\"",
        ),
        (Kind::Gemini, json!({ "tools": [{ "googleSearch": {} }] }), "tool \"google_search\""),
    ] {
        let message = denial(&setup, kind, &with(kind, false, rest)).await;
        assert!(message.contains(reason), "{kind:?}: {message}");
    }
    // Who counts tokens only is not asked for prices.
    let setup = Setup::new("").await;
    let body =
        with(Kind::Chat, false, json!({ "service_tier": "scale", "plugins": [{ "id": "web" }] }));
    assert_eq!(setup.gateway.send(Kind::Chat.call(&body, false, "")).await.status, 200);
}

/// It is in no request, and bills as input.
#[tokio::test]
async fn what_tools_of_the_provider_may_bring_is_reserved() {
    let fetch = json!([{ "type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 3 }]);
    let search = json!([{ "type": "web_search" }]);
    let reference = json!([{ "type": "item_reference", "id": "msg_1" }]);
    for (lines, is_allowed) in [
        ("", false),
        (
            "llm.tool_tokens = 100
llm.stored_tokens = 100",
            true,
        ),
    ] {
        let setup = Setup::with_rules(lines, &super::budget_rule(7_000, "")).await;
        for (kind, rest) in [
            (Kind::Messages, json!({ "tools": fetch })),
            (Kind::Responses, json!({ "tools": search })),
            (Kind::Responses, json!({ "input": reference })),
            (Kind::Gemini, json!({ "tools": [{ "urlContext": {} }] })),
        ] {
            let body = with(kind, false, rest);
            let answer = setup.gateway.send(kind.call(&body, false, "")).await;
            assert_eq!(answer.status == 200, is_allowed, "{body}: {}", answer.text());
            assert!(is_allowed || answer.status == 429, "{body}");
        }
    }
}

/// A provider that sums a conversation up reads all of it once more, and says how much it likes.
#[tokio::test]
async fn what_has_no_bound_is_denied_by_rules_on_tokens_too() {
    let money = Setup::with_rules("", &rules("")).await;
    let tokens = Setup::new("").await;
    let compact =
        json!({ "edits": [{ "type": "clear_thinking_20251015" }, { "type": "compact_20260112" }] });
    let threshold = json!([{ "type": "compaction", "compact_threshold": 50_000 }]);
    for (setup, counted) in [(&money, "counts money"), (&tokens, "counts LLM tokens")] {
        for (kind, rest) in [
            (Kind::Messages, json!({ "context_management": compact })),
            (Kind::Messages, json!({ "compaction": { "type": "enabled" } })),
            (Kind::Responses, json!({ "context_management": threshold })),
        ] {
            let body = with(kind, false, rest);
            let answer = setup.gateway.send(kind.call(&body, false, "")).await;
            assert_eq!((answer.status, answer.header("x-should-retry")), (403, "false"), "{body}");
            let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(message.contains(counted) && message.contains("has no bound"), "{message}");
        }
        assert!(setup.provider.ledger.calls().is_empty());
        for rest in [
            json!({ "edits": [{ "type": "clear_tool_uses_20250919" }] }),
            json!({ "edits": [] }),
            json!(null),
        ] {
            let body = with(Kind::Messages, false, json!({ "context_management": rest }));
            let answer = setup.gateway.send(Kind::Messages.call(&body, false, "")).await;
            assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        }
    }
}

/// An endpoint that nobody here can count costs nobody knows what.
#[tokio::test]
async fn what_costs_and_cannot_be_counted_is_denied() {
    let setup = Setup::with_rules("", &rules("")).await;
    let before = setup.left("money").await;
    for path in [
        "/v1/batches",
        "/v1/files",
        "/v1/images/generations",
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/fine_tuning/jobs",
        "/v1/threads/runs",
        "/v1/videos",
        "/v1/realtime/client_secrets",
        "/v1/messages/batches",
        "/v1beta/models/gemini-2.5-flash:batchGenerateContent",
        "/v1beta/models/veo:predictLongRunning",
        "/v1beta/cachedContents",
        "/upload/v1beta/files",
        "/openai/deployments/mine/images/generations",
        "/api/generate",
    ] {
        let answer = setup.gateway.send(call_to(path, &json!({ "model": "gpt-5-mini" }), "")).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.text());
    }
    assert!(setup.provider.ledger.calls().is_empty());
    assert_eq!(setup.left("money").await, before);
    assert_eq!(before, LIMIT);
}

/// Not only below `/v1`: Azure has it elsewhere, and others, too.
#[tokio::test]
async fn no_path_of_an_llm_escapes_the_printed_configuration() {
    let printed = crate::command_line::run(&["--print-config"]).stdout;
    let printed = String::from_utf8(printed).unwrap();
    let provider = Provider::start().await;
    let gateway = Gateway::configured(&format!(
        "{printed}\n[upstream]\nurl = \"http://{}\"\n",
        provider.address
    ));
    let chat = json!({ "messages": [], "max_tokens": 20_000 });
    for path in [
        "/v1/chat/completions",
        "/openai/deployments/mine/chat/completions?api-version=2025-01-01",
        "/openai/v1/responses",
        "/api/v1/chat/completions",
        "/chat/completions",
        "/v1alpha/models/gemini-2.5-pro:generateContent",
        "/v1beta1/projects/p/models/gemini-2.5-pro:generateContent",
        "/completion",
        "/api/generate",
        "/login/../v1/chat/completions",
        "/login;/../chat/completions",
        "/health%2f..%2fchat/completions",
    ] {
        let mut body = chat.clone();
        body["contents"] = json!([]);
        body["input"] = "x".into();
        body["max_output_tokens"] = 20_000.into();
        body["generationConfig"] = json!({ "maxOutputTokens": 20_000 });
        let mut call = call_to(path, &body, "");
        call.headers_mut().remove("authorization");
        assert_eq!(gateway.send(call).await.status, 401, "{path}");
        let mut call = call_to(path, &body, "");
        call.headers_mut().insert("authorization", "Bearer demo-alice".parse().unwrap());
        let answer = gateway.send(call).await;
        // One with dot segments is for nobody.
        let expected: &[u16] = if path.contains("..") { &[400] } else { &[403, 429] };
        assert!(expected.contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
    }
    assert!(provider.ledger.calls().is_empty());
    let spelt = crate::process::get("/login/./");
    assert_eq!(gateway.send(spelt).await.status, 401, "only the plain spelling is open");
    assert_eq!(gateway.send(crate::process::get("/health")).await.status, 200);
}
