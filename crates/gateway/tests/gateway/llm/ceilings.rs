//! Ceilings that are lowered into requests, so that the provider itself keeps the budget.

use serde_json::json;

use super::{ALL, Kind, Setup, budget_rule};

#[tokio::test]
async fn a_ceiling_is_lowered_to_what_is_left_in_every_api_and_the_budget_is_not_passed() {
    for kind in ALL {
        for is_stream in [false, true] {
            for choices in if kind.choices().is_some() { vec![1, 3] } else { vec![1] } {
                let rules = budget_rule(1_000, "when_short = \"lower\"");
                let setup = Setup::with_rules("[llm]\ntokenizer = \"never\"", &rules).await;
                let mut body = kind.body(5_000, is_stream);
                if let Some(name) = kind.choices() {
                    body[name] = choices.into();
                }
                // It would go on for as long as it may.
                let call = kind.call(&body, is_stream, "output=9000");
                let answer = setup.gateway.send(call).await;
                assert_eq!(answer.status, 200, "{kind:?}: {}", answer.text());
                let billed = setup.billed();
                let ceiling = billed.json().pointer(kind.ceiling()).unwrap().as_u64().unwrap();
                let input = body.to_string().len() as u64;
                assert_eq!(ceiling, (1_000 - input) / choices, "{kind:?}, {choices}");
                assert_eq!(billed.output, choices * ceiling, "the provider kept it");
                assert!(billed.total() <= 1_000);
                assert_eq!(setup.left("budget").await, 1_000 - billed.total(), "{kind:?}");
                let mut expected = body.clone();
                *expected.pointer_mut(kind.ceiling()).unwrap() = ceiling.into();
                let mut passed = billed.json();
                passed.as_object_mut().unwrap().remove("stream_options");
                assert_eq!(passed, expected, "nothing else has changed");
            }
        }
    }
}

/// A list of prompts has an answer for each, and a list of tokens is one prompt.
#[tokio::test]
async fn each_prompt_of_a_completion_has_a_ceiling_of_its_own() {
    for (prompt, answers) in [
        (json!(["one", "two", "three"]), 3),
        (json!([[1, 2], [3, 4]]), 2),
        (json!([1, 2, 3, 4]), 1),
        (json!([]), 1),
    ] {
        let rules = budget_rule(1_000, "when_short = \"lower\"");
        let setup = Setup::with_rules("[llm]\ntokenizer = \"never\"", &rules).await;
        let mut body = Kind::Completions.body(5_000, false);
        body["prompt"] = prompt.clone();
        body["n"] = 2.into();
        let answer = setup.gateway.send(Kind::Completions.call(&body, false, "output=9000")).await;
        assert_eq!(answer.status, 200, "{prompt}: {}", answer.text());
        let billed = setup.billed();
        let input = body.to_string().len() as u64;
        assert_eq!(billed.json()["max_tokens"], (1_000 - input) / (2 * answers), "{prompt}");
        assert!(billed.total() <= 1_000, "{prompt}: {}", billed.total());
        assert_eq!(setup.left("budget").await, 1_000 - billed.total(), "{prompt}");
    }
}

#[tokio::test]
async fn a_call_without_a_ceiling_gets_one_and_anthropics_keeps_room_to_think() {
    let rules = budget_rule(10_000, "when_short = \"lower\"");
    let setup = Setup::with_rules("[llm]\ndefault_max_output = 300", &rules).await;
    for kind in [Kind::Chat, Kind::Completions, Kind::Responses, Kind::Gemini, Kind::GeminiList] {
        let mut body = kind.body(1, false);
        let (parent, name) = kind.ceiling().rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        let answer = setup.gateway.send(kind.call(&body, false, "output=9000")).await;
        assert_eq!(answer.status, 200, "{kind:?}");
        assert_eq!(setup.billed().json().pointer(kind.ceiling()).unwrap(), 300, "{kind:?}");
        assert_eq!(setup.billed().output, 300);
    }
    // A thinking budget of 8,000 and its ceiling do not fit, and it would be no use to lower that.
    let mut body = Kind::Messages.body(9_900, false);
    body["thinking"] = json!({ "type": "enabled", "budget_tokens": 9_500 });
    let before = setup.provider.ledger.calls().len();
    let answer = setup.gateway.send(Kind::Messages.call(&body, false, "")).await;
    assert_eq!(answer.status, 429);
    assert_eq!(setup.provider.ledger.calls().len(), before);
}

#[tokio::test]
async fn without_lowering_a_call_that_does_not_fit_is_denied_in_the_apis_own_words() {
    let setup = Setup::with_rules("", &budget_rule(1_000, "")).await;
    for kind in ALL {
        for is_stream in [false, true] {
            let body = kind.body(5_000, is_stream);
            let answer = setup.gateway.send(kind.call(&body, is_stream, "")).await;
            assert_eq!((answer.status, answer.header("x-should-retry")), (429, "false"));
            assert_eq!(answer.header("content-type"), "application/json");
            let json = answer.json();
            let (field, expected) = match kind {
                Kind::Messages => ("/error/type", "rate_limit_error"),
                Kind::Gemini | Kind::GeminiList => ("/error/status", "RESOURCE_EXHAUSTED"),
                _ => ("/error/type", "insufficient_quota"),
            };
            assert_eq!(json.pointer(field).unwrap(), expected, "{kind:?}: {json}");
        }
    }
    assert!(setup.provider.ledger.calls().is_empty());
    assert_eq!(setup.left("budget").await, 1_000);
}
