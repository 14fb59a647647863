//! [`Tool`]: a tool that the provider runs, and charges for apart.

use serde_json::value::RawValue;

use super::Api;
use super::members::Members;
use super::request::{RequestError, number, text};
use super::terms::list;

/// A tool that the provider runs, and charges for apart from tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tool {
    /// Without the version that some types end with: `web_search`.
    pub(crate) name: String,
    /// How often it may be used at most; `None` where nothing says so.
    pub(crate) most_uses: Option<u64>,
}

/// Tools that the client runs, or that cost nothing but tokens. All others are charged apart, for all that is
/// known here.
const FREE: [&str; 16] = [
    "function",
    "custom",
    "local_shell",
    "apply_patch",
    "mcp",
    "mcp_toolset",
    "computer",
    "computer_use",
    "bash",
    "text_editor",
    "str_replace_editor",
    "memory",
    "web_fetch",
    "tool_search",
    "tool_search_tool_regex",
    "tool_search_tool_bm25",
];

/// The same of Gemini's.
const FREE_OF_GEMINIS: [&str; 5] =
    ["function_declarations", "code_execution", "url_context", "computer_use", "file_search"];

impl Tool {
    /// The tools that a request lets the provider use.
    pub(super) fn asked(
        api: Api,
        models: &[String],
        members: &Members<'_>,
    ) -> Result<Vec<Self>, RequestError> {
        let mut tools = Vec::new();
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
                    tools.extend(item.names().filter_map(Self::of_gemini));
                }
                _ => tools.extend(Self::of_item(api, &item, most_calls)?),
            }
        }
        // One search, whatever comes of it.
        let searches = members.find("web_search_options").is_some_and(|value| value != "null");
        if searches {
            tools.push(Self { name: "web_search".to_owned(), most_uses: Some(1) });
        }
        if models.iter().any(|model| model.ends_with(":online")) {
            tools.push(Self { name: "online".to_owned(), most_uses: Some(1) });
        }
        Ok(tools)
    }

    fn of_item(
        api: Api,
        item: &Members<'_>,
        most_calls: Option<u64>,
    ) -> Result<Option<Self>, RequestError> {
        let kind = text(item.find("type"), "type")?;
        // Of a tool of the client's own, Anthropic needs no type.
        let Some(kind) = kind else { return Ok(None) };
        let name = unversioned(&kind.to_lowercase());
        let of_tool = match api {
            Api::AnthropicMessages => number(item, "max_uses")?,
            _ => None,
        };
        let most_uses = match api {
            Api::OpenAiResponses => most_calls,
            _ => of_tool,
        };
        Ok((!FREE.contains(&name.as_str())).then_some(Self { name, most_uses }))
    }

    /// One of Gemini's, which are told by the name of a member. How often one is used has no bound, so its price
    /// is that of a call.
    fn of_gemini(member: &str) -> Option<Self> {
        let mut name = String::new();
        for letter in member.chars() {
            if letter.is_ascii_uppercase() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        (!FREE_OF_GEMINIS.contains(&name.as_str())).then_some(Self { name, most_uses: Some(1) })
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
        let tools = Tool::asked(api, &[], &Members::read(body).unwrap()).unwrap();
        tools.into_iter().map(|tool| (tool.name, tool.most_uses)).collect()
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
}
