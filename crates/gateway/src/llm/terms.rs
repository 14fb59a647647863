//! [`Terms`]: what a request asks for that is charged otherwise than by plain tokens.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::input::Media;
use super::members::Members;
use super::request::{RequestError, one_of, text};
use super::tools::Tools;
use super::{Api, Tiers, Tool};

/// What a request asks for that providers charge for otherwise than by plain tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) tiers: Tiers,
    /// Tools that the provider runs and charges for.
    pub(crate) tools: Vec<Tool>,
    /// The LLM tokens that are reserved for what tools bring.
    pub(crate) tool_input: u64,
    /// Whether input is put into the provider's cache, and whether for longer than usual.
    pub(crate) cache_write: bool,
    pub(crate) long_cache_write: bool,
    /// Whether it may be heard.
    pub(crate) audio_input: bool,
    /// Whether the answer may hold sounds, and pictures.
    pub(crate) audio_output: bool,
    pub(crate) image_output: bool,
    /// A member that makes the provider do what no price here is for.
    pub(crate) unpriceable: Option<&'static str>,
    /// A member that lets it use tokens that nothing here bounds.
    pub(crate) unbounded: Option<&'static str>,
}

/// Members that choose another model than the one that is named, or run what is charged apart.
const UNPRICEABLE: [&str; 4] = ["plugins", "preset", "fallbacks", "web_search"];

impl Terms {
    pub(super) fn of(
        api: Api,
        models: &[String],
        members: &Members<'_>,
        media: &Media,
        tool_tokens: u64,
    ) -> Result<Self, RequestError> {
        let is_asked = |name: &&&str| {
            members.find(name).is_some_and(|value| !["null", "[]", "false"].contains(&value))
        };
        // A route through models that the request does not name.
        let is_routed = is_asked(&&"route") && models.len() < 2;
        let shown = shown(api, members)?;
        let tools = Tools::asked(api, models, members, tool_tokens)?;
        // Each of these may search, or read what is elsewhere.
        let others = UNPRICEABLE.iter().filter(is_asked).count() as u64;
        let of_others = tool_tokens.saturating_mul(others);
        Ok(Self {
            tiers: Tiers::asked(members)?,
            tools: tools.charged,
            tool_input: tools.input.saturating_add(of_others),
            cache_write: media.is_cached(),
            long_cache_write: media.is_cached() && media.is_cached_for_long(),
            audio_input: media.has_sound(),
            audio_output: shown.iter().any(|kind| kind == "audio"),
            image_output: shown.iter().any(|kind| kind != "audio"),
            unpriceable: UNPRICEABLE
                .iter()
                .find(is_asked)
                .copied()
                .or(is_routed.then_some("route")),
            unbounded: ["context_management", "compaction"]
                .into_iter()
                .find(|name| members.find(name).is_some_and(|value| !only_clears(value))),
        })
    }
}

/// Whether what is asked for, to keep a conversation short, does no more than leave parts out. To sum it up, the
/// provider reads it all once more, and says of it as much as it likes.
fn only_clears(asked: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked<'a> {
        #[serde(borrow, default)]
        edits: Option<Vec<Edit<'a>>>,
    }

    #[derive(Deserialize)]
    struct Edit<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
    }

    if ["null", "[]", "false"].contains(&asked) {
        return true;
    }
    serde_json::from_str::<Asked<'_>>(asked).is_ok_and(|asked| {
        asked.edits.unwrap_or_default().iter().all(|edit| edit.kind.starts_with("clear_"))
    })
}

/// The kinds of output that are asked for, but for text.
fn shown(api: Api, members: &Members<'_>) -> Result<Vec<String>, RequestError> {
    let kinds = match api {
        Api::GeminiGenerate | Api::GeminiStream => {
            let config = one_of(members, ["generationConfig", "generation_config"])?;
            match config {
                Some((config, _)) => {
                    let config = Members::read(config)?;
                    one_of(&config, ["responseModalities", "response_modalities"])?
                        .map(|(kinds, _)| kinds)
                }
                None => None,
            }
        }
        _ => members.find("modalities"),
    };
    let kinds: Vec<&RawValue> = list(kinds);
    let kind = |kind: &&RawValue| Ok(text(Some(kind.get()), "modalities")?.unwrap_or_default());
    let kinds = kinds.iter().map(kind).collect::<Result<Vec<_>, RequestError>>()?;
    Ok(kinds.iter().map(|kind| kind.to_lowercase()).filter(|kind| kind != "text").collect())
}

/// The items of a list. What is none has no items.
pub(super) fn list(value: Option<&str>) -> Vec<&RawValue> {
    value.and_then(|value| serde_json::from_str(value).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(api: Api, rest: &str) -> Terms {
        let body = format!("{{{rest}}}");
        let (members, media) = (Members::read(&body).unwrap(), Media::of(&body).unwrap());
        let models = ["a".to_owned(), "b".to_owned()];
        let models = if rest.contains("models") { &models[..] } else { &models[..1] };
        Terms::of(api, models, &members, &media, 1_000)
            .unwrap_or_else(|error| panic!("{body}: {error}"))
    }

    #[test]
    fn plain_requests_have_no_terms() {
        for (api, rest) in [
            (Api::OpenAiChat, r#""model":"gpt-5","service_tier":"auto","tools":[]"#),
            (Api::OpenAiChat, r#""service_tier":null,"modalities":["text"],"plugins":[]"#),
            (Api::GeminiGenerate, r#""generationConfig":{"responseModalities":["TEXT"]}"#),
            (Api::OpenAiChat, r#""models":["a","b"],"route":"fallback""#),
        ] {
            let terms = terms(api, rest);
            assert!(terms.tiers.names().next().is_none(), "{rest}");
            assert_eq!(Terms { tiers: Tiers::default(), ..terms }, Terms::default(), "{rest}");
        }
    }

    #[test]
    fn sounds_pictures_and_routes_are_told() {
        let spoken = terms(Api::OpenAiChat, r#""modalities":["text","audio"]"#);
        assert!(spoken.audio_output && !spoken.image_output);
        let shown = r#""generation_config":{"response_modalities":["IMAGE"]}"#;
        let shown = terms(Api::GeminiGenerate, shown);
        assert!(shown.image_output && !shown.audio_output);
        for (rest, name) in [
            (r#""plugins":[{"id":"web"}]"#, "plugins"),
            (r#""route":"fallback""#, "route"),
            (r#""fallbacks":["x"]"#, "fallbacks"),
            (r#""preset":"mine""#, "preset"),
        ] {
            assert_eq!(terms(Api::OpenAiChat, rest).unpriceable, Some(name));
        }
    }
}
