//! Keys: by what a rule tells callers apart.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::str::FromStr;

use tidegate_core::Key;

use super::Call;
use super::engine::Caller;
use crate::client;

/// One part of a rule's key. With several parts, each combination of values has a limit of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// The client's address: IPv4 whole, IPv6 by the rule's prefix.
    Ip,
    /// The authenticated user.
    User,
    /// The authenticated user's team.
    Team,
    /// The API key, of which a user may have several.
    ApiKey,
    /// The model that is called.
    Model,
    /// The route: one for all paths that reach a handler.
    Route,
    /// The value of a header.
    Header(String),
    /// Nothing: one limit for all calls together.
    Global,
}

/// What a rule does with a call that does not have its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MissingKey {
    /// The call is denied.
    #[default]
    Deny,
    /// All calls without the key share one limit: those that lack any part of it.
    Share,
    /// The rule does not apply, by its author's explicit wish; others may.
    Skip,
}

impl MissingKey {
    pub(super) const NAMES: [(&'static str, Self); 3] =
        [("deny", Self::Deny), ("share", Self::Share), ("skip", Self::Skip)];
}

/// The value of one part for a call, so that values of different parts never hash alike.
enum Value<'a> {
    Ip(std::net::IpAddr),
    User(&'a str),
    Header(&'a str),
    Global,
    Missing,
    // After the others, so that these hash as they always have, in files too.
    Team(&'a str),
    ApiKey(&'a str),
    Model(&'a str),
    Route(&'a str),
}

impl Hash for Value<'_> {
    // As derived, but in line: it is on the way of every decision.
    #[inline(always)]
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Ip(ip) => ip.hash(state),
            Self::User(text)
            | Self::Header(text)
            | Self::Team(text)
            | Self::ApiKey(text)
            | Self::Model(text)
            | Self::Route(text) => text.hash(state),
            Self::Global | Self::Missing => {}
        }
    }
}

impl KeyPart {
    fn value<'a>(&self, call: &Call<'a>, ipv6_prefix: u8) -> Option<Value<'a>> {
        Some(match self {
            Self::Ip => Value::Ip(client::masked(call.ip()?, ipv6_prefix)),
            Self::User => Value::User(call.user()?),
            Self::Team => Value::Team(call.team()?),
            Self::ApiKey => Value::ApiKey(call.api_key()?),
            Self::Model => Value::Model(call.model()?),
            Self::Route => Value::Route(call.route()?),
            Self::Header(name) => Value::Header(call.header(name)?),
            Self::Global => Value::Global,
        })
    }
}

/// The key of a call, and the first part that the call does not have, if any.
#[inline(always)]
pub(super) fn key_of<'p>(
    parts: &'p [KeyPart],
    call: &Call<'_>,
    ipv6_prefix: u8,
    hasher: &impl BuildHasher,
) -> (Key, Option<&'p KeyPart>) {
    let (mut state, mut missing) = (hasher.build_hasher(), None);
    for part in parts {
        let value = part.value(call, ipv6_prefix).unwrap_or_else(|| {
            missing = missing.or(Some(part));
            Value::Missing
        });
        value.hash(&mut state);
    }
    (Key::from_hash(state.finish()), missing)
}

/// The key that all calls share which do not have some part of theirs.
#[cold]
pub(super) fn shared_key(hasher: &impl BuildHasher) -> Key {
    Key::from_hash(hasher.hash_one(Value::Missing))
}

/// The key of a call, as an engine has it: the same in all processes. The engine's own keys are hashes of it.
pub(super) fn caller_of(parts: &[KeyPart], call: &Call<'_>, ipv6_prefix: u8) -> Caller {
    let mut caller = Caller::default();
    for part in parts {
        let value = part.value(call, ipv6_prefix);
        if value.is_none() {
            // One for all calls that do not have some part.
            caller = Caller::default();
            caller.push("none", "");
            return caller;
        }
        match value {
            Some(Value::Ip(ip)) => caller.push("ip", &ip.to_string()),
            Some(Value::User(text)) => caller.push("user", text),
            Some(Value::Team(text)) => caller.push("team", text),
            Some(Value::ApiKey(text)) => caller.push("api-key", text),
            Some(Value::Model(text)) => caller.push("model", text),
            Some(Value::Route(text)) => caller.push("route", text),
            Some(Value::Header(text)) => caller.push("header", text),
            Some(Value::Global) => caller.push("global", ""),
            Some(Value::Missing) | None => caller.push("none", ""),
        }
    }
    caller
}

/// Headers whose values are secrets.
const SECRET: [&str; 6] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-api-key",
    "x-auth-token",
    "x-goog-api-key",
];

/// What a call's key is called, for people: the values of its parts, but those of headers that hold
/// secrets; one name for all calls that do not have some part.
pub(super) fn text_of(parts: &[KeyPart], call: &Call<'_>, ipv6_prefix: u8) -> String {
    if parts.iter().any(|part| part.value(call, ipv6_prefix).is_none()) {
        return "(none)".to_owned();
    }
    let text = |part: &KeyPart| match (part, part.value(call, ipv6_prefix)) {
        (KeyPart::Header(name), Some(_)) if SECRET.contains(&name.as_str()) => {
            "(secret)".to_owned()
        }
        (_, None | Some(Value::Missing)) => "(none)".to_owned(),
        (_, Some(Value::Ip(ip @ std::net::IpAddr::V6(_)))) if ipv6_prefix < 128 => {
            format!("{ip}/{ipv6_prefix}")
        }
        (_, Some(Value::Ip(ip))) => ip.to_string(),
        (
            _,
            Some(
                Value::User(text)
                | Value::Team(text)
                | Value::ApiKey(text)
                | Value::Model(text)
                | Value::Route(text)
                | Value::Header(text),
            ),
        ) => text.to_owned(),
        (_, Some(Value::Global)) => "everybody".to_owned(),
    };
    parts.iter().map(text).collect::<Vec<_>>().join(" · ")
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip => f.write_str("ip"),
            Self::User => f.write_str("user"),
            Self::Team => f.write_str("team"),
            Self::ApiKey => f.write_str("api-key"),
            Self::Model => f.write_str("model"),
            Self::Route => f.write_str("route"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Global => f.write_str("global"),
        }
    }
}

impl FromStr for KeyPart {
    type Err = UnknownKeyPart;

    fn from_str(text: &str) -> Result<Self, UnknownKeyPart> {
        let is_token = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        match text {
            "ip" => Ok(Self::Ip),
            "user" => Ok(Self::User),
            "team" => Ok(Self::Team),
            "api-key" => Ok(Self::ApiKey),
            "model" => Ok(Self::Model),
            "route" => Ok(Self::Route),
            "global" => Ok(Self::Global),
            _ => match text.strip_prefix("header:") {
                Some(name) if is_token(name) => Ok(Self::Header(name.to_ascii_lowercase())),
                _ => Err(UnknownKeyPart { text: text.to_owned() }),
            },
        }
    }
}

/// A text names no part of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKeyPart {
    text: String,
}

impl fmt::Display for UnknownKeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a key; use `ip`, `user`, `team`, `api-key`, `model`, `route`, `header:<name>` or `global`",
            self.text
        )
    }
}

impl std::error::Error for UnknownKeyPart {}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[KeyPart], call: &Call<'_>) -> (Key, bool) {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let (key, missing) = key_of(parts, call, 64, &hasher);
        (key, missing.is_some())
    }

    #[test]
    fn parts_are_told_apart_and_combined() {
        let call = Call::new("GET", "/").by_user("192.0.2.1").from_ip("192.0.2.1".parse().unwrap());
        let call = call.of_team("192.0.2.1").by_api_key("192.0.2.1");
        let call = call.on_model("192.0.2.1").on_route("192.0.2.1");
        let keys = [
            key(&[KeyPart::Ip], &call),
            key(&[KeyPart::User], &call),
            key(&[KeyPart::Team], &call),
            key(&[KeyPart::ApiKey], &call),
            key(&[KeyPart::Model], &call),
            key(&[KeyPart::Route], &call),
            key(&[KeyPart::Global], &call),
            key(&[KeyPart::Ip, KeyPart::User], &call),
            key(&[KeyPart::User, KeyPart::Ip], &call),
        ];
        for (index, one) in keys.iter().enumerate() {
            assert!(!one.1);
            assert!(keys[..index].iter().all(|other| other.0 != one.0), "{index}");
        }
    }

    #[test]
    fn addresses_of_one_network_are_one_key() {
        let from =
            |ip: &str| key(&[KeyPart::Ip], &Call::new("GET", "/").from_ip(ip.parse().unwrap()));
        assert_eq!(from("2001:db8::1"), from("2001:db8::ffff:ffff"));
        assert_ne!(from("2001:db8::1"), from("2001:db8:0:1::1"));
        assert_eq!(from("::ffff:192.0.2.1"), from("192.0.2.1"));
        assert_ne!(from("::ffff:192.0.2.1"), from("::ffff:192.0.2.2"));
    }

    #[test]
    fn keys_are_called_by_their_values_but_secrets_are_not_told() {
        struct Secret;
        impl crate::policy::Headers for Secret {
            fn header(&self, _: &str) -> Option<&str> {
                Some("value")
            }
        }
        let call = Call::new("GET", "/").by_user("alice").with_headers(&Secret);
        let text = |keys: &[&str], call: &Call<'_>| {
            let parts: Vec<KeyPart> = keys.iter().map(|key| key.parse().unwrap()).collect();
            text_of(&parts, call, 64)
        };
        assert_eq!(text(&["user", "header:x-plan"], &call), "alice · value");
        assert_eq!(text(&["header:authorization"], &call), "(secret)");
        assert_eq!(text(&["user", "global"], &call), "alice · everybody");
        assert_eq!(text(&["ip", "global"], &call), "(none)", "one for all who have no address");
        let from = |ip: &str| text(&["ip"], &call.from_ip(ip.parse().unwrap()));
        assert_eq!(from("192.0.2.1"), "192.0.2.1");
        assert_eq!(from("2001:db8::1:2:3:4"), "2001:db8::/64");
    }

    #[test]
    fn a_missing_part_is_noticed_and_hashes_like_no_value() {
        let nobody = Call::new("GET", "/");
        assert!(key(&[KeyPart::User], &nobody).1);
        assert_ne!(key(&[KeyPart::User], &nobody).0, key(&[KeyPart::User], &nobody.by_user("")).0);
    }

    /// On an engine as here.
    #[test]
    fn callers_that_lack_some_part_are_one() {
        let (user, team) = (KeyPart::User, KeyPart::Team);
        let call = Call::new("GET", "/");
        let caller = |call: &Call<'_>| {
            caller_of(&[user.clone(), team.clone()], call, 64).as_str().to_owned()
        };
        assert_eq!(caller(&call), caller(&call.by_user("alice")));
        assert_eq!(caller(&call), caller(&call.of_team("red")));
        assert_ne!(caller(&call), caller(&call.by_user("alice").of_team("red")));
        assert_ne!(caller(&call), caller(&call.by_user("").of_team("")));
    }

    #[test]
    fn one_part_that_is_missing_is_enough_and_the_first_is_told() {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let call = Call::new("GET", "/").by_user("alice");
        let missing = |parts: &[KeyPart]| {
            key_of(parts, &call, 64, &hasher).1.map(|part: &KeyPart| part.to_string())
        };
        let (user, team, model) = (KeyPart::User, KeyPart::Team, KeyPart::Model);
        assert_eq!(missing(&[user.clone(), team.clone()]).as_deref(), Some("team"));
        assert_eq!(missing(&[team.clone(), user.clone()]).as_deref(), Some("team"));
        assert_eq!(missing(&[user.clone(), model, team]).as_deref(), Some("model"));
        assert_eq!(missing(&[user]), None);
    }
}
