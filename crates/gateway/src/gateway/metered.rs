//! The way of an LLM call: reserved, passed on, metered, settled.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::HeaderValue;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use tidegate::policy::{CostRule, Reason, Refusal, Rule, Standing, Verdict};
use tidegate_tower::HeadersOf;

use super::body_room::Taken;
use super::{Caller, Denied, Gateway, Known, with_fields};
use crate::answer::{self, Dialect, LimitFields};
use crate::llm::{Api, Bill, LlmRequest, Meter, UseTokenizer};
use crate::metrics::outside;
use crate::prices::{Quote, Unpriced};
use crate::tasks::Drain;
use crate::upstream::UpstreamError;

/// How often a call is asked for again with a lower ceiling, when others were faster.
const MOST_TRIES: usize = 8;

/// A text longer than this is counted on a thread that no other call waits for.
const MAX_COUNTED_HERE: usize = 64 << 10;

/// A body longer than this is taken apart there, too.
const MAX_PARSED_HERE: usize = 256 << 10;

impl Gateway {
    /// An LLM call: its body says what to reserve, its answer what to settle.
    pub(super) async fn handle_llm(
        &self,
        mut parts: Parts,
        body: Body,
        caller: &Caller,
        (api, model): (Api, Option<String>),
    ) -> Response<Body> {
        let dialect = api.maker().dialect();
        if let Err(denied) = self.foresee(&parts, caller, dialect).await {
            return *denied;
        }
        let mut room = self.bodies.begin(caller.client(), self.llm.max_bodies as u64);
        let read = self.read_body(body, &mut room).await;
        let parsed = match read {
            Ok(body) => self.parse_request(api, model, body).await,
            Err(unfit) => Err(unfit),
        };
        let request = match parsed {
            Ok(request) => request,
            // It is no fault of the call's, so it does not count.
            Err(Unfit::NoRoom) => return answer::no_room(dialect),
            // It is counted as a request, though it is passed on to nobody.
            Err(Unfit::Bad(status, message)) => {
                let problem = answer::bad_request(status, &message, dialect);
                return self.count_and_answer(&parts, caller, problem, dialect).await;
            }
        };
        let Reserved { fields, bill, body, hides_usage } =
            match self.reserve(&parts, caller, request).await {
                Ok(reserved) => reserved,
                Err(denied) => return *denied,
            };
        parts.headers.insert(CONTENT_LENGTH, body.len().into());
        // The usage must be readable as it passes. Without the field, a server may choose.
        parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let outgoing = Request::from_parts(parts, Body::from(room.keep_with(body)));
        let (providers, ip) = (self.providers.clone(), caller.ip);
        let sending = async move { providers.send(outgoing, ip, api.maker()).await };
        let sending: Sending = Box::pin(sending);
        let drain = Drain::new(self.llm.drain, &self.tasks);
        let in_flight = InFlight { sending: Some(sending), bill, hides_usage, drain };
        let answer = outside(in_flight).await;
        with_fields(fields, answer.unwrap_or_else(|error| answer::call_failed(error, dialect)))
    }

    /// A body is read only for a caller who could be allowed, as far as that is known without it.
    async fn foresee(
        &self,
        parts: &Parts,
        caller: &Caller,
        dialect: Dialect,
    ) -> Result<(), Denied> {
        let headers = HeadersOf(&parts.headers);
        // Every call has some input.
        let least = Known { llm_tokens: Some(1), ..self.free() };
        let peeking = self.policy.peek_async(&least.add_to(caller.call(parts, &headers)));
        match outside(peeking).await {
            Verdict::Deny(refusal)
                if matches!(refusal.reason(), Reason::Limit(_) | Reason::Unavailable { .. }) =>
            {
                Err(Box::new(self.deny(&refusal, parts, caller, None, dialect)))
            }
            _ => Ok(()),
        }
    }

    /// Reserves what a call can use at most, and lowers that where rules want it.
    async fn reserve(
        &self,
        parts: &Parts,
        caller: &Caller,
        request: LlmRequest,
    ) -> Result<Reserved, Denied> {
        let api = request.api();
        let mut reserving = Reserving::new(self, request, (parts, caller));
        let (llm_tokens, nanos) = reserving.needed();
        caller.span.asks(api, reserving.request.model(), llm_tokens, nanos);
        let grant = match reserving.reserve().await {
            Verdict::Allow(grant) => grant,
            Verdict::Deny(refusal) => {
                let (unpriced, dialect) = (reserving.quote.as_ref().err(), api.maker().dialect());
                return Err(Box::new(self.deny(&refusal, parts, caller, unpriced, dialect)));
            }
        };
        let (llm_tokens, nanos) = reserving.needed();
        let Reserving { request, quote, ceiling, .. } = reserving;
        let counting = Counting::of(grant.standings());
        let fields = LimitFields::of(grant.standings(), api.maker().dialect());
        let bill = grant.into_reservation().map(|reservation| {
            let reserved = (request.input(), request.output(ceiling));
            caller.span.holds(llm_tokens, nanos, reserved.1);
            let may_owe = counting.may_owe;
            Bill::new(reservation, (api, quote.ok()), reserved, may_owe, request.unseen())
                .traced(caller.span.clone())
        });
        // A rule whose server does not answer may let a call pass without counting it.
        let is_counted = counting.is_on && bill.is_some();
        let hides_usage = is_counted && request.hides_usage();
        let body = match is_counted {
            false => request.into_body(),
            true if counting.is_enforced => request.body(ceiling),
            true => request.body_without_ceiling(),
        };
        Ok(Reserved { fields, bill, body, hides_usage })
    }

    /// Reads an LLM call's body, as far as there is room for it.
    async fn read_body(&self, mut body: Body, room: &mut Taken) -> Result<Bytes, Unfit> {
        let most = self.llm.max_body;
        let too_large = || {
            let message = format!("The body is too large; send at most {most} bytes.");
            Unfit::Bad(StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        let announced = body.size_hint().lower();
        let mut unfit = match announced {
            _ if announced > most as u64 => Some(too_large()),
            _ if !room.fits(announced.max(1)) => Some(Unfit::NoRoom),
            _ => None,
        };
        let reading = async {
            // Most come in one piece, which need not be copied.
            let (mut first, mut rest, mut length) = (Bytes::new(), BytesMut::new(), 0);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| {
                    Unfit::Bad(StatusCode::BAD_REQUEST, "The body broke off.".to_owned())
                })?;
                let Ok(part) = frame.into_data() else { continue };
                length += part.len();
                if length > most {
                    return Err(too_large());
                }
                if unfit.is_none() && !room.grow(part.len() as u64) {
                    (first, rest, unfit) = (Bytes::new(), BytesMut::new(), Some(Unfit::NoRoom));
                    room.clear();
                }
                // What is not kept is taken all the same: a client that is still sending when the connection
                // closes does not see the answer.
                if unfit.is_some() {
                    continue;
                }
                if first.is_empty() && rest.is_empty() {
                    first = part;
                } else {
                    rest.extend_from_slice(&std::mem::take(&mut first));
                    rest.extend_from_slice(&part);
                }
            }
            match unfit {
                Some(unfit) => Err(unfit),
                None if rest.is_empty() => Ok(first),
                None => Ok(rest.freeze()),
            }
        };
        outside(tokio::time::timeout(self.patience.body, reading)).await.unwrap_or_else(|_| {
            let message = "The body took too long to arrive.".to_owned();
            Err(Unfit::Bad(StatusCode::REQUEST_TIMEOUT, message))
        })
    }

    async fn parse_request(
        &self,
        api: Api,
        model: Option<String>,
        body: Bytes,
    ) -> Result<LlmRequest, Unfit> {
        let bad = |message: String| Err(Unfit::Bad(StatusCode::BAD_REQUEST, message));
        let parsed = if body.len() > MAX_PARSED_HERE {
            let settings = self.llm.clone();
            let parsing = move || LlmRequest::parse(api, model, &body, &settings);
            tokio::task::spawn_blocking(parsing).await
        } else {
            Ok(LlmRequest::parse(api, model, &body, &self.llm))
        };
        match parsed {
            Err(failed) => {
                tracing::error!("a body could not be taken apart: {failed}");
                bad("The body could not be read.".to_owned())
            }
            Ok(Err(error)) => bad(error.to_string()),
            // They would be asked about the first, and the call could be another's.
            Ok(Ok(request)) if self.looks_at_model && request.models().len() > 1 => {
                bad("Rules here depend on the model, so a request may name only one.".to_owned())
            }
            Ok(Ok(request)) => Ok(request),
        }
    }
}

/// Why a body makes no call.
enum Unfit {
    /// There is no memory for it now.
    NoRoom,
    /// It is not as it should be.
    Bad(StatusCode, String),
}

/// What of a call the rules that let it pass count.
struct Counting {
    /// Whether one counts LLM tokens or money, so that its usage must be told.
    is_on: bool,
    /// Whether one of those is more than a trial, so that the call must keep its ceiling.
    is_enforced: bool,
    /// Whether it may go on when it has used what was reserved.
    may_owe: bool,
}

impl Counting {
    fn of(standings: &[Standing<'_>]) -> Self {
        let rules = || standings.iter().map(Standing::rule);
        let counts = |rule: &&Rule| !matches!(rule.cost(), CostRule::Fixed(_));
        Self {
            is_on: rules().any(|rule| counts(&rule)),
            is_enforced: rules().filter(counts).any(|rule| !rule.is_dry_run()),
            may_owe: rules().all(|rule| rule.allows_debt() || rule.is_dry_run()),
        }
    }
}

/// A call that has reserved what it can use at most.
struct Reserved {
    fields: LimitFields,
    bill: Option<Bill>,
    /// The body to pass on.
    body: Bytes,
    hides_usage: bool,
}

/// Asks the policy for what a call can use at most, or for less where rules want that.
struct Reserving<'g, 'c> {
    gateway: &'g Gateway,
    request: LlmRequest,
    quote: Result<Quote, Unpriced>,
    parts: &'c Parts,
    caller: &'c Caller,
    ceiling: u64,
}

impl<'g, 'c> Reserving<'g, 'c> {
    fn new(
        gateway: &'g Gateway,
        request: LlmRequest,
        (parts, caller): (&'c Parts, &'c Caller),
    ) -> Self {
        let quote = gateway.prices.quote(request.models(), request.terms());
        let ceiling = request.ceiling();
        Self { gateway, request, quote, parts, caller, ceiling }
    }

    /// One decision over all layers, all or nothing. Where a budget has less left than the call asks for,
    /// what is asked is lowered and asked again: first the input is counted instead of bounded, then the
    /// ceiling goes down, if all rules that are short want that.
    async fn reserve(&mut self) -> Verdict<'g> {
        if self.gateway.llm.tokenizer == UseTokenizer::Always {
            self.count_input(u64::MAX).await;
        }
        let mut tries = 0;
        loop {
            let verdict = self.decide().await;
            tries += 1;
            let Verdict::Deny(refusal) = &verdict else { return verdict };
            if tries > MOST_TRIES || !matches!(refusal.reason(), Reason::Limit(_)) {
                return verdict;
            }
            if self.gateway.llm.tokenizer != UseTokenizer::Never
                && let Some(most) = self.most_counted(refusal)
                && self.count_input(most).await
            {
                continue;
            }
            match self.lower_ceiling(refusal) {
                Some(lower) if lower < self.ceiling => self.ceiling = lower,
                _ => return verdict,
            }
        }
    }

    /// The LLM tokens that the call can use at most, and the nano-units that it can cost.
    fn needed(&self) -> (u64, Option<u64>) {
        let (input, output) = (self.request.input(), self.request.output(self.ceiling));
        let nanos = self.quote.as_ref().ok().map(|quote| quote.most_nanos(input, output));
        (input.saturating_add(output), nanos)
    }

    async fn decide(&self) -> Verdict<'g> {
        let (llm_tokens, nanos) = self.needed();
        let gateway = self.gateway;
        let known = Known {
            llm_tokens: Some(llm_tokens).filter(|_| self.request.terms().unbounded.is_none()),
            money: nanos.map(|nanos| gateway.prices.money(nanos)),
            model: self.request.model(),
        };
        gateway.ask(known, self.parts, self.caller).await
    }

    /// Counts the input with the model's tokenizer, where there is one and it has not been done, unless there are
    /// more LLM tokens than `most`; whether that is less than it was.
    async fn count_input(&mut self, most: u64) -> bool {
        let Some(text) = self.request.uncounted() else { return false };
        let counted = if text.bytes() > MAX_COUNTED_HERE {
            tokio::task::spawn_blocking(move || text.count(most)).await.unwrap_or_default()
        } else {
            text.count(most)
        };
        self.request.take_count(counted)
    }

    /// The most LLM tokens that the text may be counted as for what rules have left, with the ceiling as low as they
    /// let it be: beyond that, counting is for nothing. `None` where it is for nothing at all.
    fn most_counted(&self, refusal: &Refusal<'g>) -> Option<u64> {
        let shares: Vec<_> = self.shares(refusal).collect();
        let fits = |counted: u64| {
            may_fit(shares.iter().map(|(rule, left, needed)| {
                let (input, output) = self.request.least(counted, self.ceiling, rule.is_lowering());
                (*left, *needed, self.share(rule, input, output).unwrap_or(0))
            }))
        };
        last_that_fits(self.request.bounded_text(), fits)
    }

    /// What so many tokens need of a rule that counts them, or money, in its own units.
    fn share(&self, rule: &Rule, input: u64, output: u64) -> Option<u64> {
        match rule.cost() {
            CostRule::Fixed(_) => None,
            CostRule::LlmTokens => Some(input.saturating_add(output)),
            CostRule::Money(_) => Some(self.quote.as_ref().ok()?.most_nanos(input, output)),
        }
    }

    /// What rules that count tokens or money have left, and what is needed of it, in their own units.
    fn shares<'r>(
        &self,
        refusal: &'r Refusal<'g>,
    ) -> impl Iterator<Item = (&'g Rule, u64, u64)> + use<'r, 'g, '_, 'c> {
        let (input, output) = (self.request.input(), self.request.output(self.ceiling));
        refusal.standings().iter().filter_map(move |standing| {
            let rule = standing.rule();
            let needed = self.share(rule, input, output)?;
            (!rule.is_dry_run()).then_some((rule, standing.remaining(), needed))
        })
    }

    /// The highest ceiling that what is left is enough for, if all rules that are short want it lowered.
    fn lower_ceiling(&self, refusal: &Refusal<'g>) -> Option<u64> {
        let input = self.request.input();
        let mut output = u64::MAX;
        for (rule, left, _) in self.shares(refusal).filter(|(_, left, needed)| needed > left) {
            if !rule.is_lowering() {
                return None;
            }
            let affordable = match rule.cost() {
                CostRule::Money(_) => self.quote.as_ref().ok()?.affordable_output(left, input)?,
                _ => left.checked_sub(input)?,
            };
            output = output.min(affordable);
        }
        self.request.ceiling_within(output)
    }
}

/// Whether some rule has less left than is needed, and each that has is enough for the least.
fn may_fit(shares: impl IntoIterator<Item = (u64, u64, u64)>) -> bool {
    let is_short = |(left, needed, _): &(u64, u64, u64)| needed > left;
    let mut short = shares.into_iter().filter(is_short).peekable();
    short.peek().is_some() && short.all(|(left, _, least)| least <= left)
}

/// The last of the numbers up to `most` that fits, where all before one that fits do.
fn last_that_fits(most: u64, fits: impl Fn(u64) -> bool) -> Option<u64> {
    if !fits(0) {
        return None;
    }
    let (mut last, mut end) = (0, most);
    while last < end {
        let middle = end - (end - last) / 2;
        if fits(middle) {
            last = middle;
        } else {
            end = middle - 1;
        }
    }
    Some(last)
}

type Sending = Pin<Box<dyn Future<Output = Result<Response<Body>, UpstreamError>> + Send>>;

/// A call that the upstream is at work on.
///
/// When its client goes before the answer begins, the answer is waited for and read all the same, for
/// a while: it is paid for, and only it says how much.
struct InFlight {
    sending: Option<Sending>,
    bill: Option<Bill>,
    hides_usage: bool,
    drain: Drain,
}

impl Future for InFlight {
    type Output = Result<Response<Body>, UpstreamError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(sending) = &mut self.sending else { return Poll::Pending };
        let answer = ready!(sending.as_mut().poll(context));
        self.sending = None;
        let bill = self.bill.take();
        let drain = std::mem::take(&mut self.drain);
        Poll::Ready(meter(answer, bill, self.hides_usage, drain))
    }
}

/// Watches over an answer, or ends the bill of one that has not begun.
fn meter(
    answer: Result<Response<Body>, UpstreamError>,
    bill: Option<Bill>,
    hides_usage: bool,
    drain: Drain,
) -> Result<Response<Body>, UpstreamError> {
    let Some(bill) = bill else { return answer };
    match answer {
        Ok(response) => Ok(Meter::attach(response, bill, hides_usage, drain)),
        Err(error) => {
            match error {
                // It has seen nothing, or not all.
                UpstreamError::NotSent | UpstreamError::Body(_) => bill.cancel(),
                // It is at work still, or has done its work, for all that is known here.
                UpstreamError::Broken => bill.keep("the upstream broke off"),
                UpstreamError::TimedOut => bill.keep("the upstream took too long"),
            }
            Err(error)
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let (Some(sending), Some(bill)) = (self.sending.take(), self.bill.take()) else { return };
        // What is reserved stays charged when this takes too long.
        std::mem::take(&mut self.drain).read_on(async move {
            if let Ok(response) = meter(sending.await, Some(bill), false, Drain::default()) {
                Meter::read_to_end(response).await;
            }
        });
    }
}

impl Gateway {
    /// Counts a request that is passed on to nobody, and gives it this answer.
    pub(super) async fn count_and_answer(
        &self,
        parts: &Parts,
        caller: &Caller,
        answer: Response<Body>,
        dialect: Dialect,
    ) -> Response<Body> {
        match self.decide_free(parts, caller, dialect).await {
            Err(denied) => *denied,
            Ok(allowed) => {
                if let Some(reservation) = allowed.reservation {
                    reservation.cancel();
                }
                with_fields(allowed.fields, answer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_not_counted_where_no_count_of_it_would_fit() {
        for (shares, is_counted) in [
            // What is left, what is needed, and what is at least.
            (vec![(0, 800_400, 432)], false),
            (vec![(431, 800_400, 432)], false),
            (vec![(432, 800_400, 432)], true),
            (vec![(900_000, 800_400, 432)], false),
            (vec![(5_000, 800_400, 432), (0, 9, 9)], false),
            (vec![(5_000, 800_400, 432), (100, 9, 9)], true),
            (vec![], false),
        ] {
            assert_eq!(may_fit(shares.clone()), is_counted, "{shares:?}");
        }
    }
    #[test]
    fn the_most_that_fits_is_found_whatever_it_is() {
        for most in [0, 1, 2, 3, 7, 8, 4 << 20] {
            for last in [0, 1, 2, 6, 7, 1_000_003] {
                let found = last_that_fits(most, |number| number <= last);
                assert_eq!(found, Some(last.min(most)));
            }
            assert_eq!(last_that_fits(most, |_| false), None);
        }
    }
}
