//! [`Rates`]: what each kind of token costs.

use crate::llm::{Terms, TokenCounts};

/// What tokens cost, in nano-units per million tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) input: u64,
    /// Of input that the provider had in its cache.
    pub(crate) cached_input: u64,
    /// Of input that the provider puts into its cache, and of what stays there for an hour.
    pub(crate) cache_write: Option<u64>,
    pub(crate) cache_write_1h: Option<u64>,
    /// Of input that is heard.
    pub(crate) audio_input: Option<u64>,
    pub(crate) output: u64,
    /// Of output that is heard, and seen.
    pub(crate) audio_output: Option<u64>,
    pub(crate) image_output: Option<u64>,
}

impl Rates {
    /// What is asked for, and has no rate here: its name in the price table.
    pub(crate) fn missing(&self, terms: &Terms) -> Option<&'static str> {
        let needed = [
            (terms.cache_write, self.cache_write, "cache_write"),
            (terms.long_cache_write, self.cache_write_1h, "cache_write_1h"),
            (terms.audio_input, self.audio_input, "audio_input"),
            (terms.audio_output, self.audio_output, "audio_output"),
            (terms.image_output, self.image_output, "image_output"),
        ];
        let is_missing =
            |(is_asked, rate, _): &&(bool, Option<u64>, _)| *is_asked && rate.is_none();
        needed.iter().find(is_missing).map(|(_, _, name)| *name)
    }

    /// The most that input on these terms may cost.
    pub(super) fn dearest_input(&self, terms: &Terms) -> u64 {
        let asked = [
            self.cache_write,
            self.cache_write_1h.filter(|_| terms.long_cache_write),
            self.audio_input.filter(|_| terms.audio_input),
        ];
        let plain = self.input.max(self.cached_input);
        asked.into_iter().flatten().fold(plain, u64::max)
    }

    /// The most that output on these terms may cost.
    pub(super) fn dearest_output(&self, terms: &Terms) -> u64 {
        let asked = [
            self.audio_output.filter(|_| terms.audio_output),
            self.image_output.filter(|_| terms.image_output),
        ];
        asked.into_iter().flatten().fold(self.output, u64::max)
    }

    /// What input on these terms costs, in nano-units for a million times as much. What is put into a cache stays
    /// there for as long as was asked for at most, where that is not told.
    pub(super) fn input(&self, terms: &Terms, counts: &TokenCounts) -> u128 {
        let (heard, plain) = counts.uncached_input();
        let longest = if terms.long_cache_write { counts.cache_write } else { 0 };
        let of_hours = counts.cache_write_1h.unwrap_or(longest).min(counts.cache_write);
        let cache_write = self.cache_write.unwrap_or(self.input);
        sum([
            (plain, self.input),
            (heard, self.audio_input.unwrap_or(self.input)),
            (counts.cached_input, self.cached_input),
            (counts.cache_write - of_hours, cache_write),
            (of_hours, self.cache_write_1h.unwrap_or(cache_write)),
        ])
    }

    /// What output costs, in the same units.
    pub(super) fn output(&self, counts: &TokenCounts) -> u128 {
        let heard = counts.audio_output.min(counts.output);
        let seen = counts.image_output.min(counts.output - heard);
        sum([
            (counts.output - heard - seen, self.output),
            (heard, self.audio_output.unwrap_or(self.output)),
            (seen, self.image_output.unwrap_or(self.output)),
        ])
    }

    /// The same at so many times the price, in billionths, rounded up.
    pub(crate) fn times(&self, input: u64, output: u64) -> Self {
        let times = |rate: u64, factor: u64| {
            let product = (u128::from(rate) * u128::from(factor)).div_ceil(super::ONE);
            u64::try_from(product).unwrap_or(u64::MAX)
        };
        let maybe = |rate: Option<u64>, factor| rate.map(|rate| times(rate, factor));
        Self {
            input: times(self.input, input),
            cached_input: times(self.cached_input, input),
            cache_write: maybe(self.cache_write, input),
            cache_write_1h: maybe(self.cache_write_1h, input),
            audio_input: maybe(self.audio_input, input),
            output: times(self.output, output),
            audio_output: maybe(self.audio_output, output),
            image_output: maybe(self.image_output, output),
        }
    }
}

fn sum<const N: usize>(parts: [(u64, u64); N]) -> u128 {
    parts.iter().fold(0, |sum: u128, (tokens, rate)| {
        sum.saturating_add(u128::from(*tokens) * u128::from(*rate))
    })
}
