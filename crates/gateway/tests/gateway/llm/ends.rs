//! How calls end otherwise than well, and what they are charged then: what was produced, and never less.

use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{ALL, BUDGET, Kind, Setup, budget_rule, config, data_of, left};
use crate::process::{Gateway, client};
use crate::provider::Provider;

/// Words that are said before a fault.
const SAID: usize = 5;

/// What so many words are charged as: three bytes to a token, where the provider does not tell.
const SAID_CHARGE: u64 = "the tide comes in and ".len().div_ceil(3) as u64;

pub(super) const CEILING: u64 = 400;

impl Kind {
    /// The events of a stream before its first word.
    fn lead(self) -> usize {
        match self {
            Self::Chat | Self::ChatMaxTokens | Self::Completions => 1,
            Self::Responses => 4,
            Self::Messages => 3,
            Self::Gemini | Self::GeminiList => 0,
        }
    }

    /// Whether a stream tells its input at once.
    fn tells_input_at_once(self) -> bool {
        matches!(self, Self::Messages | Self::Gemini)
    }

    fn reserved_input(self) -> u64 {
        self.body(CEILING, true).to_string().len() as u64
    }
}

/// The status of an answer, and what comes of its body until it ends or breaks.
pub(super) async fn read(
    setup: &Setup,
    kind: Kind,
    is_stream: bool,
    script: &str,
) -> (u16, String, bool) {
    read_under(CEILING, setup, kind, is_stream, script).await
}

async fn read_under(
    ceiling: u64,
    setup: &Setup,
    kind: Kind,
    is_stream: bool,
    script: &str,
) -> (u16, String, bool) {
    read_body(setup, kind, &kind.body(ceiling, is_stream), is_stream, script).await
}

async fn read_body(
    setup: &Setup,
    kind: Kind,
    body: &Value,
    is_stream: bool,
    script: &str,
) -> (u16, String, bool) {
    let request = kind.call(body, is_stream, script);
    let response = client().request(setup.gateway.absolute(request)).await.unwrap();
    let (status, mut body) = (response.status().as_u16(), response.into_body());
    let (mut text, mut is_whole) = (Vec::new(), true);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => text.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(_) => is_whole = false,
        }
    }
    (status, String::from_utf8(text).unwrap(), is_whole)
}

/// Begins a stream, and hangs up once its last word before the fault has come.
async fn hang_up(setup: &Setup, kind: Kind, script: &str) {
    hang_up_on(setup, kind, &quiet_body(kind), script).await;
}

/// A stream of a model that says all that it produces.
fn quiet_body(kind: Kind) -> Value {
    let mut body = kind.body(CEILING, true);
    if body["model"] == "gpt-5-mini" {
        // As long, so that the input is, too.
        body["model"] = "gpt-4.1-xs".into();
    }
    body
}

async fn hang_up_on(setup: &Setup, kind: Kind, body: &Value, script: &str) {
    let request = kind.call(body, true, script);
    let mut body = client().request(setup.gateway.absolute(request)).await.unwrap().into_body();
    let mut text = String::new();
    while !text.contains("and ") {
        let frame = body.frame().await.expect("more words").unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
}

#[tokio::test]
async fn an_error_of_the_provider_passes_as_it_is_and_costs_nothing() {
    let setup = Setup::new("").await;
    for kind in ALL {
        for is_stream in [false, true] {
            for (status, script) in [(503, "status=503"), (500, "status=500"), (429, "status=429")]
            {
                let (found, text, _) = read(&setup, kind, is_stream, script).await;
                assert_eq!(found, status, "{kind:?}");
                assert!(text.contains("as it was told"), "the provider's own words: {text}");
            }
        }
    }
    let script = "status=429, retry-after=7";
    let body = Kind::Messages.body(CEILING, false);
    let answer = setup.gateway.send(Kind::Messages.call(&body, false, script)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "7"));
    assert_eq!(setup.left("budget").await, BUDGET, "all is given back");
}

#[tokio::test]
async fn a_stream_that_fails_before_any_output_costs_nothing() {
    let setup = Setup::new("").await;
    for kind in ALL.into_iter().filter(|kind| kind.has_events()) {
        // The provider says so itself.
        for body in [quiet_body(kind), kind.body(CEILING, true)] {
            let (_, text, _) = read_body(&setup, kind, &body, true, "error=0").await;
            assert!(text.contains("fails"), "{kind:?}: {text}");
            assert_eq!(setup.left("budget").await, BUDGET, "{kind:?}");
        }
    }
}

/// Nobody says that it has failed, nor what it has done.
#[tokio::test]
async fn a_stream_that_breaks_before_any_output_stays_charged_as_reserved() {
    let setup = Setup::new("").await;
    let mut before = BUDGET;
    for kind in ALL {
        for (lead, body) in [
            (0, kind.body(CEILING, true)),
            (kind.lead(), kind.body(CEILING, true)),
            (kind.lead(), quiet_body(kind)),
        ] {
            let request = kind.call(&body, true, &format!("cut={lead}"));
            // Where its head and the break come at once, the client may see nothing of it.
            if let Ok(response) = client().request(setup.gateway.absolute(request)).await {
                assert_eq!(response.status(), 200, "{kind:?}");
                assert!(response.into_body().collect().await.is_err(), "{kind:?}");
            }
            let left = setup.left("budget").await;
            let is_told = kind == Kind::Messages && lead > 0;
            // The provider says in its first event how much input it bills, whatever it bills in the end.
            let told = body.to_string().len().div_ceil(4) as u64;
            let input = if is_told { told } else { kind.reserved_input() };
            assert_eq!(before - left, input + CEILING, "{kind:?}, after {lead}");
            before = left;
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_after_output_is_charged_for_it() {
    let setup = Setup::new("").await;
    let mut before = BUDGET;
    for kind in ALL.into_iter().filter(|kind| kind.has_events()) {
        for fault in ["cut", "error", "end"] {
            let script = format!("output=90, {fault}={}", kind.lead() + SAID);
            let (status, text, is_whole) =
                read_body(&setup, kind, &quiet_body(kind), true, &script).await;
            assert_eq!((status, is_whole), (200, fault != "cut"), "{kind:?}, {fault}");
            assert!(text.contains("and ") && !text.contains("goes"), "{text}");
            let billed = setup.billed();
            assert_eq!(billed.output, SAID as u64);
            let left = setup.left("budget").await;
            let input =
                if kind.tells_input_at_once() { billed.input } else { kind.reserved_input() };
            // Gemini tells with every word what it has produced; nothing says that this was the last.
            let is_told = kind == Kind::Gemini && fault == "end";
            let output = if is_told { billed.output } else { SAID_CHARGE };
            assert_eq!(before - left, input + output, "{kind:?}, {fault}");
            assert!(before - left >= billed.total());
            before = left;
        }
    }
}

#[tokio::test]
async fn a_whole_answer_that_breaks_or_is_none_stays_charged_as_reserved() {
    let setup = Setup::new("").await;
    let mut before = BUDGET;
    for kind in ALL {
        for fault in ["cut", "garbage", "no-usage"] {
            let (status, _, is_whole) = read(&setup, kind, false, fault).await;
            assert_eq!((status, is_whole), (200, fault != "cut"), "{kind:?}, {fault}");
            let left = setup.left("budget").await;
            let reserved = kind.body(CEILING, false).to_string().len() as u64 + CEILING;
            assert_eq!(before - left, reserved, "{kind:?}, {fault}");
            assert!(before - left >= setup.billed().total());
            before = left;
        }
    }
}

#[tokio::test]
async fn a_stream_without_usage_or_sense_is_charged_for_all_that_has_passed() {
    let setup = Setup::new("").await;
    let mut before = BUDGET;
    for kind in ALL {
        for fault in ["no-usage", "garbage"] {
            let (status, ..) = read(&setup, kind, true, &format!("output=60, {fault}")).await;
            assert_eq!(status, 200, "{kind:?}");
            let left = setup.left("budget").await;
            let billed = setup.billed();
            assert_eq!(billed.output, 60);
            assert!(before - left >= kind.reserved_input() + 60, "{kind:?}, {fault}");
            assert!(before - left <= kind.reserved_input() + CEILING, "{kind:?}, {fault}");
            before = left;
        }
    }
}

#[tokio::test]
async fn a_client_who_hangs_up_pays_what_the_provider_bills_when_that_is_told_soon() {
    let setup = Setup::new("[llm]\ndrain_s = 20").await;
    for kind in ALL {
        let before = setup.left("budget").await;
        hang_up(&setup, kind, "output=40, reasoning=3, pace=3").await;
        let held = kind.reserved_input() + CEILING;
        let left = setup.left_after(before - held).await;
        let billed = setup.billed();
        assert!(billed.is_over, "{kind:?}: it is read to its end");
        assert_eq!(billed.output, 43);
        assert_eq!(before - left, billed.total(), "{kind:?}");
    }
}

#[tokio::test]
async fn a_client_who_hangs_up_pays_what_was_produced_when_nothing_more_is_told() {
    for drain in ["[llm]\ndrain_s = 0", "[llm]\ndrain_s = 1"] {
        let setup = Setup::new(drain).await;
        for kind in ALL {
            let before = setup.left("budget").await;
            let script = format!("output=90, stall={}", kind.lead() + SAID);
            hang_up(&setup, kind, &script).await;
            let held = kind.reserved_input() + CEILING;
            if kind == Kind::GeminiList {
                // One JSON text, which nobody can read before its end.
                assert_eq!(setup.left("budget").await, before - held);
                continue;
            }
            let left = setup.left_after(before - held).await;
            let billed = setup.billed();
            assert_eq!(billed.output, SAID as u64);
            let input =
                if kind.tells_input_at_once() { billed.input } else { kind.reserved_input() };
            assert_eq!(before - left, input + SAID_CHARGE, "{kind:?}");
        }
    }
}

/// It may have been thinking, which is billed and not seen.
#[tokio::test]
async fn a_client_who_hangs_up_before_any_output_pays_what_was_reserved() {
    let setup = Setup::new("[llm]\ndrain_s = 0").await;
    for kind in ALL {
        for is_stream in [false, true] {
            let before = setup.left("budget").await;
            let calls = setup.provider.ledger.calls().len();
            let stall = if is_stream { kind.lead() } else { 0 };
            let script = format!("reasoning=300, stall={stall}");
            let body = kind.body(CEILING, is_stream);
            let reserved = body.to_string().len() as u64 + CEILING;
            let request = setup.gateway.absolute(kind.call(&body, is_stream, &script));
            let call = tokio::spawn(client().request(request));
            while setup.provider.ledger.calls().get(calls).is_none_or(|call| call.input == 0) {
                tokio::task::yield_now().await;
            }
            if is_stream && stall > 0 {
                // What leads has come by now.
                let mut body = call.await.unwrap().unwrap().into_body();
                body.frame().await.unwrap().unwrap();
            } else {
                call.abort();
                let _ = call.await;
            }
            // Before the gateway has seen it, and after.
            for _ in 0..10 {
                let charged = before - setup.left("budget").await;
                let told = is_stream && kind == Kind::Messages;
                let is_input_told = told && charged == setup.billed().input + CEILING;
                assert!(charged == reserved || is_input_told, "{kind:?}, stream: {is_stream}");
            }
        }
    }
}

/// What is thought is billed and not seen, so what was seen says too little.
#[tokio::test]
async fn a_client_who_hangs_up_on_a_model_that_thinks_pays_what_was_reserved() {
    let setup = Setup::new("[llm]\ndrain_s = 0").await;
    for kind in [Kind::Chat, Kind::ChatMaxTokens, Kind::Responses, Kind::Messages] {
        let mut body = kind.body(CEILING, true);
        if kind == Kind::Messages {
            body["thinking"] = json!({ "type": "enabled", "budget_tokens": 300 });
        }
        let reserved = body.to_string().len() as u64 + CEILING;
        let before = setup.left("budget").await;
        let lead = if kind == Kind::Responses { 6 } else { kind.lead() };
        let script = format!("reasoning=300, output=90, stall={}", lead + SAID);
        hang_up_on(&setup, kind, &body, &script).await;
        // Of Anthropic's, the input is told.
        let told = kind == Kind::Messages;
        let left = if told {
            setup.left_after(before - reserved).await
        } else {
            setup.left("budget").await
        };
        let input = if told { setup.billed().input } else { reserved - CEILING };
        assert_eq!(before - left, input + CEILING, "{kind:?}");
        assert!(before - left >= setup.billed().total());
    }
}

/// Nobody knows what it has thought, unless its usage is told.
#[tokio::test]
async fn a_model_that_thinks_is_charged_as_reserved_however_its_stream_fails() {
    let setup = Setup::new("").await;
    for kind in [Kind::Chat, Kind::ChatMaxTokens, Kind::Responses, Kind::Messages] {
        let mut body = kind.body(CEILING, true);
        if kind == Kind::Messages {
            body["thinking"] = json!({ "type": "enabled", "budget_tokens": 300 });
        }
        let reserved = body.to_string().len() as u64;
        let lead = if kind == Kind::Responses { 6 } else { kind.lead() };
        let said = lead + SAID;
        for fault in [
            format!("cut={said}"),
            format!("error={said}"),
            format!("end={said}"),
            // Before any word.
            format!("cut={lead}"),
            "no-usage".to_owned(),
        ] {
            let before = setup.left("budget").await;
            let script = format!("reasoning=300, output=90, {fault}");
            read_body(&setup, kind, &body, true, &script).await;
            // As the provider counts it.
            let told = kind == Kind::Messages && fault != "no-usage";
            let input = if told { reserved.div_ceil(4) } else { reserved };
            let charged = before - setup.left("budget").await;
            assert_eq!(charged, input + CEILING, "{kind:?}, {fault}");
            assert!(charged >= setup.billed().total());
        }
    }
}

/// An image comes in events of some MiB.
#[tokio::test]
async fn usage_is_read_from_an_event_however_long() {
    let rules = budget_rule(BUDGET, "debt = false");
    let setup = Setup::with_rules("", &rules).await;
    let (status, text, is_whole) =
        read(&setup, Kind::Responses, true, "output=7, image=2097152").await;
    assert_eq!((status, is_whole), (200, true));
    assert!(text.contains("response.completed") && !text.contains("event: error"));
    assert_eq!(setup.left("budget").await, BUDGET - setup.billed().total());
}

/// Nobody can read what is in it, so nobody can say that it was more than was reserved.
#[tokio::test]
async fn an_event_that_is_too_long_to_be_read_passes_and_is_charged_as_reserved() {
    let rules = budget_rule(BUDGET, "debt = false");
    let setup = Setup::with_rules("", &rules).await;
    let reserved = Kind::Responses.reserved_input() + CEILING;
    let (status, text, is_whole) =
        read(&setup, Kind::Responses, true, "output=7, image=20000000").await;
    assert_eq!((status, is_whole), (200, true));
    assert!(text.len() > 40_000_000 && !text.contains("event: error"));
    assert_eq!(setup.left("budget").await, BUDGET - reserved);
}

/// It can be asked for later.
#[tokio::test]
async fn a_response_in_the_background_is_paid_as_reserved_by_who_hangs_up() {
    let setup = Setup::new("[llm]\ndrain_s = 0").await;
    for fault in ["stall", "cut"] {
        let mut body = quiet_body(Kind::Responses);
        body["background"] = true.into();
        let reserved = body.to_string().len() as u64 + CEILING;
        let before = setup.left("budget").await;
        let script = format!("output=390, {fault}={}", Kind::Responses.lead() + SAID);
        hang_up_on(&setup, Kind::Responses, &body, &script).await;
        for _ in 0..10 {
            assert_eq!(setup.left("budget").await, before - reserved, "{fault}");
        }
        assert_eq!(setup.billed().output, 390);
    }
}

#[tokio::test]
async fn a_provider_that_stands_still_is_given_up_and_paid_for() {
    let provider = Provider::start().await;
    let config = config(&provider, "", &budget_rule(BUDGET, ""));
    let config =
        config.replace("[upstream]", "[upstream]\nidle_timeout_s = 1\nanswer_timeout_s = 1");
    let setup = Setup { gateway: Gateway::configured(&config), provider };
    let mut before = BUDGET;
    for kind in [Kind::Chat, Kind::Messages] {
        let (status, ..) = read(&setup, kind, false, "stall=0").await;
        assert_eq!(status, 504);
        let left = setup.left("budget").await;
        let reserved = kind.body(CEILING, false).to_string().len() as u64 + CEILING;
        assert_eq!(before - left, reserved, "it is at work still");
        before = left;
        // After some words, and before any: it may have been thinking.
        let thinks = kind == Kind::Chat;
        for (said, output) in [(SAID, if thinks { CEILING } else { SAID_CHARGE }), (0, CEILING)] {
            let script = format!("output=90, stall={}", kind.lead() + said);
            let (status, _, is_whole) = read(&setup, kind, true, &script).await;
            assert_eq!((status, is_whole), (200, false));
            let left = setup.left("budget").await;
            let told = kind.tells_input_at_once();
            let input = if told { setup.billed().input } else { kind.reserved_input() };
            assert_eq!(before - left, input + output, "{kind:?}");
            before = left;
        }
    }
}

#[tokio::test]
async fn without_debt_a_stream_that_goes_beyond_its_reservation_is_cut_off_with_an_error() {
    let rules = budget_rule(BUDGET, "debt = false");
    let setup = Setup::with_rules("", &rules).await;
    let mut before = BUDGET;
    for kind in ALL.into_iter().filter(|kind| kind.has_events()) {
        // A provider that does not keep the ceiling.
        let script = "output=5000, ignores-ceiling, pace=1";
        let (status, text, is_whole) = read_under(40, &setup, kind, true, script).await;
        assert_eq!((status, is_whole), (200, true), "{kind:?}");
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        let error = data_of(last).pop().unwrap();
        let is =
            |field: &str, value: &str| error.pointer(field).and_then(Value::as_str) == Some(value);
        let is_right = match kind {
            Kind::Messages => {
                last.starts_with("event: error\n")
                    && is("/type", "error")
                    && is("/error/type", "rate_limit_error")
            }
            Kind::Responses => {
                last.starts_with("event: error\n")
                    && is("/type", "error")
                    && is("/code", "insufficient_quota")
            }
            Kind::Gemini => is("/error/status", "RESOURCE_EXHAUSTED"),
            _ => is("/error/type", "insufficient_quota"),
        };
        assert!(is_right, "{kind:?}: {last}");
        assert!(!text.contains("[DONE]"));
        let left = setup.left("budget").await;
        let billed = setup.billed();
        let told = kind.tells_input_at_once();
        let input = if told { billed.input } else { kind.body(40, true).to_string().len() as u64 };
        assert!(before - left > input + 40, "{kind:?}: what was beyond is charged, too");
        before = left;
        assert!(!billed.is_over && billed.output < 5_000, "{kind:?}: the provider was stopped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_ends_streams_and_what_they_used_is_still_used_after_the_restart() {
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    let state = folder.path().join("state");
    let args = ["--state", state.to_str().unwrap()];
    let config = config(&provider, "drain_timeout_s = 20", &budget_rule(BUDGET, ""));
    let setup = Setup { gateway: Gateway::configured_with(&config, &args), provider };
    let request = Kind::Chat.call(&Kind::Chat.body(CEILING, true), true, "output=100, pace=5");
    let response = client().request(setup.gateway.absolute(request)).await.unwrap();
    // The answer has begun.
    setup.gateway.signal("-TERM");
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    let (billed, mut gateway) = (setup.billed(), setup.gateway);
    assert_eq!(gateway.wait(), Some(0));
    assert!(billed.is_over);
    let gateway = Gateway::configured_with(&config, &args);
    assert_eq!(left(&gateway, "budget").await, BUDGET - billed.total());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_end_in_time_is_cut_off_and_charged_for_what_it_said() {
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    let state = folder.path().join("state");
    let args = ["--state", state.to_str().unwrap()];
    for kind in [Kind::Chat, Kind::Messages] {
        let config = config(&provider, "drain_timeout_s = 1", &budget_rule(BUDGET, ""));
        let gateway = Gateway::configured_with(&config, &args);
        let mut setup = Setup { gateway, provider: provider.clone() };
        let before = setup.left("budget").await;
        let script = format!("output=90, stall={}", kind.lead() + SAID);
        let request = kind.call(&quiet_body(kind), true, &script);
        let mut body = client().request(setup.gateway.absolute(request)).await.unwrap().into_body();
        let mut text = Vec::new();
        while !text.ends_with(b"and \"}\n\n") && !String::from_utf8_lossy(&text).contains("and ") {
            text.extend(body.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        setup.gateway.signal("-TERM");
        assert_eq!(setup.gateway.wait(), Some(0));
        let gateway = Gateway::configured_with(&config, &args);
        let billed = setup.billed();
        let input = if kind.tells_input_at_once() { billed.input } else { kind.reserved_input() };
        assert_eq!(before - left(&gateway, "budget").await, input + SAID_CHARGE, "{kind:?}");
    }
}
