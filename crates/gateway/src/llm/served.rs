//! [`Served`]: what an answer says of how it was served.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Tiers;

/// What an answer says of how it was served, as far as its price depends on that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Served {
    /// The model, in lower case.
    pub(crate) model: Option<String>,
    pub(crate) tiers: Tiers,
    /// How often tools were used that the provider runs, by name; `None` where nothing is told of that.
    tools: Option<Vec<(String, u64)>>,
}

impl Served {
    /// Takes over what an answer says, or an event of a stream. Later ones replace what earlier ones said.
    pub(crate) fn read(&mut self, json: &[u8]) {
        let Ok(answer) = serde_json::from_slice::<Answer>(json) else { return };
        let begun = answer.message;
        // A message that has begun does not know yet what it will use.
        let begun =
            begun.map(|begun| Part { usage: begun.usage.map(Usage::without_tools), ..begun });
        for part in [Some(answer.outer), begun, answer.response].into_iter().flatten() {
            self.take_over(part);
        }
    }

    fn take_over(&mut self, part: Part) {
        if let Some(model) = part.model {
            self.model = Some(model.to_lowercase());
        }
        if let Some(tier) = part.service_tier {
            self.by_tier(&tier);
        }
        let usage = part.usage.unwrap_or_default();
        self.tiers = self.tiers.then(&usage.tiers);
        if let Some(uses) = usage.server_tool_use {
            let named = |(name, uses): (String, Option<u64>)| {
                (name.strip_suffix("_requests").unwrap_or(&name).to_owned(), uses.unwrap_or(0))
            };
            self.tools = Some(uses.into_iter().map(named).collect());
        }
        let is_over =
            part.status.is_some_and(|status| status != "in_progress" && status != "queued");
        if let Some(items) = part.output.filter(|_| is_over) {
            let used = items.into_iter().filter_map(|item| item.kind);
            let used = used.filter_map(|kind| Some((kind.strip_suffix("_call")?.to_owned(), 1)));
            self.tools = Some(used.collect());
        }
    }

    /// With the service tier that stands in a field of the answer's head.
    pub(super) fn by_tier(&mut self, tier: &str) {
        self.tiers = self.tiers.then(&Tiers::of_service(tier));
    }

    /// How often a tool was used, where that is told.
    pub(crate) fn uses(&self, tool: &str) -> Option<u64> {
        let of_tool = self.tools.as_ref()?.iter().filter(|(name, _)| name == tool);
        Some(of_tool.fold(0, |sum: u64, (_, uses)| sum.saturating_add(*uses)))
    }
}

/// An answer, or an event of a stream, with the whole that it may hold.
#[derive(Deserialize)]
struct Answer {
    #[serde(flatten)]
    outer: Part,
    /// OpenAI's, in events of its responses.
    response: Option<Part>,
    /// Anthropic's, at a stream's beginning.
    message: Option<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(alias = "modelVersion")]
    model: Option<String>,
    service_tier: Option<String>,
    status: Option<String>,
    usage: Option<Usage>,
    output: Option<Vec<Item>>,
}

#[derive(Deserialize, Default)]
struct Usage {
    #[serde(flatten)]
    tiers: Tiers,
    server_tool_use: Option<BTreeMap<String, Option<u64>>>,
}

impl Usage {
    fn without_tools(self) -> Self {
        Self { server_tool_use: None, ..self }
    }
}

/// One thing in a response of OpenAI's, such as `web_search_call`.
#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(parts: &[&str]) -> Served {
        let mut served = Served::default();
        parts.iter().for_each(|part| served.read(part.as_bytes()));
        served
    }

    fn tiers(served: &Served) -> Vec<&str> {
        served.tiers.names().collect()
    }

    #[test]
    fn model_and_tier_are_read_where_each_api_has_them() {
        let chat = served(&[r#"{"model":"x/GPT-5","service_tier":"priority","choices":[]}"#]);
        assert_eq!((chat.model.as_deref(), tiers(&chat)), (Some("x/gpt-5"), vec!["priority"]));
        let response = served(&[
            r#"{"type":"response.created","response":{"model":"gpt-5","service_tier":"auto","usage":null}}"#,
            r#"{"type":"response.output_text.delta","delta":"x"}"#,
            r#"{"type":"response.completed","response":{"model":"gpt-5-2025","service_tier":"flex"}}"#,
        ]);
        assert_eq!(
            (response.model.as_deref(), tiers(&response)),
            (Some("gpt-5-2025"), vec!["flex"])
        );
        let message = served(&[
            r#"{"type":"message_start","message":{"model":"claude","usage":{"service_tier":"priority","speed":"fast"}}}"#,
            r#"{"type":"message_delta","usage":{"output_tokens":5}}"#,
        ]);
        assert_eq!(
            (message.model.as_deref(), tiers(&message)),
            (Some("claude"), vec!["priority", "fast"])
        );
        assert_eq!(served(&["[DONE]", "", "[]", r#"{"model":5}"#]), Served::default());
    }

    #[test]
    fn uses_of_tools_are_counted_at_the_end_and_not_before() {
        let begun = r#"{"type":"message_start","message":{"usage":{"server_tool_use":{"web_search_requests":0}}}}"#;
        assert_eq!(served(&[begun]).uses("web_search"), None);
        let end =
            r#"{"type":"message_delta","usage":{"server_tool_use":{"web_search_requests":2}}}"#;
        assert_eq!(served(&[begun, end]).uses("web_search"), Some(2));
        let begun = r#"{"response":{"status":"in_progress","output":[]}}"#;
        assert_eq!(served(&[begun]).uses("web_search"), None);
        let end = r#"{"response":{"status":"completed","output":[{"type":"web_search_call"},{"type":"message"},{"type":"web_search_call"}]}}"#;
        let both = served(&[begun, end]);
        assert_eq!((both.uses("web_search"), both.uses("file_search")), (Some(2), Some(0)));
    }
}
