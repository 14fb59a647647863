//! `[[price]]`: what calls of some models cost.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tidegate::policy::{CostRule, FileError, Policy, Source, Spanned};
use tidegate::{Currency, Money};

use crate::prices::{Price, Prices, Rates};

/// A number as it is written: a float would not be what people mean.
type Written = Spanned<IgnoredAny>;

/// What a million tokens of some models cost, and what is paid apart.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceSpec {
    model: Spanned<String>,
    input: Written,
    cached_input: Option<Written>,
    cache_write: Option<Written>,
    cache_write_1h: Option<Written>,
    audio_input: Option<Written>,
    output: Written,
    audio_output: Option<Written>,
    image_output: Option<Written>,
    long_context: Option<LongContextSpec>,
    #[serde(default)]
    service_tiers: BTreeMap<String, Written>,
    #[serde(default)]
    tools: BTreeMap<String, Written>,
    call: Option<Written>,
}

/// How many times the price input and output cost where the input is long.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongContextSpec {
    above: u64,
    input_factor: Written,
    output_factor: Written,
}

/// The prices, in the currency of the rules that count money.
pub(super) fn prices(
    specs: &[PriceSpec],
    policy: &Policy,
    source: &Source<'_>,
) -> Result<Prices, FileError> {
    let mut currencies = policy.rules().iter().filter_map(|rule| match rule.cost() {
        CostRule::Money(currency) => Some((rule.name(), currency)),
        _ => None,
    });
    let (first, currency) = currencies.next().unwrap_or(("", Currency::USD));
    if let Some((other, theirs)) = currencies.find(|(_, theirs)| *theirs != currency) {
        let message = format!(
            "`{first}` counts {currency} and `{other}` counts {theirs}; prices have one currency, so use one"
        );
        return Err(source.error(0..0, "rule", &message));
    }
    let table = specs
        .iter()
        .map(|spec| spec.build(currency, source).map(Arc::new))
        .collect::<Result<_, _>>()?;
    Ok(Prices { currency, table })
}

impl PriceSpec {
    fn build(&self, currency: Currency, source: &Source<'_>) -> Result<Price, FileError> {
        let number = |value: &Written, name: &str, meaning: &str| {
            let text = source.text_at(value.span());
            let text = text.trim_matches('"');
            Money::parse_nanos(text).map_err(|_| {
                let message =
                    format!("`{text}` is not {meaning}, with at most nine decimal places");
                let field = format!("price `{}`: {name}", self.model.get_ref());
                source.error(value.span(), &field, &message)
            })
        };
        let nanos = |value: &Written, name: &str| {
            number(value, name, "a price; give what a million tokens cost, such as 1.25")
        };
        let maybe = |value: &Option<Written>, name: &str| {
            value.as_ref().map(|value| nanos(value, name)).transpose()
        };
        let factor = |value: &Written, name: &str| {
            number(value, name, "a factor; give how many times the price it costs, such as 2.0")
        };
        let fee = |value: &Written, name: &str| {
            number(value, name, "a price; give what one costs, such as 0.01")
        };
        let models = self.model.get_ref().parse();
        let models =
            models.map_err(|error| source.error(self.model.span(), "price.model", &error))?;
        let input = nanos(&self.input, "input")?;
        let rates = Rates {
            input,
            cached_input: maybe(&self.cached_input, "cached_input")?.unwrap_or(input),
            cache_write: maybe(&self.cache_write, "cache_write")?,
            cache_write_1h: maybe(&self.cache_write_1h, "cache_write_1h")?,
            audio_input: maybe(&self.audio_input, "audio_input")?,
            output: nanos(&self.output, "output")?,
            audio_output: maybe(&self.audio_output, "audio_output")?,
            image_output: maybe(&self.image_output, "image_output")?,
        };
        let long_context = |spec: &LongContextSpec| {
            let input = factor(&spec.input_factor, "long_context.input_factor")?;
            let output = factor(&spec.output_factor, "long_context.output_factor")?;
            Ok::<_, FileError>((spec.above, rates.times(input, output)))
        };
        let named = |(name, value): (&String, &Written), section: &str, is_factor| {
            let field = format!("{section}.{name}");
            let number = if is_factor { factor(value, &field) } else { fee(value, &field) };
            Ok::<_, FileError>((name.to_lowercase(), number?))
        };
        Ok(Price {
            models,
            currency,
            long_context: self.long_context.as_ref().map(long_context).transpose()?,
            rates,
            service_tiers: self
                .service_tiers
                .iter()
                .map(|tier| named(tier, "service_tiers", true))
                .collect::<Result<_, _>>()?,
            tools: self
                .tools
                .iter()
                .map(|tool| named(tool, "tools", false))
                .collect::<Result<_, _>>()?,
            call: self.call.as_ref().map_or(Ok(0), |call| fee(call, "call"))?,
        })
    }
}
