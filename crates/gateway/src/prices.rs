//! [`Prices`]: what LLM calls cost, by model.

mod offer;
mod quote;
mod rates;
mod unpriced;

use std::sync::Arc;

use tidegate::policy::ModelPattern;
use tidegate::{Currency, Money};

use crate::llm::Tiers;
pub(crate) use quote::{Quote, Used};
pub(crate) use rates::Rates;
pub(crate) use unpriced::Unpriced;

/// What calls of some models cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Price {
    pub(crate) models: ModelPattern,
    pub(crate) currency: Currency,
    pub(crate) rates: Rates,
    /// The rates where the input is longer than so many tokens.
    pub(crate) long_context: Option<(u64, Rates)>,
    /// How many times the price other tiers cost than the usual one, in billionths, by name.
    pub(crate) service_tiers: Vec<(String, u64)>,
    /// What one use of a tool costs that the provider runs, in nano-units, by name.
    pub(crate) tools: Vec<(String, u64)>,
    /// What each call costs beside its tokens, in nano-units.
    pub(crate) call: u64,
}

/// The prices of models, in one currency. The first that fits a model counts.
#[derive(Debug, Clone)]
pub(crate) struct Prices {
    pub(crate) currency: Currency,
    pub(crate) table: Vec<Arc<Price>>,
}

/// Prices are per so many tokens.
const PER_TOKENS: u128 = 1_000_000;

/// A factor of 1.
const ONE: u128 = 1_000_000_000;

impl Prices {
    pub(crate) const fn money(&self, nanos: u64) -> Money {
        Money::from_nanos(nanos, self.currency)
    }
}

impl Price {
    /// How many times the usual price these tiers cost; `Err` with one that has no price.
    fn factor<'t>(&self, tiers: &'t Tiers) -> Result<u64, &'t str> {
        let mut factor = ONE;
        for name in tiers.names() {
            let (_, times) =
                self.service_tiers.iter().find(|(tier, _)| tier == name).ok_or(name)?;
            factor = (factor * u128::from(*times)).div_ceil(ONE);
        }
        Ok(u64::try_from(factor).unwrap_or(u64::MAX))
    }

    fn dearest_factor(&self) -> u64 {
        self.service_tiers.iter().map(|(_, factor)| *factor).max().unwrap_or(0)
    }

    /// What one use of a tool costs.
    fn tool(&self, name: &str) -> Option<u64> {
        self.tools.iter().find(|(tool, _)| tool == name).map(|(_, nanos)| *nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::{Served, Terms, TokenCounts};

    pub(super) fn rates() -> Rates {
        Rates {
            input: 1_250_000_000,
            cached_input: 125_000_000,
            cache_write: None,
            cache_write_1h: None,
            audio_input: None,
            output: 10_000_000_000,
            audio_output: None,
            image_output: None,
        }
    }

    pub(super) fn plain(models: &str) -> Price {
        Price {
            models: models.parse().unwrap(),
            currency: Currency::USD,
            rates: rates(),
            long_context: None,
            service_tiers: Vec::new(),
            tools: Vec::new(),
            call: 0,
        }
    }

    pub(super) fn prices(table: Vec<Price>) -> Prices {
        Prices { currency: Currency::USD, table: table.into_iter().map(Arc::new).collect() }
    }

    #[test]
    fn each_kind_of_token_has_its_price_and_the_sum_is_rounded_up_once() {
        let nanos = |price: Price, (input, cached_input, output)| {
            let quote = prices(vec![price]).quote(&["gpt-5".to_owned()], &Terms::default());
            quote.unwrap().nanos(Used {
                counts: &TokenCounts { input, cached_input, output, ..TokenCounts::default() },
                is_input_told: true,
                is_output_told: true,
                is_whole: true,
                served: &Served::default(),
            })
        };
        let price = || plain("gpt-5");
        assert_eq!(nanos(price(), (1_000_000, 0, 0)), 1_250_000_000);
        assert_eq!(nanos(price(), (1_000_000, 1_000_000, 0)), 125_000_000);
        assert_eq!(nanos(price(), (100, 60, 7)), 40 * 1_250 + 60 * 125 + 7 * 10_000);
        let odd = || Price {
            rates: Rates { input: 1, cached_input: 1, output: 1, ..rates() },
            ..price()
        };
        assert_eq!(nanos(odd(), (1, 0, 1)), 1, "not 2");
        assert_eq!(nanos(odd(), (0, 0, 0)), 0);
        assert_eq!(nanos(price(), (5, 9, 0)), 9 * 125, "more cached than there is");
        assert_eq!(nanos(price(), (u64::MAX, 0, u64::MAX)), u64::MAX);
    }
}
