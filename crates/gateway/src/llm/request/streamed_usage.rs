//! The usage of a stream, which is asked for where the client did not.

use super::RequestError;
use super::ceiling::Parts;
use crate::llm::members::Members;

impl Parts<'_> {
    /// Asks for the usage at the end of the stream; whether it had not been asked for.
    pub(super) fn ask_usage(&mut self) -> Result<bool, RequestError> {
        let Some(options) = self.members.find("stream_options") else {
            let asking = r#""stream_options":{"include_usage":true}"#;
            self.edits.insert(self.text, self.text, self.members, asking);
            return Ok(true);
        };
        match options {
            "null" => self.edits.replace(self.text, options, r#"{"include_usage":true}"#),
            object if object.starts_with('{') => {
                let inner = Members::read(object)?;
                match inner.find("include_usage") {
                    Some("true") => return Ok(false),
                    Some(value) => self.edits.replace(self.text, value, "true"),
                    None => self.edits.insert(self.text, object, &inner, r#""include_usage":true"#),
                }
            }
            _ => return Err(RequestError::StreamOptions),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::LlmRequest;
    use super::super::tests::chat;

    #[test]
    fn the_usage_of_a_stream_is_asked_for_where_the_client_did_not() {
        let body = |request: &LlmRequest| request.body(request.ceiling());
        let plain = r#"{"messages": [], "stream": false,"max_tokens":1}"#;
        assert_eq!(body(&chat(plain)), plain, "byte for byte");
        let asked = r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true},"max_tokens":1}"#;
        let request = chat(asked);
        assert_eq!((body(&request).as_ref(), request.hides_usage()), (asked.as_bytes(), false));
        for (quiet, asking) in [
            (
                r#" {"messages":[],"stream":true,"max_tokens":1}"#,
                r#" {"stream_options":{"include_usage":true},"messages":[],"stream":true,"max_tokens":1}"#,
            ),
            (
                r#"{"stream_options" : null, "stream":true,"max_tokens":1,"messages":[{"seed": 1.5000000000000000001}]}"#,
                r#"{"stream_options" : {"include_usage":true}, "stream":true,"max_tokens":1,"messages":[{"seed": 1.5000000000000000001}]}"#,
            ),
            (
                r#"{"messages":[],"stream":true,"max_tokens":1,"stream_options":{ }}"#,
                r#"{"messages":[],"stream":true,"max_tokens":1,"stream_options":{"include_usage":true }}"#,
            ),
            (
                r#"{"z":"{","messages":[],"stream":true,"max_tokens":1,"stream_options":{"x":1}}"#,
                r#"{"z":"{","messages":[],"stream":true,"max_tokens":1,"stream_options":{"include_usage":true,"x":1}}"#,
            ),
            (
                r#"{"messages":[],"stream":true,"max_tokens":1,"stream_options":{"include\u005fusage": false ,"x":1}}"#,
                r#"{"messages":[],"stream":true,"max_tokens":1,"stream_options":{"include\u005fusage": true ,"x":1}}"#,
            ),
        ] {
            let request = chat(quiet);
            assert!(request.hides_usage());
            assert_eq!(body(&request), asking, "nothing else has changed");
        }
    }
}
