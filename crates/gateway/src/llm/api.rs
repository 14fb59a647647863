//! [`Api`]: which provider's API a route is, and so how its requests and answers read.

use http::{HeaderMap, Method};
use tidegate::policy::canonical_path;

use crate::answer::Dialect;

/// An endpoint whose calls cost LLM tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    OpenAiChat,
    OpenAiCompletions,
    OpenAiResponses,
    OpenAiEmbeddings,
    AnthropicMessages,
    GeminiGenerate,
    GeminiStream,
    GeminiEmbed,
}

/// Who made an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    OpenAi,
    Anthropic,
    Gemini,
    /// Nobody: it is no LLM's.
    Nobody,
}

/// What a request's route costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// What its body says. Gemini has the model in the path, and so has Azure.
    Metered(Api, Option<String>),
    /// Nothing.
    Free(Maker),
    /// Nobody here knows: rules that count LLM tokens or money deny it.
    Unknown(Maker),
}

impl Api {
    /// The name of the route, for keys, metrics and traces.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OpenAiChat => "chat-completions",
            Self::OpenAiCompletions => "completions",
            Self::OpenAiResponses => "responses",
            Self::OpenAiEmbeddings => "embeddings",
            Self::AnthropicMessages => "messages",
            Self::GeminiGenerate | Self::GeminiStream => "generate-content",
            Self::GeminiEmbed => "embed-content",
        }
    }

    pub(crate) const fn maker(self) -> Maker {
        match self {
            Self::OpenAiChat
            | Self::OpenAiCompletions
            | Self::OpenAiResponses
            | Self::OpenAiEmbeddings => Maker::OpenAi,
            Self::AnthropicMessages => Maker::Anthropic,
            Self::GeminiGenerate | Self::GeminiStream | Self::GeminiEmbed => Maker::Gemini,
        }
    }
}

impl Maker {
    pub(crate) const fn dialect(self) -> Dialect {
        match self {
            Self::OpenAi => Dialect::OpenAi,
            Self::Anthropic => Dialect::Anthropic,
            Self::Gemini => Dialect::Gemini,
            Self::Nobody => Dialect::Plain,
        }
    }
}

impl Route {
    /// The route of a request, however its path is spelt.
    pub(crate) fn of(method: &Method, path: &str, headers: &HeaderMap) -> Self {
        let path = canonical_path(path);
        let maker = maker_of(&path);
        let called = path.rsplit_once(':');
        // These never make a model work.
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE) {
            // But where one would, it is Gemini's, whatever folder that is in: there a parameter that makes a GET a
            // POST is taken out.
            if let Some((_, verb)) = called.filter(|(_, verb)| VERBS.contains(verb)) {
                let is_free = verb == "counttokens" || *method == Method::OPTIONS;
                return match is_free {
                    true => Self::Free(Maker::Gemini),
                    false => Self::Unknown(Maker::Gemini),
                };
            }
            // Unless a server takes them for what a field says.
            return match OVERRIDES.iter().any(|name| headers.contains_key(*name)) {
                true => Self::Unknown(maker),
                false => Self::Free(maker),
            };
        }
        if let Some((before, verb)) = called {
            let model = before.rsplit('/').next().unwrap_or_default().to_owned();
            return match verb {
                "generatecontent" => Self::Metered(Api::GeminiGenerate, Some(model)),
                "streamgeneratecontent" => Self::Metered(Api::GeminiStream, Some(model)),
                "embedcontent" => Self::Metered(Api::GeminiEmbed, Some(model)),
                "counttokens" => Self::Free(Maker::Gemini),
                _ => Self::Unknown(Maker::Gemini),
            };
        }
        let metered = [
            ("/chat/completions", Api::OpenAiChat),
            ("/completions", Api::OpenAiCompletions),
            ("/responses", Api::OpenAiResponses),
            ("/embeddings", Api::OpenAiEmbeddings),
            ("/v1/messages", Api::AnthropicMessages),
        ];
        let before =
            metered.into_iter().find_map(|(end, api)| Some((path.strip_suffix(end)?, api)));
        if let Some((before, api)) = before {
            return Self::Metered(api, deployed(before));
        }
        let free = ["/v1/messages/count_tokens", "/responses/input_tokens", "/moderations"];
        match free.iter().any(|end| path.ends_with(end)) {
            true => Self::Free(maker),
            false => Self::Unknown(maker),
        }
    }

    /// The name of the route: one for all that cost nothing, and one for all that are not known.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Metered(api, _) => api.name(),
            Self::Free(_) => "free",
            Self::Unknown(_) => "other",
        }
    }

    pub(crate) const fn maker(&self) -> Maker {
        match self {
            Self::Metered(api, _) => api.maker(),
            Self::Free(maker) | Self::Unknown(maker) => *maker,
        }
    }
}

/// What Google's servers are called for, in lower case. Names of OpenAI's models have a colon, too.
const VERBS: [&str; 16] = [
    "generatecontent",
    "streamgeneratecontent",
    "batchgeneratecontent",
    "embedcontent",
    "batchembedcontents",
    "asyncbatchembedcontent",
    "counttokens",
    "generateanswer",
    "generatetext",
    "generatemessage",
    "predict",
    "predictlongrunning",
    "rawpredict",
    "streamrawpredict",
    "serverstreamingpredict",
    "directpredict",
];

/// Fields that some servers take a request's method from.
const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// The model that a path has in a folder of models, where servers look at no other.
fn deployed(path: &str) -> Option<String> {
    let named = ["/deployments/", "/engines/"].iter().find_map(|folder| path.split_once(folder));
    named.map(|(_, model)| model.to_owned()).filter(|model| !model.is_empty())
}

/// Whose API a path belongs to.
fn maker_of(path: &str) -> Maker {
    let begins = |start: &str| {
        path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':']))
    };
    match () {
        () if begins("/v1/messages") => Maker::Anthropic,
        // Gemini has OpenAI's API too, under a folder of its own.
        () if begins("/v1beta/openai") => Maker::OpenAi,
        () if begins("/v1beta") || begins("/upload/v1beta") => Maker::Gemini,
        () if begins("/v1") => Maker::OpenAi,
        () => Maker::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> Route {
        Route::of(&Method::POST, path, &HeaderMap::new())
    }

    #[test]
    fn every_spelling_of_a_route_is_that_route() {
        for path in [
            "/v1/chat/completions",
            "/v1/chat/completions/",
            "//v1//chat/./completions",
            "/v1/chat/%63ompletions",
            "/V1/Chat/Completions",
        ] {
            assert_eq!(route(path), Route::Metered(Api::OpenAiChat, None), "{path}");
        }
        for path in [
            "/v1beta/models/Gemini-2.5-Pro:generateContent",
            "/v1beta/models/gemini-2.5-pro%3AgenerateContent",
        ] {
            let model = Some("gemini-2.5-pro".to_owned());
            assert_eq!(route(path), Route::Metered(Api::GeminiGenerate, model), "{path}");
        }
    }

    #[test]
    fn where_the_path_has_the_model_a_body_cannot_name_a_cheaper_one() {
        for (path, api, model) in [
            ("/openai/deployments/Mine/chat/completions", Api::OpenAiChat, "mine"),
            ("/openai/deployments/mine/embeddings", Api::OpenAiEmbeddings, "mine"),
            ("/v1/engines/davinci/completions", Api::OpenAiCompletions, "davinci"),
            ("/engines/of/two%2Fparts/chat/completions", Api::OpenAiChat, "of/two/parts"),
        ] {
            assert_eq!(route(path), Route::Metered(api, Some(model.to_owned())), "{path}");
        }
        for path in ["/deployments/chat/completions", "/deployments//chat/completions"] {
            assert_eq!(route(path), Route::Metered(Api::OpenAiChat, None), "{path}");
        }
    }

    #[test]
    fn what_costs_nothing_is_told_from_what_is_not_known() {
        for (path, expected) in [
            ("/v1/completions", Route::Metered(Api::OpenAiCompletions, None)),
            ("/v1/responses", Route::Metered(Api::OpenAiResponses, None)),
            ("/v1/embeddings", Route::Metered(Api::OpenAiEmbeddings, None)),
            ("/v1/messages", Route::Metered(Api::AnthropicMessages, None)),
            ("/v1/messages/count_tokens", Route::Free(Maker::Anthropic)),
            ("/v1/messages/batches", Route::Unknown(Maker::Anthropic)),
            ("/v1beta/models/m:countTokens", Route::Free(Maker::Gemini)),
            ("/v1beta/models/m:batchGenerateContent", Route::Unknown(Maker::Gemini)),
            ("/v1/images/generations", Route::Unknown(Maker::OpenAi)),
            ("/v1/threads/t/messages", Route::Unknown(Maker::OpenAi)),
            ("/v1/moderations", Route::Free(Maker::OpenAi)),
            ("/login", Route::Unknown(Maker::Nobody)),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE] {
            let path = "/v1/chat/completions";
            assert_eq!(Route::of(&method, path, &HeaderMap::new()), Route::Free(Maker::OpenAi));
            let overridden = [("x-http-method-override".parse().unwrap(), "POST".parse().unwrap())];
            let headers = overridden.into_iter().collect();
            assert_eq!(Route::of(&method, path, &headers), Route::Unknown(Maker::OpenAi));
        }
        // Google takes them for a POST, where a parameter says so; which is for Gemini's routes to stop.
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE] {
            for (path, expected) in [
                ("/v1/models/m:generateContent", Route::Unknown(Maker::Gemini)),
                ("/v1beta/models/m%3AstreamGenerateContent", Route::Unknown(Maker::Gemini)),
                ("/v1/models/m:predict", Route::Unknown(Maker::Gemini)),
                ("/v1/projects/p/models/m:countTokens", Route::Free(Maker::Gemini)),
                ("/v1/models/ft:gpt-4o:org::id", Route::Free(Maker::OpenAi)),
                ("/v1/models/m", Route::Free(Maker::OpenAi)),
                ("/v1beta/models/m", Route::Free(Maker::Gemini)),
            ] {
                // A browser asks what it may do before it does it.
                let expected = match expected {
                    Route::Unknown(maker) if method == Method::OPTIONS => Route::Free(maker),
                    other => other,
                };
                assert_eq!(
                    Route::of(&method, path, &HeaderMap::new()),
                    expected,
                    "{method} {path}"
                );
            }
        }
        let unknown = Method::from_bytes(b"BREW").unwrap();
        assert_eq!(
            Route::of(&unknown, "/v1/chat/completions", &HeaderMap::new()),
            Route::Metered(Api::OpenAiChat, None)
        );
    }
}
