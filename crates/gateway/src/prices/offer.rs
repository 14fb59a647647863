//! [`Offer`]: the price of one model that may serve a call.

use std::sync::Arc;

use super::{ONE, PER_TOKENS, Price, Prices, Rates, Unpriced, Used};
use crate::llm::{Terms, Tiers, Tool};

/// The price of one model that may serve a call, on the terms that the call asks for.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    /// In the price table.
    pub(super) place: usize,
    pub(super) price: Arc<Price>,
    /// The dearest tier that may serve it, in billionths.
    factor: u64,
    /// What is paid apart from tokens at most, in nano-units.
    fees: u64,
}

impl Offer {
    /// The offer of a model; `Err` where nobody here knows what it costs on these terms.
    pub(super) fn of(prices: &Prices, model: &str, terms: &Terms) -> Result<Self, Unpriced> {
        let model_name = || model.to_owned();
        let place = prices.table.iter().position(|price| price.models.applies_to(model));
        let place = place.ok_or_else(|| Unpriced::Model(model_name()))?;
        let price = &prices.table[place];
        if let Some(kind) = price.rates.missing(terms) {
            return Err(Unpriced::Kind { kind, model: model_name() });
        }
        let factor = price
            .factor(&terms.tiers)
            .map_err(|tier| Unpriced::Tier { tier: tier.to_owned(), model: model_name() })?;
        let mut fees = price.call;
        for tool in &terms.tools {
            let fee = price
                .tool(&tool.name)
                .ok_or_else(|| Unpriced::Tool { tool: tool.name.clone(), model: model_name() })?;
            let most = tool.most_uses.or((fee == 0).then_some(0));
            let most = most.ok_or_else(|| Unpriced::Unbounded { tool: tool.name.clone() })?;
            fees = fees.saturating_add(fee.saturating_mul(most));
        }
        // A tier that has no room may leave a call to the usual one.
        let factor = u64::try_from(ONE).map_or(factor, |one| factor.max(one));
        Ok(Self { place, price: price.clone(), factor, fees })
    }

    /// The rates for so much input, as a bound: the dearer of both where it may be long.
    fn bounds(&self, terms: &Terms, input: u64) -> (u64, u64) {
        let of = |rates: &Rates| (rates.dearest_input(terms), rates.dearest_output(terms));
        let (usual_input, usual_output) = of(&self.price.rates);
        match &self.price.long_context {
            Some((above, rates)) if input > *above => {
                let (long_input, long_output) = of(rates);
                (usual_input.max(long_input), usual_output.max(long_output))
            }
            _ => (usual_input, usual_output),
        }
    }

    pub(super) fn most_nanos(&self, terms: &Terms, input: u64, output: u64) -> u64 {
        let (input_rate, output_rate) = self.bounds(terms, input);
        let sum = (u128::from(input) * u128::from(input_rate))
            .saturating_add(u128::from(output) * u128::from(output_rate));
        paid(sum, self.factor, self.fees)
    }

    pub(super) fn affordable_output(&self, terms: &Terms, nanos: u64, input: u64) -> Option<u64> {
        let (input_rate, output_rate) = self.bounds(terms, input);
        let nanos = u128::from(nanos.checked_sub(self.fees)?);
        let all = (nanos * PER_TOKENS * ONE).checked_div(u128::from(self.factor))?;
        let rest = all.checked_sub(u128::from(input) * u128::from(input_rate))?;
        let output = rest.checked_div(u128::from(output_rate)).unwrap_or(u128::MAX);
        Some(u64::try_from(output).unwrap_or(u64::MAX))
    }

    pub(super) fn nanos(&self, terms: &Terms, used: Used<'_>) -> u64 {
        let Used { counts, is_input_told, is_output_told, is_whole, served } = used;
        let (input_bound, output_bound) = self.bounds(terms, counts.input);
        let rates = match &self.price.long_context {
            Some((above, rates)) if counts.input > *above => rates,
            _ => &self.price.rates,
        };
        let input = match is_input_told {
            true => rates.input(terms, counts),
            false => u128::from(counts.input) * u128::from(input_bound),
        };
        let output = match is_output_told {
            true => rates.output(counts),
            false => u128::from(counts.output) * u128::from(output_bound),
        };
        let fee = |tool: &Tool| {
            let told = served.uses(&tool.name).filter(|_| is_whole);
            let uses = told.or(tool.most_uses).unwrap_or(0);
            self.price.tool(&tool.name).unwrap_or(0).saturating_mul(uses)
        };
        let fees = terms.tools.iter().map(fee).fold(self.price.call, u64::saturating_add);
        paid(input.saturating_add(output), self.told_factor(terms, &served.tiers), fees)
    }

    /// What the tier costs that has served a call, in billionths.
    fn told_factor(&self, terms: &Terms, told: &Tiers) -> u64 {
        if *told == Tiers::default() {
            return self.factor;
        }
        self.price.factor(&terms.tiers.then(told)).unwrap_or_else(|tier| {
            let models = self.price.models.to_string();
            tracing::warn!(models, tier, "an answer was served by a tier that has no price here");
            self.price.dearest_factor().max(self.factor)
        })
    }
}

/// What so much costs, at so many times the price, with what is paid apart.
fn paid(sum: u128, factor: u64, fees: u64) -> u64 {
    let nanos = sum.saturating_mul(u128::from(factor)).div_ceil(PER_TOKENS * ONE);
    u64::try_from(nanos).unwrap_or(u64::MAX).saturating_add(fees)
}
