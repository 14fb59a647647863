//! [`Quote`]: what one call may cost, and what it did cost.

use smallvec::SmallVec;

use super::offer::Offer;
use super::{Prices, Unpriced};
use crate::llm::{Served, Terms, TokenCounts};

/// What one call may cost: the prices of the models that may serve it, on the terms that it asks for.
#[derive(Debug, Clone)]
pub(crate) struct Quote {
    /// In the order of the price table.
    offers: SmallVec<[Offer; 1]>,
    terms: Terms,
}

/// What a call has used, and what of that the provider has told; the rest is paid as the dearest that it may
/// have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used<'a> {
    pub(crate) counts: &'a TokenCounts,
    pub(crate) is_input_told: bool,
    pub(crate) is_output_told: bool,
    /// Whether the answer is whole, so that what it tells of tools is all.
    pub(crate) is_whole: bool,
    pub(crate) served: &'a Served,
}

impl Prices {
    /// What a call of these models may cost; `Err` where nobody here knows.
    pub(crate) fn quote(&self, models: &[String], terms: &Terms) -> Result<Quote, Unpriced> {
        if let Some(member) = terms.unbounded {
            return Err(Unpriced::Unlimited(member));
        }
        if let Some(member) = terms.unpriceable {
            return Err(Unpriced::Member(member));
        }
        let mut offers: SmallVec<[Offer; 1]> = SmallVec::new();
        for model in models {
            let offer = Offer::of(self, model, terms)?;
            if offers.iter().all(|other| other.place != offer.place) {
                offers.push(offer);
            }
        }
        if offers.is_empty() {
            return Err(Unpriced::Model(String::new()));
        }
        offers.sort_by_key(|offer| offer.place);
        Ok(Quote { offers, terms: terms.clone() })
    }
}

impl Quote {
    pub(crate) fn currency(&self) -> tidegate::Currency {
        self.offers[0].price.currency
    }

    /// The most that so much input can cost, and output.
    pub(crate) fn most_nanos(&self, input: u64, output: u64) -> u64 {
        let most = |offer: &Offer| offer.most_nanos(&self.terms, input, output);
        self.offers.iter().map(most).max().unwrap_or(u64::MAX)
    }

    /// How much output can be paid with so many nano-units after so much input; `None` when the rest alone
    /// costs more.
    pub(crate) fn affordable_output(&self, nanos: u64, input: u64) -> Option<u64> {
        let affordable = |offer: &Offer| offer.affordable_output(&self.terms, nanos, input);
        self.offers.iter().map(affordable).min().flatten()
    }

    /// Whether an answer says something on its price besides tokens.
    pub(crate) fn is_open(&self) -> bool {
        let may_vary = |offer: &Offer| !offer.price.service_tiers.is_empty();
        self.offers.len() > 1 || !self.terms.tools.is_empty() || self.offers.iter().any(may_vary)
    }

    /// What a call has cost, in nano-units, rounded up: at the price of the model and tier that served it, as far
    /// as that is told, and is known here; else at the dearest that were asked for.
    pub(crate) fn nanos(&self, used: Used<'_>) -> u64 {
        let served = used.served.model.as_deref().filter(|_| self.offers.len() > 1);
        let by_it = served.and_then(|model| {
            self.offers.iter().find(|offer| offer.price.models.applies_to(model))
        });
        match by_it {
            Some(offer) => offer.nanos(&self.terms, used),
            None => {
                let each = self.offers.iter().map(|offer| offer.nanos(&self.terms, used));
                each.max().unwrap_or(u64::MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{plain, prices, rates};
    use super::super::{Price, Rates};
    use super::*;
    use crate::llm::{Tiers, Tool};

    fn terms() -> Terms {
        Terms::default()
    }

    fn tiers(json: &str) -> Tiers {
        serde_json::from_str(json).unwrap()
    }

    fn quote(table: Vec<Price>, models: &[&str], terms: &Terms) -> Result<Quote, Unpriced> {
        let models: Vec<String> = models.iter().map(|model| (*model).to_owned()).collect();
        prices(table).quote(&models, terms)
    }

    /// What a whole answer costs that tells these counts.
    fn told(quote: &Quote, counts: &TokenCounts, served: &Served) -> u64 {
        quote.nanos(Used {
            counts,
            is_input_told: true,
            is_output_told: true,
            is_whole: true,
            served,
        })
    }

    fn counts(input: u64, output: u64) -> TokenCounts {
        TokenCounts { input, output, ..TokenCounts::default() }
    }

    fn served(json: &str) -> Served {
        let mut served = Served::default();
        served.read(json.as_bytes());
        served
    }

    #[test]
    fn what_is_affordable_costs_no_more_than_that_and_one_token_more_does() {
        let odd = Price {
            service_tiers: vec![("flex".into(), 333_333_333), ("priority".into(), 1_750_000_001)],
            ..plain("gpt-5")
        };
        let long = Price {
            long_context: Some((100, rates().times(2_000_000_000, 1_500_000_000))),
            call: 7,
            ..plain("gpt-5")
        };
        for price in [plain("gpt-5"), odd, long] {
            for tier in ["auto", "flex", "priority"] {
                let terms =
                    Terms { tiers: tiers(&format!(r#"{{"service_tier":"{tier}"}}"#)), ..terms() };
                let Ok(quote) = quote(vec![price.clone()], &["gpt-5"], &terms) else { continue };
                for (nanos, input) in [
                    (9_999, 0),
                    (10_007, 0),
                    (1_000_000, 17),
                    (3_333_333, 1_000),
                    (u64::MAX / 9, 5),
                ] {
                    let Some(output) = quote.affordable_output(nanos, input) else {
                        assert!(quote.most_nanos(input, 0) > nanos);
                        continue;
                    };
                    assert!(quote.most_nanos(input, output) <= nanos, "{tier} {nanos} {input}");
                    assert!(quote.most_nanos(input, output + 1) > nanos, "{tier} {nanos} {input}");
                }
            }
        }
        let quote = quote(vec![plain("gpt-5")], &["gpt-5"], &terms()).unwrap();
        assert_eq!(quote.affordable_output(1_249, 1), None);
    }

    #[test]
    fn the_first_price_that_fits_counts_and_an_unknown_model_has_none() {
        let mini =
            Price { rates: Rates { input: 7_000_000_000, ..rates() }, ..plain("gpt-5-mini") };
        let table = vec![mini, plain("gpt-5*")];
        let input =
            |model: &str| quote(table.clone(), &[model], &terms()).map(|q| q.most_nanos(1, 0));
        assert_eq!(input("gpt-5-mini"), Ok(7_000));
        assert_eq!(input("gpt-5"), Ok(1_250));
        assert_eq!(input("o3"), Err(Unpriced::Model("o3".to_owned())));
        assert!(quote(table, &[], &terms()).is_err());
    }

    #[test]
    fn a_tier_costs_its_own_price_and_without_one_nobody_knows() {
        let price = Price {
            service_tiers: vec![("priority".into(), 2_000_000_000), ("flex".into(), 500_000_000)],
            ..plain("gpt-5")
        };
        let asks = |tier: &str| Terms {
            tiers: tiers(&format!(r#"{{"service_tier":"{tier}"}}"#)),
            ..terms()
        };
        let of = |tier: &str| quote(vec![price.clone()], &["gpt-5"], &asks(tier));
        assert!(matches!(of("scale"), Err(Unpriced::Tier { tier, .. }) if tier == "scale"));
        let usual = of("auto").unwrap();
        let (priority, flex) = (of("priority").unwrap(), of("flex").unwrap());
        let counts = counts(100, 10);
        let plain_cost = 100 * 1_250 + 10 * 10_000;
        assert_eq!(usual.most_nanos(100, 10), plain_cost);
        assert_eq!(priority.most_nanos(100, 10), 2 * plain_cost);
        assert_eq!(flex.most_nanos(100, 10), plain_cost, "it may be served as usual");
        for (json, cost) in [
            (r#"{"service_tier":"priority"}"#, 2 * plain_cost),
            (r#"{"service_tier":"default"}"#, plain_cost),
            (r#"{"service_tier":"flex"}"#, plain_cost / 2),
            // Nobody knows its price: the dearest.
            (r#"{"service_tier":"new"}"#, 2 * plain_cost),
        ] {
            for quote in [&usual, &priority, &flex] {
                assert_eq!(told(quote, &counts, &served(json)), cost, "{json}");
            }
        }
        assert_eq!(told(&priority, &counts, &Served::default()), 2 * plain_cost, "nothing is told");
        let faster =
            Terms { tiers: tiers(r#"{"service_tier":"priority","speed":"flex"}"#), ..terms() };
        let both = quote(vec![price], &["gpt-5"], &faster).unwrap();
        assert_eq!(both.most_nanos(100, 10), plain_cost, "both count");
    }

    #[test]
    fn of_models_that_may_serve_the_dearest_is_reserved_and_the_one_that_did_is_paid() {
        let dear =
            Price { rates: rates().times(3_000_000_000, 3_000_000_000), ..plain("claude-*") };
        let table = vec![plain("gpt-5"), dear];
        let models = ["gpt-5", "x/claude-sonnet"];
        let quote_of = |models: &[&str]| quote(table.clone(), models, &terms());
        let both = quote_of(&models).unwrap();
        assert_eq!(both.most_nanos(1, 1), 3 * 11_250);
        assert_eq!(both.affordable_output(30_000, 0), Some(1));
        let counts = counts(1, 1);
        for (model, cost) in [("gpt-5", 11_250), ("claude-sonnet", 33_750), ("other", 33_750)] {
            let json = format!(r#"{{"model":"{model}"}}"#);
            assert_eq!(told(&both, &counts, &served(&json)), cost, "{model}");
        }
        assert_eq!(told(&both, &counts, &Served::default()), 33_750);
        assert!(matches!(quote_of(&["gpt-5", "o3"]), Err(Unpriced::Model(model)) if model == "o3"));
    }

    #[test]
    fn tools_are_paid_as_often_as_they_may_be_used_or_were() {
        let price =
            Price { tools: vec![("web_search".into(), 10_000_000)], call: 5, ..plain("claude") };
        let tool = |name: &str, most_uses| Tool { name: name.to_owned(), most_uses };
        let of =
            |tool| quote(vec![price.clone()], &["claude"], &Terms { tools: vec![tool], ..terms() });
        let quote = of(tool("web_search", Some(3))).unwrap();
        assert_eq!(quote.most_nanos(0, 0), 30_000_005);
        let counts = counts(0, 0);
        let used = served(r#"{"usage":{"server_tool_use":{"web_search_requests":2}}}"#);
        assert_eq!(told(&quote, &counts, &used), 20_000_005);
        assert_eq!(told(&quote, &counts, &Served::default()), 30_000_005);
        let broken = Used {
            counts: &counts,
            is_input_told: true,
            is_output_told: true,
            is_whole: false,
            served: &used,
        };
        assert_eq!(quote.nanos(broken), 30_000_005, "there may have been more");
        assert!(matches!(of(tool("web_search", None)), Err(Unpriced::Unbounded { .. })));
        assert!(matches!(of(tool("file_search", Some(1))), Err(Unpriced::Tool { .. })));
    }

    #[test]
    fn long_input_has_its_own_price_for_all_of_it() {
        let long = rates().times(2_000_000_000, 1_500_000_000);
        let price = Price { long_context: Some((200_000, long)), ..plain("gemini") };
        let quote = quote(vec![price], &["gemini"], &terms()).unwrap();
        let cost = |input| told(&quote, &counts(input, 10), &Served::default());
        assert_eq!(cost(200_000), 200_000 * 1_250 + 10 * 10_000);
        assert_eq!(cost(200_001), 200_001 * 2_500 + 10 * 15_000);
        assert_eq!(quote.most_nanos(200_001, 10), cost(200_001));
    }

    #[test]
    fn what_is_no_plain_text_needs_a_price_of_its_own() {
        let price = Price {
            rates: Rates {
                audio_input: Some(40_000_000_000),
                cache_write_1h: Some(6_000_000_000),
                ..rates()
            },
            ..plain("gpt-audio")
        };
        let of = |terms: &Terms| quote(vec![price.clone()], &["gpt-audio"], terms);
        let heard = of(&Terms { audio_input: true, ..terms() }).unwrap();
        assert_eq!(heard.most_nanos(1, 0), 40_000);
        let counts = TokenCounts { audio_input: 2, ..counts(10, 0) };
        assert_eq!(told(&heard, &counts, &Served::default()), 8 * 1_250 + 2 * 40_000);
        let kept = of(&Terms { long_cache_write: true, ..terms() }).unwrap();
        assert_eq!(kept.most_nanos(1, 0), 6_000);
        let counts =
            |cache_write_1h| TokenCounts { cache_write: 10, cache_write_1h, ..self::counts(10, 0) };
        let paid = |for_long| told(&kept, &counts(for_long), &Served::default());
        assert_eq!(paid(Some(4)), 6 * 1_250 + 4 * 6_000);
        assert_eq!(paid(None), 10 * 6_000, "nobody tells how long it stays");
        for terms in [
            Terms { audio_output: true, ..terms() },
            Terms { image_output: true, ..terms() },
            Terms { cache_write: true, ..terms() },
        ] {
            assert!(matches!(of(&terms), Err(Unpriced::Kind { .. })), "{terms:?}");
        }
        assert_eq!(
            of(&Terms { unpriceable: Some("plugins"), ..terms() }).err(),
            Some(Unpriced::Member("plugins"))
        );
    }

    #[test]
    fn what_is_not_told_is_paid_at_the_dearest_that_it_may_have_been() {
        let price = Price {
            rates: Rates {
                audio_output: Some(80_000_000_000),
                cache_write: Some(3_000_000_000),
                ..rates()
            },
            ..plain("gpt-audio")
        };
        let quote =
            quote(vec![price], &["gpt-audio"], &Terms { audio_output: true, ..terms() }).unwrap();
        let counts = counts(10, 5);
        let used = |is_told| {
            quote.nanos(Used {
                counts: &counts,
                is_input_told: is_told,
                is_output_told: is_told,
                is_whole: false,
                served: &Served::default(),
            })
        };
        assert_eq!(used(true), 10 * 1_250 + 5 * 10_000);
        assert_eq!(used(false), quote.most_nanos(10, 5));
        assert_eq!(used(false), 10 * 3_000 + 5 * 80_000);
    }
}
