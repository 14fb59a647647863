//! [`reply`]: sends an answer, with the faults that the script wants.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use serde_json::Value;

use super::ledger::Bill;
use super::script::Script;

/// What an API answers.
pub struct Answer {
    /// Input tokens, also those of a cache.
    pub input: u64,
    /// Output tokens of all choices, with what is thought.
    pub output: u64,
    pub form: Form,
    /// Whether it is produced to its end, also when nobody reads it any more.
    pub goes_on: bool,
}

pub enum Form {
    Whole(Value),
    /// Events, in lines of their own.
    Events(Vec<Event>),
    /// The same as one JSON list, which is Gemini's other way.
    List(Vec<Event>),
}

/// One event of a stream.
pub struct Event {
    pub text: String,
    /// The output tokens that have been produced with it.
    pub output: u64,
}

impl Event {
    /// An event of data only.
    pub fn data(json: &Value, output: u64) -> Self {
        Self { text: format!("data: {json}\n\n"), output }
    }

    /// An event with a name: the `type` of its data.
    pub fn named(json: &Value, output: u64) -> Self {
        let name = json["type"].as_str().unwrap();
        Self { text: format!("event: {name}\ndata: {json}\n\n"), output }
    }
}

/// Why the provider does not answer.
pub struct Error(pub String);

/// The words of an answer: one for each token.
pub fn words(tokens: u64) -> impl Iterator<Item = &'static str> {
    const WORDS: [&str; 6] = ["the ", "tide ", "comes ", "in ", "and ", "goes "];
    WORDS.into_iter().cycle().take(tokens as usize)
}

/// Sends an answer, bills what of it is produced, and fails where the script says so.
pub async fn reply(
    answer: Answer,
    script: Script,
    bill: Bill,
    error: fn(StatusCode, &str) -> Value,
) -> Response {
    bill.input(answer.input);
    if answer.goes_on {
        bill.output(answer.output);
    }
    match answer.form {
        Form::Whole(json) => whole(json, answer.output, script, bill).await,
        Form::Events(mut events) => {
            if let Some(at) = script.error {
                let json = error(StatusCode::SERVICE_UNAVAILABLE, "The provider fails, as told.");
                let before = at.checked_sub(1).and_then(|last| events.get(last));
                let output = before.map_or(0, |event| event.output);
                let failed = if json["type"].is_string() { Event::named } else { Event::data };
                events.truncate(at);
                events.push(failed(&json, output));
            }
            if script.garbage {
                let not_json = |event: &mut Event| event.text = "data: {\"choices\": [\n\n".into();
                events.iter_mut().for_each(not_json);
            }
            if script.two_lines {
                // Where it may be: after the first brace.
                let two = |event: &mut Event| event.text = event.text.replacen('{', "{\ndata: ", 1);
                events.iter_mut().for_each(two);
            }
            if script.mixed_ends {
                let ends = ["\r\n\n", "\n\r\n", "\n\r", "\r\r", "\r\n\r\n"];
                for (event, end) in events.iter_mut().zip(ends.into_iter().cycle()) {
                    event.text = event.text.trim_end().to_owned() + end;
                }
            }
            if script.unended {
                events.last_mut().unwrap().text.pop();
            }
            streamed("text/event-stream", events, script, bill)
        }
        Form::List(mut parts) => {
            let last = parts.len() - 1;
            for (index, part) in parts.iter_mut().enumerate() {
                let json = part.text.trim().trim_start_matches("data: ");
                let (before, after) = (if index == 0 { "[" } else { ",\r\n" }, ["", "]"]);
                part.text = format!("{before}{json}{}", after[usize::from(index == last)]);
                if script.garbage {
                    part.text = "[{\"candidates\": [".to_owned();
                }
            }
            streamed("application/json", parts, script, bill)
        }
    }
}

async fn whole(json: Value, output: u64, script: Script, bill: Bill) -> Response {
    if script.stall.is_some() {
        // It thinks for ever; what it has thought by then is not known, so all of it is billed.
        bill.output(output);
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(Duration::from_millis(script.pace)).await;
    bill.output(output);
    bill.over();
    let text = if script.garbage { "{ this is no JSON".to_owned() } else { json.to_string() };
    let response = Response::builder().header("content-type", "application/json");
    let body = match script.cut {
        None => Body::from(text),
        Some(_) => {
            let half = Bytes::from(text[..text.len() / 2].to_owned());
            let parts = [Ok(half), Err(std::io::Error::other("cut"))];
            Body::from_stream(stream::iter(parts).then(|part| async {
                // A part and its end in one write would be dropped together.
                tokio::time::sleep(Duration::from_millis(20)).await;
                part
            }))
        }
    };
    response.body(body).unwrap()
}

fn streamed(kind: &str, events: Vec<Event>, script: Script, bill: Bill) -> Response {
    let mut response = Response::builder().header("content-type", kind);
    if script.compressed {
        response = response.header("content-encoding", "gzip");
    }
    let steps = stream::unfold((events.into_iter().enumerate(), script, bill), step);
    response.body(Body::from_stream(steps)).unwrap()
}

type Steps = (std::iter::Enumerate<std::vec::IntoIter<Event>>, Script, Bill);

/// The next event, unless a fault comes before it.
async fn step((mut events, script, bill): Steps) -> Option<(Result<Bytes, std::io::Error>, Steps)> {
    let Some((index, event)) = events.next() else {
        bill.over();
        return None;
    };
    let is_now = |at: Option<usize>| at == Some(index);
    if is_now(script.stall) {
        std::future::pending::<()>().await;
    }
    if is_now(script.end) {
        return None;
    }
    // After a fault too, so that what came before it has been sent.
    let pace = if is_now(script.cut) { script.pace.max(20) } else { script.pace };
    if pace > 0 {
        tokio::time::sleep(Duration::from_millis(pace)).await;
    }
    if (is_now(script.cut) || is_now(script.error)) && bill.is_output_zero() {
        // Nobody pays for an error.
        bill.input(0);
    }
    if is_now(script.cut) {
        return Some((Err(std::io::Error::other("cut")), (events, script, bill)));
    }
    bill.output(event.output);
    Some((Ok(Bytes::from(event.text)), (events, script, bill)))
}
