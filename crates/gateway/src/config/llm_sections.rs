//! The sections on LLMs: `[upstream]` and `[llm]`.

use std::time::Duration;

use serde::Deserialize;
use tidegate::policy::{FileError, Source, Spanned};

use crate::gateway::SHARE;
use crate::llm::{Maker, Settings, UseTokenizer};
use crate::providers::ProviderUrls;
use crate::upstream::{Timeouts, UpstreamUrl};

/// The API behind, and those of other makers, if they are somewhere else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProvidersSpec {
    url: Spanned<String>,
    api_key_env: Option<Spanned<String>>,
    api: Option<Spanned<String>>,
    answer_timeout_s: Option<Spanned<u64>>,
    idle_timeout_s: Option<Spanned<u64>>,
    anthropic: Option<UpstreamSpec>,
    gemini: Option<UpstreamSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpstreamSpec {
    url: Spanned<String>,
    api_key_env: Option<Spanned<String>>,
}

impl ProvidersSpec {
    pub(super) fn build(
        spec: Option<&Self>,
        source: &Source<'_>,
    ) -> Result<ProviderUrls, FileError> {
        let Some(spec) = spec else { return Ok(ProviderUrls::default()) };
        let timeouts = spec.timeouts(source)?;
        let own = |spec: &Option<UpstreamSpec>, field: &str, maker| {
            let build = |spec: &UpstreamSpec| {
                let url = upstream(&spec.url, spec.api_key_env.as_ref(), field, source)?;
                Ok(url.within(timeouts).made_by(maker))
            };
            spec.as_ref().map(build).transpose()
        };
        let main = upstream(&spec.url, spec.api_key_env.as_ref(), "upstream", source)?;
        let main = main.within(timeouts);
        Ok(ProviderUrls {
            main: Some(match spec.maker(source)? {
                None => main,
                Some(maker) => main.made_by(maker),
            }),
            anthropic: own(&spec.anthropic, "upstream.anthropic", Maker::Anthropic)?,
            gemini: own(&spec.gemini, "upstream.gemini", Maker::Gemini)?,
        })
    }

    fn maker(&self, source: &Source<'_>) -> Result<Option<Maker>, FileError> {
        let Some(api) = &self.api else { return Ok(None) };
        match api.get_ref().as_str() {
            "openai" => Ok(Some(Maker::OpenAi)),
            "anthropic" => Ok(Some(Maker::Anthropic)),
            "gemini" => Ok(Some(Maker::Gemini)),
            other => {
                let message =
                    format!("`{other}` is not known; use one of `openai`, `anthropic`, `gemini`");
                Err(source.error(api.span(), "upstream.api", &message))
            }
        }
    }

    fn timeouts(&self, source: &Source<'_>) -> Result<Timeouts, FileError> {
        let usual = Timeouts::default();
        let seconds = |field: &Option<Spanned<u64>>, name: &str, usual: Duration| match field {
            None => Ok(usual),
            Some(seconds) if *seconds.get_ref() == 0 => Err(source.error(
                seconds.span(),
                name,
                &"nothing would be in time; give at least 1",
            )),
            Some(seconds) => Ok(Duration::from_secs(*seconds.get_ref())),
        };
        Ok(Timeouts {
            answer: seconds(&self.answer_timeout_s, "upstream.answer_timeout_s", usual.answer)?,
            idle: seconds(&self.idle_timeout_s, "upstream.idle_timeout_s", usual.idle)?,
        })
    }
}

fn upstream(
    url: &Spanned<String>,
    api_key_env: Option<&Spanned<String>>,
    section: &str,
    source: &Source<'_>,
) -> Result<UpstreamUrl, FileError> {
    let upstream = UpstreamUrl::parse(url.get_ref())
        .map_err(|error| source.error(url.span(), &format!("{section}.url"), &error))?;
    let Some(variable) = api_key_env else { return Ok(upstream) };
    let unset = |message: &str| {
        let message = format!("the environment variable `{}` {message}", variable.get_ref());
        source.error(variable.span(), &format!("{section}.api_key_env"), &message)
    };
    let key = std::env::var(variable.get_ref())
        .map_err(|_| unset("is not set; set it to the upstream's key, or remove this line"))?;
    upstream.with_api_key(&key).map_err(|_| unset("holds no key that fits a header"))
}

/// How LLM calls are reserved for and ended.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LlmSpec {
    default_max_output: Option<Spanned<u64>>,
    max_output_field: Option<Spanned<String>>,
    image_tokens: Option<u64>,
    file_tokens: Option<u64>,
    stored_tokens: Option<u64>,
    tool_tokens: Option<u64>,
    tokenizer: Option<Spanned<String>>,
    max_body_bytes: Option<Spanned<usize>>,
    max_bodies_bytes: Option<Spanned<usize>>,
    drain_s: Option<u64>,
}

impl LlmSpec {
    pub(super) fn build(&self, source: &Source<'_>) -> Result<Settings, FileError> {
        let mut settings = Settings::default();
        if let Some(output) = &self.default_max_output {
            settings.default_max_output = *output.get_ref();
            if settings.default_max_output == 0 {
                let message = "no answer would have any output; give at least 1";
                return Err(source.error(output.span(), "llm.default_max_output", &message));
            }
        }
        if let Some(field) = &self.max_output_field {
            let names = [("max_completion_tokens"), ("max_tokens")].map(|name| (name, name));
            settings.max_output_field = choice(field, "llm.max_output_field", names, source)?;
        }
        if let Some(tokenizer) = &self.tokenizer {
            let names = [
                ("when-needed", UseTokenizer::WhenNeeded),
                ("always", UseTokenizer::Always),
                ("never", UseTokenizer::Never),
            ];
            settings.tokenizer = choice(tokenizer, "llm.tokenizer", names, source)?;
        }
        if let Some(most) = &self.max_body_bytes {
            settings.max_body = *most.get_ref();
            if !(1..=1 << 30).contains(&settings.max_body) {
                let message = "a body is kept in memory; give 1 to 1073741824";
                return Err(source.error(most.span(), "llm.max_body_bytes", &message));
            }
        }
        let least = settings.max_body * SHARE as usize;
        settings.max_bodies = match &self.max_bodies_bytes {
            None => settings.max_bodies.max(least),
            Some(most) if *most.get_ref() < least => {
                let message = format!(
                    "one client may have a quarter of it, which must hold a body of `max_body_bytes`; give at least {least}"
                );
                return Err(source.error(most.span(), "llm.max_bodies_bytes", &message));
            }
            Some(most) => *most.get_ref(),
        };
        let allowances = &mut settings.allowances;
        allowances.image_tokens = self.image_tokens.unwrap_or(allowances.image_tokens);
        allowances.file_tokens = self.file_tokens.unwrap_or(allowances.file_tokens);
        allowances.stored_tokens = self.stored_tokens.unwrap_or(allowances.stored_tokens);
        allowances.tool_tokens = self.tool_tokens.unwrap_or(allowances.tool_tokens);
        settings.drain = self.drain_s.map_or(settings.drain, Duration::from_secs);
        Ok(settings)
    }
}

fn choice<T, const N: usize>(
    text: &Spanned<String>,
    field: &str,
    choices: [(&str, T); N],
    source: &Source<'_>,
) -> Result<T, FileError> {
    let names = choices.each_ref().map(|(name, _)| *name).join("`, `");
    let chosen = choices.into_iter().find(|(name, _)| name == text.get_ref());
    chosen.map(|(_, choice)| choice).ok_or_else(|| {
        let message = format!("`{}` is not known; use one of `{names}`", text.get_ref());
        source.error(text.span(), field, &message)
    })
}
