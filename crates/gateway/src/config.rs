//! The configuration file.

mod llm_sections;
mod price_section;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use tidegate::SharedFile;
use tidegate::policy::{Backend, FileError, PathPattern, Policy, RuleSpec, Source, Spanned};

use tidegate_redis::{RedisBackend, RedisSpec};

use crate::address::{parse_address, parse_network};
use crate::admin::{Admin, AdminSpec, MetricsSpec};
use crate::client::{ClientSpec, Patience};
use crate::gateway::Gateway;
use crate::identity::{AuthSpec, FailedLogins, Identity, UserSpec};
use crate::llm;
use crate::log::{Format, LogSpec};
use crate::prices::Prices;
use crate::providers::ProviderUrls;
use crate::traces::{Traces, TracingSpec};
use llm_sections::{LlmSpec, ProvidersSpec};
use price_section::{PriceSpec, prices};

/// The built-in configuration: the demo.
pub(crate) const DEFAULT: &str = include_str!("default.toml");

/// Everything that the gateway needs to know.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// The APIs behind.
    pub(crate) providers: ProviderUrls,
    /// How long clients may take.
    pub(crate) patience: Patience,
    pub(crate) llm: llm::Settings,
    pub(crate) prices: Prices,
    pub(crate) identity: Identity,
    pub(crate) failed_logins: FailedLogins,
    pub(crate) operation: Operation,
    /// The paths that only known callers may call, and those of them that all may.
    pub(crate) auth_required: Vec<PathPattern>,
    pub(crate) auth_open: Vec<PathPattern>,
    pub(crate) policy: Policy,
    /// The server that rules are on which several gateways share.
    pub(crate) redis: Option<RedisBackend>,
    /// The file that the policy's state is in; without one, it is in this process.
    pub(crate) state: Option<PathBuf>,
    /// Whether others may listen on the same address.
    pub(crate) reuse_port: bool,
}

/// How the gateway is operated.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operation {
    /// The listener for operators; without one, there is none.
    pub(crate) admin: Option<Admin>,
    /// The listener for metrics and health without a token; without one, there is none.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) log: Format,
    /// Where spans of calls are sent; without it, there are none.
    pub(crate) traces: Option<Traces>,
    /// How long open requests may go on after the stop.
    pub(crate) drain: Duration,
}

/// How long open requests may go on after the stop, unless it is said otherwise.
const DRAIN: Duration = Duration::from_secs(30);

/// What takes a restart to change, by field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fixed(Vec<(&'static str, String)>);

impl Fixed {
    /// The fields that are other than in `next`.
    pub(crate) fn differences(&self, next: &Self) -> Vec<&'static str> {
        let pairs = self.0.iter().zip(&next.0);
        pairs.filter(|(before, after)| before != after).map(|(before, _)| before.0).collect()
    }
}

/// The file as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<Spanned<String>>,
    #[serde(default)]
    trusted_proxies: Vec<Spanned<String>>,
    #[serde(default)]
    client: ClientSpec,
    upstream: Option<ProvidersSpec>,
    #[serde(default)]
    llm: LlmSpec,
    #[serde(default)]
    price: Vec<PriceSpec>,
    #[serde(default)]
    auth: AuthSpec,
    admin: Option<AdminSpec>,
    metrics: Option<MetricsSpec>,
    #[serde(default)]
    log: LogSpec,
    tracing: Option<TracingSpec>,
    drain_timeout_s: Option<u64>,
    redis: Option<RedisSpec>,
    #[serde(default)]
    user: Vec<UserSpec>,
    #[serde(default)]
    rule: Vec<Spanned<RuleSpec>>,
}

/// What is wrong in a file, so far.
#[derive(Default)]
pub(crate) struct Wrong(Vec<FileError>);

impl Wrong {
    pub(crate) fn add(&mut self, error: FileError) {
        self.0.push(error);
    }

    pub(crate) fn note<T>(&mut self, result: Result<T, FileError>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }
}

/// What a configuration is read for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Around<'a> {
    /// The folder that paths in it begin at.
    pub(crate) folder: Option<&'a Path>,
    /// The file that the policy's state is in; without one, it is in this process.
    pub(crate) state: Option<&'a SharedFile>,
    /// The configuration before, whose counters go on.
    pub(crate) former: Option<&'a Gateway>,
}

impl Config {
    /// The demo.
    pub(crate) fn built_in(
        state: Option<&SharedFile>,
        former: Option<&Gateway>,
    ) -> Result<Self, ConfigError> {
        let around = Around { state, former, ..Around::default() };
        Self::parse(&Source::new("built-in", DEFAULT), around)
    }

    /// What takes a restart to change.
    pub(crate) fn fixed(&self) -> Fixed {
        let Operation { admin, metrics, log, traces, .. } = &self.operation;
        Fixed(vec![
            ("listen", self.listen.to_string()),
            ("client", format!("{:?}", (self.patience.head, self.patience.take))),
            ("admin.listen", format!("{:?}", admin.as_ref().map(|admin| admin.listen))),
            ("metrics.listen", format!("{metrics:?}")),
            ("log.format", format!("{log:?}")),
            ("tracing", format!("{traces:?}")),
        ])
    }

    /// The text of a configuration file.
    pub(crate) fn read(path: &Path) -> Result<String, ConfigError> {
        std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            path: path.display().to_string(),
            reason: error.to_string(),
        })
    }

    /// The configuration in a file's text; or all that is wrong with it.
    pub(crate) fn from_text(
        path: &Path,
        text: &str,
        state: Option<&SharedFile>,
        former: Option<&Gateway>,
    ) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        Self::parse(&Source::new(&name, text), Around { folder: path.parent(), state, former })
    }

    fn parse(source: &Source<'_>, around: Around<'_>) -> Result<Self, ConfigError> {
        let (file, errors) = source.parse_all::<File>();
        let mut wrong = Wrong(errors);
        let built = file.and_then(|file| Self::build(&file, source, around, &mut wrong));
        match built {
            Some(config) if wrong.0.is_empty() => Ok(config),
            _ => {
                wrong.0.sort_by_key(|error| (error.line(), error.column()));
                Err(ConfigError::Wrong(wrong.0))
            }
        }
    }

    /// The configuration of a file, as far as nothing is wrong with it.
    fn build(
        file: &File,
        source: &Source<'_>,
        around: Around<'_>,
        wrong: &mut Wrong,
    ) -> Option<Self> {
        let trusted = |text: &Spanned<String>| {
            let network = parse_network(text.get_ref());
            wrong
                .note(network.map_err(|error| source.error(text.span(), "trusted_proxies", &error)))
        };
        let trusted_proxies = file.trusted_proxies.iter().filter_map(trusted).collect();
        let listen = wrong.note(listen(file.listen.as_ref(), source));
        let providers = wrong.note(ProvidersSpec::build(file.upstream.as_ref(), source));
        let patience = wrong.note(file.client.build(source));
        let llm = wrong.note(file.llm.build(source));
        let identity = file.auth.identity(&file.user, source, around.folder, wrong);
        let failed_logins = file.auth.failed_logins(source, around, wrong);
        let auth_required = file.auth.required(source, wrong);
        let auth_open = file.auth.open(source, wrong);
        let operation = Operation {
            admin: file.admin.as_ref().and_then(|spec| spec.build(source, wrong)),
            metrics: file.metrics.as_ref().and_then(|spec| spec.build(source, wrong)),
            log: file.log.build(source, wrong),
            traces: TracingSpec::build(file.tracing.as_ref(), source, wrong),
            drain: file.drain_timeout_s.map_or(DRAIN, Duration::from_secs),
        };
        let (redis, policy) = policy(file, source, around, wrong).unzip();
        let prices = policy.as_ref().map(|policy| prices(&file.price, policy, source));
        let prices = prices.and_then(|prices| wrong.note(prices));
        Some(Self {
            listen: listen?,
            trusted_proxies,
            providers: providers?,
            patience: patience?,
            llm: llm?,
            prices: prices?,
            identity,
            failed_logins: failed_logins?,
            operation,
            auth_required,
            auth_open,
            policy: policy?,
            redis: redis?,
            state: around.state.map(|state| state.path().to_owned()),
            reuse_port: false,
        })
    }
}

/// The policy, and the server that its rules are on, where there is one.
fn policy(
    file: &File,
    source: &Source<'_>,
    around: Around<'_>,
    wrong: &mut Wrong,
) -> Option<(Option<RedisBackend>, Policy)> {
    let former = around.former.and_then(Gateway::redis);
    let redis = file.redis.as_ref().map(|spec| wrong.note(spec.backend(source, former)));
    let redis = match redis {
        None => None,
        Some(redis) => Some(redis?),
    };
    let backend = redis.as_ref().map(|redis| redis as &dyn Backend);
    let former = around.former.map(Gateway::policy);
    match RuleSpec::reload_on(&file.rule, source, around.state, former, backend) {
        Ok(policy) => Some((redis, policy)),
        Err(errors) => {
            errors.into_iter().for_each(|error| wrong.add(error));
            None
        }
    }
}

fn listen(text: Option<&Spanned<String>>, source: &Source<'_>) -> Result<SocketAddr, FileError> {
    let Some(text) = text else { return Ok(SocketAddr::from(([127, 0, 0, 1], 8080))) };
    parse_address(text.get_ref()).map_err(|error| source.error(text.span(), "listen", &error))
}

/// Why there is no configuration.
#[derive(Debug)]
pub(crate) enum ConfigError {
    Unreadable {
        path: String,
        reason: String,
    },
    /// All that is wrong in it.
    Wrong(Vec<FileError>),
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
            Self::Wrong(errors) => {
                let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join("\nerror: "))
            }
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
        let config = Config::parse(&Source::new("t.toml", &text), Around::default());
        config.map(|_| ()).expect_err(&text).to_string()
    }

    #[test]
    fn the_built_in_configuration_has_the_three_layers() {
        let config = Config::built_in(None, None).unwrap();
        let rules: Vec<_> = config.policy.rules().iter().map(|rule| rule.name()).collect();
        assert_eq!(rules, ["ip", "user", "budget"]);
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert!(config.providers.main.is_none());
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
                "[client]\nbody_timeout_s = 0",
                "t.toml:2:18: client.body_timeout_s: nobody would be in time; give at least 1",
            ),
            (
                "[llm]\nmax_body_bytes = 1000\nmax_bodies_bytes = 3999",
                "t.toml:3:20: llm.max_bodies_bytes: one client may have a quarter of it, which must hold a body of `max_body_bytes`; give at least 4000",
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
                "[tracing]\nendpoint = \"localhost:4318\"\nsample_ratio = 10",
                "t.toml:2:12: tracing.endpoint: `localhost:4318` is not a collector; write it as in `http://localhost:4318`\n\
                 error: t.toml:3:16: tracing.sample_ratio: 10 is no share of calls; give 0.0 to 1.0",
            ),
            (
                "lisen = \"x\"",
                "t.toml:1:1: unknown field `lisen`, expected one of `listen`, `trusted_proxies`, `client`, `upstream`, `llm`, `price`, `auth`, `admin`, `metrics`, `log`, `tracing`, `drain_timeout_s`, `redis`, `user`, `rule`",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(error(text), expected);
        }
    }
}
