//! Budgets of money: priced by kind of token, and nothing without a price.

use super::{ALL, BUDGET, Kind, Setup};

const PRICES: &str = "\
[[price]]\nmodel = \"gpt-5-mini\"\ninput = 0.25\ncached_input = 0.025\noutput = 2.00\n\
[[price]]\nmodel = \"claude-*\"\ninput = 3.00\ncached_input = 0.30\ncache_write = 3.75\noutput = 15.00\n\
[[price]]\nmodel = \"gemini-2.5-*\"\ninput = 0.30\ncached_input = 0.075\noutput = 2.50\n";

fn rule(limit: &str, lines: &str) -> String {
    format!(
        "{PRICES}[[rule]]\nname = \"money\"\nlimit = \"{limit} per hour\"\nkey = \"user\"\n\
         cost = \"money\"\nmatch = {{ authenticated = true }}\n{lines}\n"
    )
}

/// Nano-dollars for a token of plain input, of cached input, put into a cache, and of output.
fn prices(kind: Kind) -> [u64; 4] {
    match kind {
        Kind::Messages => [3_000, 300, 3_750, 15_000],
        Kind::Gemini | Kind::GeminiList => [300, 75, 300, 2_500],
        _ => [250, 25, 250, 2_000],
    }
}

#[tokio::test]
async fn each_kind_of_token_is_paid_at_its_own_price_to_the_nano_dollar() {
    let setup = Setup::with_rules("", &rule("1.00 USD", "")).await;
    let mut left = 1_000_000_000;
    for kind in ALL {
        for is_stream in [false, true] {
            let written = if kind == Kind::Messages { 11 } else { 0 };
            let script = format!("output=33, reasoning=8, cached=19, cache-write={written}");
            let body = kind.body(500, is_stream);
            let answer = setup.gateway.send(kind.call(&body, is_stream, &script)).await;
            assert_eq!(answer.status, 200, "{kind:?}: {}", answer.text());
            let (billed, [plain, cached, write, output]) = (setup.billed(), prices(kind));
            left -= (billed.input - 19 - written) * plain
                + 19 * cached
                + written * write
                + billed.output * output;
            assert_eq!(setup.left("money").await, left, "{kind:?}, stream: {is_stream}");
        }
    }
}

#[tokio::test]
async fn a_model_without_a_price_is_denied_whatever_the_api() {
    let setup = Setup::with_rules("", &rule("1.00 USD", "")).await;
    for kind in ALL {
        let mut body = kind.body(500, false);
        let mut path = kind.path(false).to_owned();
        match kind {
            Kind::Gemini | Kind::GeminiList => path = path.replace("gemini-2.5", "gemini-9"),
            _ => body["model"] = "new-model".into(),
        }
        let answer = setup.gateway.send(super::call_to(&path, &body, "")).await;
        assert_eq!((answer.status, answer.header("x-should-retry")), (403, "false"), "{kind:?}");
        let json = answer.json();
        let message = json["error"]["message"].as_str().unwrap();
        assert!(message.contains("has no price here"), "{kind:?}: {message}");
    }
    // No model at all has no price either.
    let mut body = Kind::Chat.body(500, false);
    body.as_object_mut().unwrap().remove("model");
    assert_eq!(setup.gateway.send(Kind::Chat.call(&body, false, "")).await.status, 403);
    assert!(setup.provider.ledger.calls().is_empty());
    assert_eq!(setup.left("money").await, 1_000_000_000, "nothing is charged");
}

#[tokio::test]
async fn a_price_for_all_others_is_their_price() {
    let all = "[[price]]\nmodel = \"*\"\ninput = 100\noutput = 100\n";
    let setup = Setup::with_rules("", &format!("{}{all}", rule("1.00 USD", ""))).await;
    let mut body = Kind::Chat.body(500, false);
    body["model"] = "new-model".into();
    assert_eq!(setup.gateway.send(Kind::Chat.call(&body, false, "")).await.status, 200);
    assert_eq!(setup.left("money").await, 1_000_000_000 - setup.billed().total() * 100_000);
}

#[tokio::test]
async fn what_is_left_of_the_money_is_the_ceiling() {
    for kind in ALL {
        let lines = "when_short = \"lower\"";
        let setup = Setup::with_rules("", &rule("0.01 USD", lines)).await;
        let body = kind.body(50_000, true);
        let answer = setup.gateway.send(kind.call(&body, true, "output=90000")).await;
        assert_eq!(answer.status, 200, "{kind:?}");
        let (billed, [input, _, write, output]) = (setup.billed(), prices(kind));
        let ceiling = billed.json().pointer(kind.ceiling()).unwrap().as_u64().unwrap();
        assert_eq!(billed.output, ceiling);
        let paid = billed.input * input + billed.output * output;
        assert!(paid <= 10_000_000, "{kind:?}: {paid}");
        // No more could be reserved: the input is paid at its dearest until it is known.
        let most = body.to_string().len() as u64 * input.max(write) + (ceiling + 1) * output;
        assert!(most > 10_000_000, "{kind:?}: {most}");
        assert_eq!(setup.left("money").await, 10_000_000 - paid, "{kind:?}");
    }
}

/// Both are settled, each in its own unit.
#[tokio::test]
async fn tokens_and_money_are_two_layers_of_one_call() {
    let rules = format!("{}{}", rule("1.00 USD", ""), super::budget_rule(BUDGET, ""));
    let setup = Setup::with_rules("", &rules).await;
    let body = Kind::Messages.body(500, true);
    setup.gateway.send(Kind::Messages.call(&body, true, "output=50")).await;
    let billed = setup.billed();
    assert_eq!(setup.left("budget").await, BUDGET - billed.total());
    let paid = billed.input * 3_000 + billed.output * 15_000;
    assert_eq!(setup.left("money").await, 1_000_000_000 - paid);
}
