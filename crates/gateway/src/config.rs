//! The configuration file.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;
use tidegate::policy::{FileError, PathPattern, Policy, RuleSpec, Source, Spanned};
use tidegate::{SharedFile, SystemClock};

use crate::address::{parse_address, parse_network};
use crate::identity::Users;
use crate::upstream::UpstreamUrl;

/// The built-in configuration: the demo.
pub(crate) const DEFAULT: &str = include_str!("default.toml");

/// Everything that the gateway needs to know.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// The API behind; without one, the demo.
    pub(crate) upstream: Option<UpstreamUrl>,
    pub(crate) users: Users,
    pub(crate) auth_required: Vec<PathPattern>,
    pub(crate) policy: Policy,
    /// The file that the policy's state is in; without one, it is in this process.
    pub(crate) state: Option<PathBuf>,
    /// Whether others may listen on the same address.
    pub(crate) reuse_port: bool,
}

/// The file as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<Spanned<String>>,
    #[serde(default)]
    trusted_proxies: Vec<Spanned<String>>,
    upstream: Option<UpstreamSpec>,
    #[serde(default)]
    auth: AuthSpec,
    #[serde(default)]
    user: Vec<UserSpec>,
    #[serde(default)]
    rule: Vec<Spanned<RuleSpec>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpstreamSpec {
    url: Spanned<String>,
    api_key_env: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthSpec {
    #[serde(default)]
    required: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserSpec {
    name: Spanned<String>,
    key: Option<Spanned<String>>,
    key_sha256: Option<Spanned<String>>,
}

impl Config {
    /// The demo.
    pub(crate) fn built_in(state: Option<&SharedFile>) -> Result<Self, ConfigError> {
        Ok(Self::parse(&Source::new("built-in", DEFAULT), state)?)
    }

    /// The text of a configuration file.
    pub(crate) fn read(path: &Path) -> Result<String, ConfigError> {
        std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            path: path.display().to_string(),
            reason: error.to_string(),
        })
    }

    pub(crate) fn from_text(
        path: &Path,
        text: &str,
        state: Option<&SharedFile>,
    ) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let config = Self::parse(&Source::new(&name, text), state)?;
        if config.upstream.is_none() {
            tracing::warn!("{name} has no [upstream], so the demo API stands in its place");
        }
        Ok(config)
    }

    fn parse(source: &Source<'_>, state: Option<&SharedFile>) -> Result<Self, FileError> {
        let file: File = source.parse()?;
        let trusted = |text: &Spanned<String>| {
            let network = parse_network(text.get_ref());
            network.map_err(|error| source.error(text.span(), "trusted_proxies", &error))
        };
        let required = |text: &Spanned<String>| {
            let pattern = text.get_ref().parse();
            pattern.map_err(|error| source.error(text.span(), "auth.required", &error))
        };
        Ok(Self {
            listen: listen(file.listen.as_ref(), source)?,
            trusted_proxies: file.trusted_proxies.iter().map(trusted).collect::<Result<_, _>>()?,
            upstream: file.upstream.as_ref().map(|spec| upstream(spec, source)).transpose()?,
            users: users(&file.user, source)?,
            auth_required: file.auth.required.iter().map(required).collect::<Result<_, _>>()?,
            policy: match state {
                None => RuleSpec::policy(&file.rule, source, SystemClock::new())?,
                Some(state) => RuleSpec::shared_policy(&file.rule, source, state)?,
            },
            state: state.map(|state| state.path().to_owned()),
            reuse_port: false,
        })
    }
}

fn listen(text: Option<&Spanned<String>>, source: &Source<'_>) -> Result<SocketAddr, FileError> {
    let Some(text) = text else { return Ok(SocketAddr::from(([127, 0, 0, 1], 8080))) };
    parse_address(text.get_ref()).map_err(|error| source.error(text.span(), "listen", &error))
}

fn upstream(spec: &UpstreamSpec, source: &Source<'_>) -> Result<UpstreamUrl, FileError> {
    let url = &spec.url;
    let upstream = UpstreamUrl::parse(url.get_ref())
        .map_err(|error| source.error(url.span(), "upstream.url", &error))?;
    let Some(variable) = &spec.api_key_env else { return Ok(upstream) };
    let unset = |message: &str| {
        let message = format!("the environment variable `{}` {message}", variable.get_ref());
        source.error(variable.span(), "upstream.api_key_env", &message)
    };
    let key = std::env::var(variable.get_ref())
        .map_err(|_| unset("is not set; set it to the upstream's key, or remove this line"))?;
    upstream.with_api_key(&key).map_err(|_| unset("holds no key that fits a header"))
}

fn users(specs: &[UserSpec], source: &Source<'_>) -> Result<Users, FileError> {
    let mut users = Users::default();
    for spec in specs {
        let (at, added) = match (&spec.key, &spec.key_sha256) {
            (Some(key), None) => (key, users.add_key(spec.name.get_ref(), key.get_ref())),
            (None, Some(hash)) => (hash, users.add_hash(spec.name.get_ref(), hash.get_ref())),
            _ => {
                let message = "give either `key` or `key_sha256`";
                return Err(source.error(spec.name.span(), "user", &message));
            }
        };
        added.map_err(|error| {
            source.error(at.span(), &format!("user `{}`", spec.name.get_ref()), &error)
        })?;
    }
    Ok(users)
}

/// Why there is no configuration.
#[derive(Debug)]
pub(crate) enum ConfigError {
    Unreadable { path: String, reason: String },
    File(FileError),
}

impl From<FileError> for ConfigError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, reason } => {
                write!(
                    f,
                    "cannot read {path}: {reason}; give an existing file, or none for the demo"
                )
            }
            Self::File(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let rule = "\n[[rule]]\nname = \"ip\"\nlimit = \"1 per s\"\nkey = \"ip\"\n";
        let text = format!("{text}{rule}");
        Config::parse(&Source::new("t.toml", &text), None).map(|_| ()).expect_err(&text).to_string()
    }

    #[test]
    fn the_built_in_configuration_has_the_three_layers() {
        let config = Config::built_in(None).unwrap();
        let rules: Vec<_> = config.policy.rules().iter().map(|rule| rule.name()).collect();
        assert_eq!(rules, ["ip", "user", "budget"]);
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert!(config.upstream.is_none());
    }

    #[test]
    fn errors_name_line_field_and_remedy() {
        let cases = [
            (
                "listen = \"8080\"",
                "t.toml:1:10: listen: `8080` is not an address; write it as in `127.0.0.1:8080`",
            ),
            (
                "trusted_proxies = [\"10.0.0.0/8\", \"x\"]",
                "t.toml:1:34: trusted_proxies: `x` is not a network; write it as in `10.0.0.0/8` or `2001:db8::/32`",
            ),
            (
                "[upstream]\nurl = \"ftp://x\"",
                "t.toml:2:7: upstream.url: `ftp://x` is not an upstream; write it as in `https://api.example.com`",
            ),
            (
                "[upstream]\nurl = \"http://x\"\napi_key_env = \"TIDEGATE_NO_SUCH\"",
                "t.toml:3:15: upstream.api_key_env: the environment variable `TIDEGATE_NO_SUCH` is not set; set it to the upstream's key, or remove this line",
            ),
            (
                "[auth]\nrequired = [\"v1\"]",
                "t.toml:2:13: auth.required: `v1` is not a path; begin with `/`, and use `*` only for a whole segment, as in `/v1/*`",
            ),
            ("[[user]]\nname = \"a\"", "t.toml:2:8: user: give either `key` or `key_sha256`"),
            ("[[user]]\nname = \"a\"\nkey = \"\"", "t.toml:3:7: user `a`: the key is empty"),
            (
                "[[user]]\nname = \"a\"\nkey_sha256 = \"abc\"",
                "t.toml:3:14: user `a`: a SHA-256 hash has 64 hexadecimal digits",
            ),
            (
                "[[user]]\nname = \"a\"\nkey = \"k\"\n[[user]]\nname = \"b\"\nkey = \"k\"",
                "t.toml:6:7: user `b`: user `a` has the same key",
            ),
            (
                "lisen = \"x\"",
                "t.toml:1:1: unknown field `lisen`, expected one of `listen`, `trusted_proxies`, `upstream`, `auth`, `user`, `rule`",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(error(text), expected);
        }
    }
}
