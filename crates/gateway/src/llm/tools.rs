//! [`Tools`]: those that the provider runs, what it charges for them, and what they may read.

use serde_json::value::RawValue;

use super::Api;
use super::members::Members;
use super::request::{RequestError, number, text};
use super::terms::list;

/// The tools that a request lets the provider run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tools {
    /// Those that it charges for apart from tokens.
    pub(super) charged: Vec<Tool>,
    /// The LLM tokens that are reserved for what they bring: input that is in no request.
    pub(super) input: u64,
}

/// A tool that the provider runs, and charges for apart from tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tool {
    /// Without the version that some types end with: `web_search`.
    pub(crate) name: String,
    /// How often it may be used at most; `None` where nothing says so.
    pub(crate) most_uses: Option<u64>,
}

/// Tools that bring nothing into a call: the client runs them, and sends what comes of them by itself, or they
/// choose among what the request has. What an MCP server brings is counted by server.
const BRINGS_NOTHING: [&str; 14] = [
    "function",
    "custom",
    "local_shell",
    "apply_patch",
    "mcp_toolset",
    "computer",
    "computer_use",
    "bash",
    "text_editor",
    "str_replace_editor",
    "memory",
    "tool_search",
    "tool_search_tool_regex",
    "tool_search_tool_bm25",
];

/// Tools that the provider runs, and that cost nothing but tokens. All others are charged apart, for all that is
/// known here.
const FREE: [&str; 2] = ["mcp", "web_fetch"];

/// The same of Gemini's.
const BRINGS_NOTHING_OF_GEMINIS: [&str; 2] = ["function_declarations", "computer_use"];
const FREE_OF_GEMINIS: [&str; 3] = ["code_execution", "url_context", "file_search"];

impl Tools {
    /// The tools that a request lets the provider run, each use of which may bring so many LLM tokens.
    pub(super) fn asked(
        api: Api,
        models: &[String],
        members: &Members<'_>,
        tokens: u64,
    ) -> Result<Self, RequestError> {
        let mut tools = Self::default();
        let most_calls = number(members, "max_tool_calls")?;
        let asked = members.find("tools");
        let items: Vec<&str> = match asked {
            // Some readers take one for a list of one.
            Some(one) if one.starts_with('{') => vec![one],
            _ => list(asked).into_iter().map(RawValue::get).collect(),
        };
        for item in items {
            let item = Members::read(item)?;
            match api {
                Api::GeminiGenerate | Api::GeminiStream => {
                    item.names().for_each(|name| tools.add_geminis(name, tokens));
                }
                _ => tools.add_item(api, &item, most_calls, tokens)?,
            }
        }
        if let (Api::OpenAiResponses, Some(most)) = (api, most_calls) {
            // All of them together are used so often.
            tools.input = tools.input.min(tokens.saturating_mul(most));
        }
        // One search, whatever comes of it.
        let searches = members.find("web_search_options").is_some_and(|value| value != "null");
        if searches {
            tools.add(Tool { name: "web_search".to_owned(), most_uses: Some(1) }, tokens);
        }
        if models.iter().any(|model| model.ends_with(":online")) {
            tools.add(Tool { name: "online".to_owned(), most_uses: Some(1) }, tokens);
        }
        let servers = list(members.find("mcp_servers")).len() as u64;
        tools.bring(Some(servers), tokens);
        Ok(tools)
    }

    /// One that is charged for, each use of which brings so many tokens.
    fn add(&mut self, tool: Tool, tokens: u64) {
        self.bring(tool.most_uses, tokens);
        self.charged.push(tool);
    }

    /// Adds what so many uses bring; one, where nothing bounds them.
    fn bring(&mut self, most_uses: Option<u64>, tokens: u64) {
        let all = tokens.saturating_mul(most_uses.unwrap_or(1));
        self.input = self.input.saturating_add(all);
    }

    fn add_item(
        &mut self,
        api: Api,
        item: &Members<'_>,
        most_calls: Option<u64>,
        tokens: u64,
    ) -> Result<(), RequestError> {
        let kind = text(item.find("type"), "type")?;
        // Of a tool of the client's own, Anthropic needs no type.
        let Some(kind) = kind else { return Ok(()) };
        let name = unversioned(&kind.to_lowercase());
        if BRINGS_NOTHING.contains(&name.as_str()) {
            return Ok(());
        }
        let (most_uses, tokens) = match api {
            Api::AnthropicMessages => {
                // Of a page that is fetched, more may be wanted.
                let content = number(item, "max_content_tokens")?.unwrap_or(0);
                (number(item, "max_uses")?, tokens.max(content))
            }
            Api::OpenAiResponses => (most_calls, tokens),
            _ => (None, tokens),
        };
        match FREE.contains(&name.as_str()) {
            true => self.bring(most_uses, tokens),
            false => self.add(Tool { name, most_uses }, tokens),
        }
        Ok(())
    }

    /// One of Gemini's, which are told by the name of a member. How often one is used has no bound, so its price
    /// is that of a call.
    fn add_geminis(&mut self, member: &str, tokens: u64) {
        let mut name = String::new();
        for letter in member.chars() {
            if letter.is_ascii_uppercase() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        match name.as_str() {
            name if BRINGS_NOTHING_OF_GEMINIS.contains(&name) => {}
            name if FREE_OF_GEMINIS.contains(&name) => self.bring(Some(1), tokens),
            _ => self.add(Tool { name, most_uses: Some(1) }, tokens),
        }
    }
}

/// A type without the version at its end: `web_search_20250305`, `web_search_preview_2025_03_11`.
fn unversioned(kind: &str) -> String {
    let is_version = |part: &&str| {
        *part == "preview" || part.len() >= 4 && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let parts: Vec<&str> = kind.split('_').take_while(|part| !is_version(part)).collect();
    parts.join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(api: Api, body: &str) -> Vec<(String, Option<u64>)> {
        let tools = Tools::asked(api, &[], &Members::read(body).unwrap(), 1_000).unwrap();
        tools.charged.into_iter().map(|tool| (tool.name, tool.most_uses)).collect()
    }

    #[test]
    fn tools_that_the_provider_charges_for_are_told_with_their_bound() {
        for (api, body, expected) in [
            (
                Api::AnthropicMessages,
                r#"{"tools":[{"name":"mine","input_schema":{}},{"type":"web_search_20250305","name":"web_search","max_uses":3}]}"#,
                vec![("web_search", Some(3))],
            ),
            (
                Api::AnthropicMessages,
                r#"{"tools":[{"type":"text_editor_20250728"},{"type":"code_execution_20250825"}]}"#,
                vec![("code_execution", None)],
            ),
            (
                Api::OpenAiResponses,
                r#"{"max_tool_calls":4,"tools":[{"type":"web_search_preview_2025_03_11"},{"type":"file_search"},{"type":"function"},{"type":"mcp"}]}"#,
                vec![("web_search", Some(4)), ("file_search", Some(4))],
            ),
            (
                Api::OpenAiResponses,
                r#"{"tools":[{"type":"image_generation","max_uses":1}]}"#,
                vec![("image_generation", None)],
            ),
            (
                Api::OpenAiChat,
                r#"{"web_search_options":{},"tools":[{"type":"function"},{"type":"new"}]}"#,
                vec![("new", None), ("web_search", Some(1))],
            ),
            (
                Api::GeminiGenerate,
                r#"{"tools":[{"functionDeclarations":[],"googleSearch":{}},{"url_context":{}},{"codeExecution":{}}]}"#,
                vec![("google_search", Some(1))],
            ),
            (Api::OpenAiChat, r#"{"tools":null,"web_search_options":null}"#, vec![]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(name, most)| (name.to_owned(), most)).collect();
            assert_eq!(tools(api, body), expected, "{body}");
        }
    }
    #[test]
    fn what_tools_of_the_provider_may_bring_is_reserved_for_each_use() {
        for (api, body, expected) in [
            (
                Api::AnthropicMessages,
                r#"{"tools":[{"type":"web_fetch_20250910","max_uses":3},{"type":"web_search_20250305"},{"type":"bash_20250124"},{"name":"mine"}]}"#,
                4_000,
            ),
            (
                Api::AnthropicMessages,
                r#"{"tools":[{"type":"web_fetch_20250910","max_uses":2,"max_content_tokens":50000}]}"#,
                100_000,
            ),
            (
                Api::AnthropicMessages,
                r#"{"tools":[{"type":"web_fetch_20250910","max_content_tokens":50}]}"#,
                1_000,
            ),
            (
                Api::AnthropicMessages,
                r#"{"mcp_servers":[{"type":"url"},{"type":"url"}],"tools":[{"type":"mcp_toolset"},{"type":"mcp_toolset"}]}"#,
                2_000,
            ),
            (
                Api::OpenAiResponses,
                r#"{"max_tool_calls":4,"tools":[{"type":"web_search"},{"type":"mcp"},{"type":"function"}]}"#,
                4_000,
            ),
            (
                Api::OpenAiResponses,
                r#"{"tools":[{"type":"file_search"},{"type":"mcp"},{"type":"custom"}]}"#,
                2_000,
            ),
            (Api::OpenAiResponses, r#"{"max_tool_calls":4,"tools":[{"type":"function"}]}"#, 0),
            (Api::OpenAiChat, r#"{"web_search_options":{}}"#, 1_000),
            (
                Api::GeminiGenerate,
                r#"{"tools":[{"functionDeclarations":[],"googleSearch":{}},{"url_context":{}}]}"#,
                2_000,
            ),
        ] {
            let tools = Tools::asked(api, &[], &Members::read(body).unwrap(), 1_000).unwrap();
            assert_eq!(tools.input, expected, "{body}");
        }
    }
}
