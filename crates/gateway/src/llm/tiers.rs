//! [`Tiers`]: ways of serving a call that cost more or less.

use serde::Deserialize;

use super::members::Members;
use super::request::{RequestError, one_of, text};

/// How a call is to be served, or was: each in lower case, where it is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Tiers {
    #[serde(default, deserialize_with = "lower_case")]
    service_tier: Option<String>,
    /// Anthropic's faster way.
    #[serde(default, deserialize_with = "lower_case")]
    speed: Option<String>,
    /// Where Anthropic's models run.
    #[serde(default, deserialize_with = "lower_case")]
    inference_geo: Option<String>,
}

/// The usual way, or that which the operator's account is set to.
const USUAL: [&str; 8] =
    ["", "auto", "default", "standard", "standard_only", "on_demand", "global", "not_available"];

impl Tiers {
    pub(super) fn asked(members: &Members<'_>) -> Result<Self, RequestError> {
        let service_tier = one_of(members, ["service_tier", "serviceTier"])?;
        let read = |value, field| {
            let tier = text(value, field)?;
            Ok::<_, RequestError>(tier.map(|tier| tier.to_lowercase()))
        };
        Ok(Self {
            service_tier: read(service_tier.map(|(value, _)| value), "service_tier")?,
            speed: read(members.find("speed"), "speed")?,
            inference_geo: read(members.find("inference_geo"), "inference_geo")?,
        })
    }

    /// With this service tier.
    pub(super) fn of_service(tier: &str) -> Self {
        Self { service_tier: Some(tier.to_lowercase()), ..Self::default() }
    }

    /// These, where the others do not tell more.
    pub(crate) fn then(&self, later: &Self) -> Self {
        let one =
            |later: &Option<String>, own: &Option<String>| later.as_ref().or(own.as_ref()).cloned();
        Self {
            service_tier: one(&later.service_tier, &self.service_tier),
            speed: one(&later.speed, &self.speed),
            inference_geo: one(&later.inference_geo, &self.inference_geo),
        }
    }

    /// What is not as usual.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let all = [&self.service_tier, &self.speed, &self.inference_geo];
        let all = all.into_iter().flatten().map(String::as_str);
        all.map(|name| name.strip_prefix("service_tier_").unwrap_or(name))
            .filter(|name| !USUAL.contains(name))
    }
}

fn lower_case<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(value)?.map(|text| text.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> Vec<String> {
        let tiers = Tiers::asked(&Members::read(body).unwrap()).unwrap();
        tiers.names().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_not_as_usual_is_told_however_it_is_spelt() {
        assert_eq!(asked(r#"{"service_tier":"Priority"}"#), ["priority"]);
        assert_eq!(asked(r#"{"serviceTier":"SERVICE_TIER_FLEX"}"#), ["flex"]);
        assert_eq!(asked(r#"{"service\u005ftier":"scale"}"#), ["scale"]);
        assert_eq!(asked(r#"{"speed":"fast","inference_geo":"us"}"#), ["fast", "us"]);
        for usual in ["auto", "default", "standard", "standard_only"] {
            assert!(asked(&format!(r#"{{"service_tier":"{usual}"}}"#)).is_empty());
        }
        assert!(asked(r#"{"service_tier":null,"inference_geo":"global"}"#).is_empty());
    }

    #[test]
    fn what_is_told_later_counts_and_what_is_not_told_stays() {
        let asked = Tiers::of_service("priority");
        let served: Tiers = serde_json::from_str(r#"{"service_tier":"Default"}"#).unwrap();
        assert_eq!(asked.then(&served).names().count(), 0);
        assert_eq!(asked.then(&Tiers::default()), asked);
    }
}
