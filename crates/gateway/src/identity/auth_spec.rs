//! The configuration of identity: `[auth]` and `[[user]]`.

use std::path::{Path, PathBuf};

use http::header::HeaderName;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tidegate::TrustedProxies;
use tidegate::policy::{PathPattern, Source, Spanned};

use super::jwt::{Tokens, Verifier};
use super::keys::{KeyError, KeyHash, Keys};
use super::keys_file::{self, KeysError};
use super::proxy_header::ProxyHeader;
use super::{FailedLogins, Identity};
use crate::address::parse_network;
use crate::config::{Around, Wrong};
use crate::gateway::Gateway;

/// `[auth]` as it stands.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthSpec {
    #[serde(default)]
    required: Vec<Spanned<String>>,
    #[serde(default)]
    open: Vec<Spanned<String>>,
    keys_file: Option<Spanned<String>>,
    failed_logins: Option<Spanned<String>>,
    login_paths: Option<Vec<Spanned<String>>>,
    header: Option<HeaderSpec>,
    #[serde(default)]
    jwt: Vec<Spanned<JwtSpec>>,
}

/// `[[user]]` as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserSpec {
    name: Spanned<String>,
    team: Option<String>,
    key: Option<Spanned<String>>,
    key_sha256: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderSpec {
    user: Spanned<String>,
    team: Option<Spanned<String>>,
    from: Spanned<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JwtSpec {
    issuer: String,
    audience: Audience,
    algorithm: Spanned<String>,
    secret_env: Option<Spanned<String>>,
    key_file: Option<Spanned<String>>,
    jwks_file: Option<Spanned<String>>,
    #[serde(default = "sub")]
    user_claim: String,
    team_claim: Option<String>,
    #[serde(default = "half_a_minute")]
    leeway_s: u64,
}

fn sub() -> String {
    "sub".to_owned()
}

fn half_a_minute() -> u64 {
    30
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Wrong keys and passwords of an address in a minute, unless it is said otherwise.
const FAILED_LOGINS: &str = "20 per minute";

/// Where people log in, unless it is said otherwise.
const LOGIN_PATHS: [&str; 6] =
    ["/login", "/signin", "/auth/login", "/api/login", "/v1/login", "/oauth/token"];

impl AuthSpec {
    /// The paths that only known users may call.
    pub(crate) fn required(&self, source: &Source<'_>, wrong: &mut Wrong) -> Vec<PathPattern> {
        paths(&self.required, "auth.required", source, wrong)
    }

    /// The paths that all may call, though they are among those.
    pub(crate) fn open(&self, source: &Source<'_>, wrong: &mut Wrong) -> Vec<PathPattern> {
        paths(&self.open, "auth.open", source, wrong)
    }

    pub(crate) fn failed_logins(
        &self,
        source: &Source<'_>,
        around: Around<'_>,
        wrong: &mut Wrong,
    ) -> Option<FailedLogins> {
        const FIELD: &str = "auth.failed_logins";
        let text = self.failed_logins.as_ref().map_or(FAILED_LOGINS, |text| text.get_ref());
        let span = self.failed_logins.as_ref().map_or(0..0, Spanned::span);
        let rate = text.parse().map_err(|error| source.error(span.clone(), FIELD, &error));
        let login_paths = match &self.login_paths {
            Some(given) => paths(given, "auth.login_paths", source, wrong),
            None => LOGIN_PATHS.iter().filter_map(|path| path.parse().ok()).collect(),
        };
        let former = around.former.map(Gateway::failed_logins);
        let logins = FailedLogins::new(wrong.note(rate)?, login_paths, around.state, former);
        wrong.note(logins.map_err(|error| source.error(span, FIELD, &error)))
    }

    pub(crate) fn identity(
        &self,
        users: &[UserSpec],
        source: &Source<'_>,
        folder: Option<&Path>,
        wrong: &mut Wrong,
    ) -> Identity {
        let mut identity = Identity::default();
        let place =
            |path: &str| folder.map_or_else(|| PathBuf::from(path), |folder| folder.join(path));
        for user in users {
            user.add_to(&mut identity.keys, source, wrong);
        }
        if let Some(path) = &self.keys_file {
            let file = place(path.get_ref());
            match keys_file::read(&file, &mut identity.keys) {
                Ok(()) => {}
                Err(KeysError::Wrong(errors)) => {
                    errors.into_iter().for_each(|error| wrong.add(error))
                }
                Err(error) => wrong.add(source.error(path.span(), "auth.keys_file", &error)),
            }
            identity.files.push(file);
        }
        identity.header = self.header.as_ref().and_then(|spec| spec.build(source, wrong));
        let mut verifiers = Vec::new();
        for spec in &self.jwt {
            let files = [&spec.get_ref().key_file, &spec.get_ref().jwks_file];
            identity.files.extend(files.into_iter().flatten().map(|file| place(file.get_ref())));
            verifiers.extend(spec.get_ref().build(spec.span(), source, &place, wrong));
        }
        identity.tokens = Tokens::of(verifiers);
        identity
    }
}

fn paths(
    texts: &[Spanned<String>],
    field: &str,
    source: &Source<'_>,
    wrong: &mut Wrong,
) -> Vec<PathPattern> {
    let pattern = |text: &Spanned<String>| {
        let pattern = text.get_ref().parse();
        wrong.note(pattern.map_err(|error| source.error(text.span(), field, &error)))
    };
    texts.iter().filter_map(pattern).collect()
}

impl UserSpec {
    fn add_to(&self, keys: &mut Keys, source: &Source<'_>, wrong: &mut Wrong) {
        let (at, hash) = match (&self.key, &self.key_sha256) {
            (Some(key), None) if key.get_ref().is_empty() => (key, Err(KeyError::EmptyKey)),
            (Some(key), None) => (key, Ok(KeyHash::of(key.get_ref().as_bytes()))),
            (None, Some(hash)) => (hash, hash.get_ref().parse()),
            _ => {
                let message = "give either `key` or `key_sha256`";
                wrong.add(source.error(self.name.span(), "user", &message));
                return;
            }
        };
        let name = self.name.get_ref();
        if let Err(error) = hash.and_then(|hash| keys.add(name, self.team.as_deref(), hash)) {
            wrong.add(source.error(at.span(), &format!("user `{name}`"), &error));
        }
    }
}

impl HeaderSpec {
    fn build(&self, source: &Source<'_>, wrong: &mut Wrong) -> Option<ProxyHeader> {
        let header = |name: &Spanned<String>, field: &str| {
            name.get_ref().parse::<HeaderName>().map_err(|_| {
                let message = format!("`{}` is not the name of a header", name.get_ref());
                source.error(name.span(), field, &message)
            })
        };
        let user = wrong.note(header(&self.user, "auth.header.user"));
        let team = self.team.as_ref().map(|team| wrong.note(header(team, "auth.header.team")));
        let network = |text: &Spanned<String>| {
            let network = parse_network(text.get_ref());
            wrong.note(
                network.map_err(|error| source.error(text.span(), "auth.header.from", &error)),
            )
        };
        let from: Vec<_> = self.from.get_ref().iter().filter_map(network).collect();
        if self.from.get_ref().is_empty() {
            let message = "name the proxies that may say who calls; without one, the header is \
                           believed of nobody";
            wrong.add(source.error(self.from.span(), "auth.header.from", &message));
        }
        let team = match team {
            Some(None) => return None,
            Some(team) => team,
            None => None,
        };
        Some(ProxyHeader { user: user?, team, from: TrustedProxies::new(from) })
    }
}

const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

impl JwtSpec {
    fn build(
        &self,
        span: std::ops::Range<usize>,
        source: &Source<'_>,
        place: &impl Fn(&str) -> PathBuf,
        wrong: &mut Wrong,
    ) -> Vec<Verifier> {
        let known = ALGORITHMS.iter().find(|(name, _)| name == self.algorithm.get_ref());
        let Some(&(_, algorithm)) = known else {
            let names = ALGORITHMS.map(|(name, _)| name).join("`, `");
            let message =
                format!("`{}` is not known; use one of `{names}`", self.algorithm.get_ref());
            wrong.add(source.error(self.algorithm.span(), "auth.jwt.algorithm", &message));
            return Vec::new();
        };
        let audience = match &self.audience {
            Audience::One(one) => vec![one.clone()],
            Audience::Several(several) => several.clone(),
        };
        if self.issuer.is_empty() || audience.is_empty() || audience.iter().any(String::is_empty) {
            let message =
                "`issuer` and `audience` must not be empty: a token for others must not do here";
            wrong.add(source.error(span, "auth.jwt", &message));
            return Vec::new();
        }
        let keys = match self.keys(algorithm, span, place) {
            Ok(keys) => keys,
            Err((span, field, message)) => {
                wrong.add(source.error(span, &format!("auth.jwt.{field}"), &message));
                return Vec::new();
            }
        };
        let verifier = |(kid, key)| Verifier {
            issuer: self.issuer.clone(),
            kid,
            key,
            algorithm,
            validation: Verifier::validation(algorithm, &self.issuer, &audience, self.leeway_s),
            user_claim: self.user_claim.clone(),
            team_claim: self.team_claim.clone(),
        };
        keys.into_iter().map(verifier).collect()
    }

    /// The keys, with their names; or where it is wrong, and why.
    fn keys(
        &self,
        algorithm: Algorithm,
        span: std::ops::Range<usize>,
        place: &impl Fn(&str) -> PathBuf,
    ) -> Result<Vec<NamedKey>, Misplaced> {
        let is_secret = matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
        let read = |file: &Spanned<String>, field: &'static str| {
            let path = place(file.get_ref());
            std::fs::read_to_string(&path).map_err(|error| {
                (file.span(), field, format!("cannot read {}: {error}", path.display()))
            })
        };
        match (&self.secret_env, &self.key_file, &self.jwks_file) {
            (Some(variable), None, None) if is_secret => {
                let name = variable.get_ref();
                let wrong = |what: &str| {
                    let message = format!("the environment variable `{name}` {what}");
                    (variable.span(), "secret_env", message)
                };
                let secret = std::env::var(name).map_err(|_| wrong("is not set"))?;
                // RFC 7518, section 3.2: as long as the hash at least.
                if secret.len() < 32 {
                    return Err(wrong("is too short for a secret; give at least 32 bytes"));
                }
                Ok(vec![(None, DecodingKey::from_secret(secret.as_bytes()))])
            }
            (None, Some(file), None) if !is_secret => {
                let pem = read(file, "key_file")?;
                let key = match algorithm {
                    Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem.as_bytes()),
                    Algorithm::EdDSA => DecodingKey::from_ed_pem(pem.as_bytes()),
                    _ => DecodingKey::from_rsa_pem(pem.as_bytes()),
                };
                let what = format!(
                    "{} is no public key in PEM for `{}`",
                    file.get_ref(),
                    self.algorithm.get_ref()
                );
                Ok(vec![(None, key.map_err(|_| (file.span(), "key_file", what))?)])
            }
            (None, None, Some(file)) if !is_secret => {
                let text = read(file, "jwks_file")?;
                let keys = jwks(&text, algorithm);
                keys.map_err(|message| (file.span(), "jwks_file", message))
            }
            _ => {
                let message = if is_secret {
                    "give `secret_env`, which names an environment variable that holds the secret"
                } else {
                    "give `key_file`, a public key in PEM, or `jwks_file`, a set of them in JSON"
                };
                Err((span, "algorithm", message.to_owned()))
            }
        }
    }
}

/// A key, with its name if it has one.
type NamedKey = (Option<String>, DecodingKey);

/// Where the file is wrong, in which field, and why.
type Misplaced = (std::ops::Range<usize>, &'static str, String);

/// The keys of a JWK set that are for an algorithm.
fn jwks(text: &str, algorithm: Algorithm) -> Result<Vec<NamedKey>, String> {
    let set: jsonwebtoken::jwk::JwkSet =
        serde_json::from_str(text).map_err(|error| format!("it is no JWK set: {error}"))?;
    let mut keys = Vec::new();
    for jwk in &set.keys {
        let for_another = jwk
            .common
            .key_algorithm
            .and_then(|name| name.to_string().parse::<Algorithm>().ok())
            .is_some_and(|named| named != algorithm);
        let Ok(key) = DecodingKey::from_jwk(jwk) else { continue };
        if !for_another && key.family() == algorithm.family() {
            keys.push((jwk.common.key_id.clone(), key));
        }
    }
    if keys.is_empty() { Err("it has no key for this algorithm".to_owned()) } else { Ok(keys) }
}
