//! [`Prices`]: what LLM tokens cost, by model.

use tidegate::policy::ModelPattern;
use tidegate::{Currency, Money};

use crate::llm::TokenCounts;

/// What the LLM tokens of some models cost, in nano-units per million tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Price {
    pub(crate) models: ModelPattern,
    pub(crate) currency: Currency,
    pub(crate) input: u64,
    /// Of input that the provider had in its cache.
    pub(crate) cached_input: u64,
    /// Of input that the provider puts into its cache.
    pub(crate) cache_write: u64,
    pub(crate) output: u64,
}

/// The prices of models, in one currency. The first that fits a model counts.
#[derive(Debug, Clone)]
pub(crate) struct Prices {
    pub(crate) currency: Currency,
    pub(crate) table: Vec<Price>,
}

/// Prices are per so many tokens.
const PER_TOKENS: u128 = 1_000_000;

impl Prices {
    /// The price of a model; `None` where none is known.
    pub(crate) fn of(&self, model: &str) -> Option<&Price> {
        self.table.iter().find(|price| price.models.applies_to(model))
    }

    pub(crate) const fn money(&self, nanos: u64) -> Money {
        Money::from_nanos(nanos, self.currency)
    }
}

impl Price {
    /// What these tokens cost, in nano-units, rounded up.
    pub(crate) fn nanos(&self, counts: &TokenCounts) -> u64 {
        let parts = [
            (counts.plain_input(), self.input),
            (counts.cached_input, self.cached_input),
            (counts.cache_write, self.cache_write),
            (counts.output, self.output),
        ];
        let sum: u128 =
            parts.iter().map(|(tokens, price)| u128::from(*tokens) * u128::from(*price)).sum();
        u64::try_from(sum.div_ceil(PER_TOKENS)).unwrap_or(u64::MAX)
    }

    /// The most that so much input can cost, and output.
    pub(crate) fn most_nanos(&self, input: u64, output: u64) -> u64 {
        let dearest = self.input.max(self.cache_write).max(self.cached_input);
        let sum =
            u128::from(input) * u128::from(dearest) + u128::from(output) * u128::from(self.output);
        u64::try_from(sum.div_ceil(PER_TOKENS)).unwrap_or(u64::MAX)
    }

    /// How much output can be paid with so many nano-units after so much input; `None` when the input
    /// alone costs more.
    pub(crate) fn affordable_output(&self, nanos: u64, input: u64) -> Option<u64> {
        let dearest = self.input.max(self.cache_write).max(self.cached_input);
        let all = u128::from(nanos) * PER_TOKENS;
        let rest = all.checked_sub(u128::from(input) * u128::from(dearest))?;
        let output = rest.checked_div(u128::from(self.output)).unwrap_or(u128::MAX);
        Some(u64::try_from(output).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price() -> Price {
        Price {
            models: "gpt-5*".parse().unwrap(),
            currency: Currency::USD,
            input: 1_250_000_000,
            cached_input: 125_000_000,
            cache_write: 1_250_000_000,
            output: 10_000_000_000,
        }
    }

    #[test]
    fn each_kind_of_token_has_its_price_and_the_sum_is_rounded_up_once() {
        let counts = |input, cached_input, output| TokenCounts {
            input,
            cached_input,
            cache_write: 0,
            output,
        };
        assert_eq!(price().nanos(&counts(1_000_000, 0, 0)), 1_250_000_000);
        assert_eq!(price().nanos(&counts(1_000_000, 1_000_000, 0)), 125_000_000);
        assert_eq!(price().nanos(&counts(100, 60, 7)), 40 * 1_250 + 60 * 125 + 7 * 10_000);
        let odd = Price { input: 1, cached_input: 1, output: 1, ..price() };
        assert_eq!(odd.nanos(&counts(1, 0, 1)), 1, "not 2");
        assert_eq!(odd.nanos(&counts(0, 0, 0)), 0);
        assert_eq!(price().nanos(&counts(5, 9, 0)), 9 * 125, "more cached than there is");
        assert_eq!(price().nanos(&counts(u64::MAX, 0, u64::MAX)), u64::MAX);
    }

    #[test]
    fn what_is_affordable_costs_no_more_than_that_and_one_token_more_does() {
        let price = price();
        for (nanos, input) in [(0, 0), (9_999, 0), (10_000, 0), (1_000_000, 17), (3_333_333, 1_000)]
        {
            let output = price.affordable_output(nanos, input).unwrap();
            assert!(price.most_nanos(input, output) <= nanos);
            assert!(price.most_nanos(input, output + 1) > nanos);
        }
        assert_eq!(price.affordable_output(1_249, 1), None);
        let free = Price { output: 0, ..price };
        assert_eq!(free.affordable_output(1_250, 1), Some(u64::MAX));
    }

    #[test]
    fn the_first_price_that_fits_counts_and_an_unknown_model_has_none() {
        let table =
            vec![Price { models: "gpt-5-mini".parse().unwrap(), input: 7, ..price() }, price()];
        let prices = Prices { currency: Currency::USD, table };
        assert_eq!(prices.of("gpt-5-mini").unwrap().input, 7);
        assert_eq!(prices.of("gpt-5").unwrap().input, 1_250_000_000);
        assert_eq!(prices.of("o3"), None);
        assert_eq!(prices.money(5).to_string(), "0.000000005 USD");
    }
}
