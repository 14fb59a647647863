//! [`Bill`]: what an LLM call has reserved, what its answer has told, and how the two are settled.

use serde::Deserialize;
use serde::de::IgnoredAny;
use tidegate::policy::{Held, Usage};
use tidegate::{Money, Reservation};

use super::usage::Told;
use super::{Api, Served, TokenCounts, Unseen, output, sse};
use crate::metrics::METRICS;
use crate::prices::{Quote, Used};
use crate::traces::CallSpan;

/// What an LLM call has reserved, and what is known by now of what it has used.
///
/// It is settled once: with the usage that the provider tells, as far as it does; else with what was
/// reserved for the input and what has passed of the output. Where an answer breaks off or is given up before
/// any output has passed, or more may be billed than passes, what was reserved stays charged. All is given back
/// only where nothing was sent, or the provider says that it has failed. A bill that is dropped keeps what was
/// reserved.
#[derive(Debug)]
pub(crate) struct Bill {
    pub(crate) reservation: Reservation<Held>,
    pub(crate) api: Api,
    pub(crate) quote: Option<Quote>,
    /// What was reserved for the input.
    pub(crate) input: u64,
    /// What was reserved for the output.
    pub(crate) output: u64,
    /// Whether the answer may go on when it has used what was reserved.
    pub(crate) may_owe: bool,
    /// What of the output may not be seen to pass.
    unseen: Unseen,
    told: Told,
    served: Served,
    /// Bytes of output that have passed.
    seen_bytes: u64,
    /// Bytes of events that nobody can read.
    unread_bytes: u64,
    /// Whether an event was too long to be read, so that nobody knows what is in it.
    has_skipped: bool,
    has_failed: bool,
    span: CallSpan,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As it should.
    Whole,
    /// The upstream broke off.
    Broken,
    /// It was not wanted any more, or had to be cut off.
    Left,
}

/// Fewer bytes of text than nearly every model makes of a token on average.
const BYTES_PER_TOKEN: u64 = 3;

/// More bytes of text than any model makes of a token on average.
const MOST_BYTES_PER_TOKEN: u64 = 8;

impl Bill {
    pub(crate) fn new(
        reservation: Reservation<Held>,
        (api, quote): (Api, Option<Quote>),
        (input, output): (u64, u64),
        may_owe: bool,
        unseen: Unseen,
    ) -> Self {
        Self {
            reservation,
            api,
            quote,
            input,
            output,
            may_owe,
            unseen,
            told: Told::default(),
            served: Served::default(),
            seen_bytes: 0,
            unread_bytes: 0,
            has_skipped: false,
            has_failed: false,
            span: CallSpan::default(),
        }
    }

    /// The same bill, whose end this span is told of.
    pub(crate) fn traced(self, span: CallSpan) -> Self {
        Self { span, ..self }
    }

    /// Gives everything back.
    pub(crate) fn cancel(self) {
        self.span.gave_back();
        self.reservation.cancel();
    }

    /// Leaves charged what was reserved, since nobody knows what was used.
    pub(crate) fn keep(self, reason: &str) {
        tracing::warn!(
            api = self.api.name(),
            "what was reserved for a call stays charged: {reason}, and may have done it"
        );
    }

    /// Notes the service tier that the head of an answer tells.
    pub(super) fn read_tier(&mut self, tier: &str) {
        self.served.by_tier(tier);
    }

    /// Reads what an answer says of its price besides tokens, where that matters.
    fn read_served(&mut self, json: &[u8]) {
        if self.quote.as_ref().is_some_and(Quote::is_open) {
            self.served.read(json);
        }
    }

    /// Reads what is in an event of a stream, of so many bytes; whether it holds nothing but usage.
    pub(super) fn read_content(&mut self, content: &sse::Content<'_>, bytes: usize) -> bool {
        match content {
            sse::Content::Data(data) => self.read_event(data),
            sse::Content::Nothing => false,
            sse::Content::Unreadable => {
                self.unread_bytes = self.unread_bytes.saturating_add(bytes as u64);
                false
            }
        }
    }

    fn read_event(&mut self, data: &[u8]) -> bool {
        self.read_served(data);
        let told = Told::read(self.api, data);
        if let Some(told) = told {
            self.told = self.told.then(told);
        }
        match output::text_bytes(data) {
            Some(bytes) => self.seen_bytes = self.seen_bytes.saturating_add(bytes),
            None => self.unread_bytes = self.unread_bytes.saturating_add(data.len() as u64),
        }
        self.has_failed |= is_error(data);
        told.is_some_and(|told| told.alone)
    }

    /// Notes that an event has passed which was too long to be read.
    pub(super) const fn skip_event(&mut self) {
        self.has_skipped = true;
    }

    /// Reads a whole answer.
    pub(super) fn read_whole(&mut self, json: &[u8]) {
        self.read_served(json);
        self.told = Told::read(self.api, json).unwrap_or_default();
    }

    /// Whether more was used than reserved, as far as that is seen.
    pub(super) fn is_overrun(&self) -> bool {
        let told = self
            .told
            .counts()
            .is_some_and(|counts| counts.total() > self.input.saturating_add(self.output));
        told || self.seen_bytes / MOST_BYTES_PER_TOKEN > self.output
    }

    /// Books what a stream has used.
    pub(super) fn settle_stream(self, end: End) {
        let told = self.told.counts().map_or(0, |counts| counts.output);
        let passed_bytes = self.seen_bytes.saturating_add(self.unread_bytes);
        if self.has_failed && passed_bytes == 0 && told == 0 {
            // It says so itself, and tells of no output; the input of an error is free.
            return self.cancel();
        }
        let passes_all = self.unseen == Unseen::Nothing && !self.has_skipped;
        // Before any output, only an answer that is whole or says that it has failed is known to have had none.
        let is_known = passes_all && (self.has_failed || end == End::Whole || passed_bytes > 0);
        let seen = passed_bytes.div_ceil(BYTES_PER_TOKEN).min(self.output);
        let is_whole = end == End::Whole && !self.has_failed;
        let (counts, is_output_told) = match self.told.counts() {
            Some(counts) if is_whole || counts.output >= seen => (counts, true),
            Some(counts) => (TokenCounts { output: seen, ..counts }, false),
            None => {
                let output = if is_known { seen } else { self.output };
                let output = output.max(self.seen_bytes / MOST_BYTES_PER_TOKEN);
                let bound = TokenCounts { input: self.input, ..TokenCounts::default() };
                (TokenCounts { output, ..self.told.input().unwrap_or(bound) }, false)
            }
        };
        self.book(&counts, is_output_told, is_whole);
    }

    /// Books what a whole answer has used; without its usage, what was reserved.
    pub(super) fn settle_whole(self) {
        match self.told.counts() {
            Some(counts) => self.book(&counts, true, true),
            None => tracing::warn!(
                api = self.api.name(),
                "an answer told no usage; what was reserved stays charged"
            ),
        }
    }

    fn book(self, counts: &TokenCounts, is_output_told: bool, is_whole: bool) {
        let is_input_told = self.told.input().is_some();
        let served = &self.served;
        let used = Used { counts, is_input_told, is_output_told, is_whole, served };
        let nanos = self.quote.as_ref().map_or(0, |quote| quote.nanos(used));
        let uncached = counts.input.saturating_sub(counts.cached_input);
        METRICS.llm_tokens(uncached, counts.cached_input, counts.output);
        let paid = self.quote.as_ref().map(|quote| Money::from_nanos(nanos, quote.currency()));
        if let Some(paid) = paid {
            METRICS.money(paid.currency().code(), nanos);
        }
        self.span.used(counts, paid);
        self.reservation.settle_usage(Usage { llm_tokens: counts.total(), nanos });
    }
}

/// Whether an event says that the answer has failed.
fn is_error(data: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Event<'a> {
        error: Option<IgnoredAny>,
        #[serde(rename = "type", borrow)]
        kind: Option<std::borrow::Cow<'a, str>>,
    }

    // Nearly no event has the word in it.
    let has_word = data.windows(7).any(|window| window == b"\"error\"");
    has_word
        && serde_json::from_slice::<Event<'_>>(data).is_ok_and(|event| {
            let failed = ["error", "response.failed"];
            event.error.is_some() || event.kind.is_some_and(|kind| failed.contains(&&*kind))
        })
}
