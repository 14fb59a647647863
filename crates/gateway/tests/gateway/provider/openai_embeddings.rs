//! OpenAI's embeddings, which have no output.

use serde_json::json;

use super::Asked;
use super::reply::{Answer, Error, Form};
use super::script::Script;

pub fn answer(asked: &Asked, script: &Script) -> Result<Answer, Error> {
    let input = asked.input(script);
    let whole = json!({
        "object": "list",
        "data": [{ "object": "embedding", "index": 0, "embedding": [0.5, -0.25] }],
        "model": asked.model(),
        "usage": { "prompt_tokens": input, "total_tokens": input },
    });
    Ok(Answer { input, output: 0, form: Form::Whole(whole), goes_on: false })
}
