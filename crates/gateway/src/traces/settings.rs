//! `[tracing]`, and what the environment says in its place.

use std::fmt;

use serde::Deserialize;
use tidegate::policy::{Source, Spanned};

use crate::config::Wrong;
use crate::upstream::UpstreamUrl;

/// Where spans are sent, and of how many calls.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Traces {
    /// The whole URL; without one, what the environment says, or the usual one on this machine.
    pub(super) endpoint: Option<String>,
    /// The share of calls that have a span, where the caller does not say whether they do; without one,
    /// what the environment says, or all.
    pub(super) sample_ratio: Option<f64>,
}

/// `[tracing]` as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TracingSpec {
    endpoint: Option<Spanned<String>>,
    sample_ratio: Option<Spanned<f64>>,
}

/// What OTLP has after the address of a collector.
const PATH: &str = "/v1/traces";

/// Variables that name a collector.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

impl TracingSpec {
    /// What is asked for, by the file or the environment; `None` when neither asks.
    pub(crate) fn build(
        spec: Option<&Self>,
        source: &Source<'_>,
        wrong: &mut Wrong,
    ) -> Option<Traces> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let is_off = variable("OTEL_SDK_DISABLED")
            .is_some_and(|off| off.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none");
        let is_asked = ENDPOINTS.iter().any(|name| variable(name).is_some())
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "otlp");
        let traces = match spec {
            Some(spec) => spec.traces(source, wrong),
            None if is_asked => Traces { endpoint: None, sample_ratio: None },
            None => return None,
        };
        (!is_off).then_some(traces)
    }

    fn traces(&self, source: &Source<'_>, wrong: &mut Wrong) -> Traces {
        let endpoint =
            self.endpoint.as_ref().and_then(|text| match UpstreamUrl::parse(text.get_ref()) {
                Ok(url) => Some(format!("{url}{PATH}")),
                Err(_) => {
                    let message = if text.get_ref().contains('@') {
                        // It may have a password, which is for no log.
                        "a collector's URL has no `user:password@`; give what it asks for by \
                         OTEL_EXPORTER_OTLP_HEADERS"
                            .to_owned()
                    } else {
                        format!(
                            "`{}` is not a collector; write it as in `http://localhost:4318`",
                            text.get_ref()
                        )
                    };
                    wrong.add(source.error(text.span(), "tracing.endpoint", &message));
                    None
                }
            });
        let sample_ratio = self.sample_ratio.as_ref().map(|ratio| {
            if !(0.0..=1.0).contains(ratio.get_ref()) {
                let message = format!("{} is no share of calls; give 0.0 to 1.0", ratio.get_ref());
                wrong.add(source.error(ratio.span(), "tracing.sample_ratio", &message));
            }
            *ratio.get_ref()
        });
        Traces { endpoint, sample_ratio }
    }
}

impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sample_ratio {
            Some(ratio) if ratio < 1.0 => write!(f, "{ratio} of the calls have a span")?,
            _ => f.write_str("each call has a span")?,
        }
        let named = ENDPOINTS.iter().find(|name| std::env::var_os(name).is_some());
        match (&self.endpoint, named) {
            (Some(endpoint), _) => write!(f, ", sent to {endpoint}"),
            (None, Some(variable)) => write!(f, ", sent where {variable} says"),
            (None, None) => write!(f, ", sent to http://localhost:4318{PATH}"),
        }
    }
}
