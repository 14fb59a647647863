//! [`Tokens`]: signed tokens (JWT) of issuers that are configured.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Who;
use super::credential::Credential;
use super::keys::MAX_NAME;

/// Issuers of tokens, and the tokens of theirs that were verified lately.
#[derive(Default)]
pub(super) struct Tokens {
    verifiers: Vec<Verifier>,
    seen: Mutex<Seen>,
}

/// A key of an issuer, for one algorithm only: a token does not choose how it is looked at.
pub(super) struct Verifier {
    pub(super) issuer: String,
    /// The key's name, if it has one.
    pub(super) kid: Option<String>,
    pub(super) key: DecodingKey,
    pub(super) algorithm: Algorithm,
    pub(super) validation: Validation,
    pub(super) user_claim: String,
    pub(super) team_claim: Option<String>,
}

/// The longest token that is looked at.
const MAX_TOKEN: usize = 8 << 10;

impl Verifier {
    /// A verifier of tokens from `issuer` for this audience, with clocks that may differ by so much.
    pub(super) fn validation(
        algorithm: Algorithm,
        issuer: &str,
        audience: &[String],
        leeway_s: u64,
    ) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[issuer]);
        validation.set_audience(audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.leeway = leeway_s;
        validation.validate_nbf = true;
        validation
    }

    fn may_have_signed(&self, header: &jsonwebtoken::Header) -> bool {
        let names_another = self.kid.is_some() && header.kid.is_some() && self.kid != header.kid;
        self.algorithm == header.alg && !names_another
    }

    /// The caller, and when the token ends, in seconds since the Unix epoch.
    fn verify(&self, token: &[u8]) -> Result<(Who, u64), String> {
        let claims = decode::<Map<String, Value>>(token, &self.key, &self.validation);
        let claims = claims.map_err(|error| reason(&error))?.claims;
        let user = name(claims.get(&self.user_claim));
        let user = user.ok_or_else(|| {
            format!("The token has no claim `{}` that is a name.", self.user_claim)
        })?;
        let team = self.team_claim.as_ref().and_then(|claim| name(claims.get(claim)));
        let ends_s = claims.get("exp").and_then(Value::as_f64).unwrap_or(0.0) as u64;
        let ends_s = ends_s.saturating_add(self.validation.leeway);
        Ok((Who { user, team, key: None }, ends_s))
    }
}

impl Tokens {
    pub(super) fn of(verifiers: Vec<Verifier>) -> Self {
        Self { verifiers, seen: Mutex::default() }
    }

    /// Whether a credential is to be looked at as a token.
    pub(super) fn takes(&self, credential: Credential<'_>) -> bool {
        let dots = credential.bytes().iter().filter(|byte| **byte == b'.').count();
        !self.verifiers.is_empty() && dots == 2
    }

    /// Who calls with this token; or why it does not hold.
    pub(super) fn verify(&self, credential: Credential<'_>) -> Result<Arc<Who>, String> {
        let token = credential.bytes();
        if token.len() > MAX_TOKEN {
            return Err(format!("The token is longer than {MAX_TOKEN} bytes."));
        }
        let now_s =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |now| now.as_secs());
        let digest: [u8; 32] = Sha256::digest(token).into();
        // Nobody waits for others here: who finds it taken checks the signature.
        if let Ok(mut seen) = self.seen.try_lock()
            && let Some(who) = seen.find(&digest, now_s)
        {
            return Ok(who);
        }
        let header = decode_header(token).map_err(|error| reason(&error))?;
        let mut refused = "The token is signed by nobody who is known here.".to_owned();
        for verifier in self.verifiers.iter().filter(|known| known.may_have_signed(&header)) {
            match verifier.verify(token) {
                Ok((who, ends_s)) => {
                    let who = Arc::new(who);
                    if let Ok(mut seen) = self.seen.try_lock() {
                        seen.add(digest, who.clone(), ends_s);
                    }
                    return Ok(who);
                }
                Err(reason) => refused = reason,
            }
        }
        Err(refused)
    }

    /// The issuers.
    pub(super) fn in_words(&self) -> Vec<String> {
        let mut issuers: Vec<_> = self.verifiers.iter().map(|known| known.issuer.clone()).collect();
        issuers.dedup();
        issuers
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.in_words()).finish()
    }
}

/// Tokens that were verified lately, by their SHA-256: at most twice [`HALF`](Self::HALF), the older half
/// of which is forgotten when the younger is full.
#[derive(Default)]
struct Seen {
    young: HashMap<[u8; 32], (Arc<Who>, u64)>,
    old: HashMap<[u8; 32], (Arc<Who>, u64)>,
}

impl Seen {
    const HALF: usize = 2_048;

    fn find(&mut self, digest: &[u8; 32], now_s: u64) -> Option<Arc<Who>> {
        let found = match self.young.get(digest) {
            Some(found) => found.clone(),
            None => {
                let found = self.old.remove(digest)?;
                self.add(*digest, found.0.clone(), found.1);
                found
            }
        };
        (now_s < found.1).then_some(found.0)
    }

    fn add(&mut self, digest: [u8; 32], who: Arc<Who>, ends_s: u64) {
        if self.young.len() >= Self::HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, (who, ends_s));
    }
}

/// A name that a claim says: a text, a number, or the first of a list.
fn name(claim: Option<&Value>) -> Option<String> {
    let name = match claim? {
        Value::String(name) => name.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(names) => return name(names.first().filter(|first| !first.is_array())),
        _ => return None,
    };
    let is_name = !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control);
    is_name.then_some(name)
}

/// What is wrong with a token, in words that help who holds it and nobody else.
fn reason(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ExpiredSignature => "The token has expired.".to_owned(),
        ErrorKind::ImmatureSignature => "The token does not hold yet.".to_owned(),
        ErrorKind::InvalidAudience => "The token is for another audience.".to_owned(),
        ErrorKind::InvalidIssuer => "The token's issuer is not known here.".to_owned(),
        ErrorKind::InvalidSignature => "The token's signature does not hold.".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("The token has no claim `{claim}`."),
        _ => "This is no token that can be read.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use http::header::{AUTHORIZATION, HeaderMap};
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const SECRET: &[u8] = b"a secret of the tests that is long enough";
    /// Made for these tests, and used nowhere else.
    const RSA: &str = include_str!("../../tests/keys/rsa.pem");
    const RSA_PUBLIC: &str = include_str!("../../tests/keys/rsa.pub.pem");
    const EC: &str = include_str!("../../tests/keys/ec.pem");
    const EC_PUBLIC: &str = include_str!("../../tests/keys/ec.pub.pem");
    const ED: &str = include_str!("../../tests/keys/ed.pem");
    const ED_PUBLIC: &str = include_str!("../../tests/keys/ed.pub.pem");

    fn verifier(algorithm: Algorithm, key: DecodingKey) -> Verifier {
        let audience = ["tidegate".to_owned()];
        Verifier {
            issuer: "https://id.example".to_owned(),
            kid: None,
            key,
            algorithm,
            validation: Verifier::validation(algorithm, "https://id.example", &audience, 30),
            user_claim: "sub".to_owned(),
            team_claim: Some("groups".to_owned()),
        }
    }

    fn tokens() -> Tokens {
        Tokens::of(vec![
            verifier(Algorithm::HS256, DecodingKey::from_secret(SECRET)),
            verifier(Algorithm::RS256, DecodingKey::from_rsa_pem(RSA_PUBLIC.as_bytes()).unwrap()),
            verifier(Algorithm::ES256, DecodingKey::from_ec_pem(EC_PUBLIC.as_bytes()).unwrap()),
            verifier(Algorithm::EdDSA, DecodingKey::from_ed_pem(ED_PUBLIC.as_bytes()).unwrap()),
        ])
    }

    fn now_s() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    fn claims() -> Value {
        json!({
            "iss": "https://id.example", "aud": "tidegate", "sub": "alice", "groups": ["ml", "x"],
            "exp": now_s() + 600,
        })
    }

    fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
        encode(&Header::new(algorithm), claims, key).unwrap()
    }

    fn hs256(claims: &Value) -> String {
        signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET), claims)
    }

    fn verify(tokens: &Tokens, token: &str) -> Result<Arc<Who>, String> {
        let headers: HeaderMap =
            [(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect();
        let credential = Credential::of(&headers).unwrap().unwrap();
        assert!(tokens.takes(credential));
        tokens.verify(credential)
    }

    #[test]
    fn tokens_of_every_algorithm_say_who_calls() {
        let tokens = tokens();
        for token in [
            hs256(&claims()),
            signed(
                Algorithm::RS256,
                &EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap(),
                &claims(),
            ),
            signed(Algorithm::ES256, &EncodingKey::from_ec_pem(EC.as_bytes()).unwrap(), &claims()),
            signed(Algorithm::EdDSA, &EncodingKey::from_ed_pem(ED.as_bytes()).unwrap(), &claims()),
        ] {
            for _ in 0..2 {
                let who = verify(&tokens, &token).unwrap();
                assert_eq!((&*who.user, who.team.as_deref()), ("alice", Some("ml")));
            }
        }
    }

    #[test]
    fn a_token_that_does_not_hold_is_refused_with_the_reason() {
        let tokens = tokens();
        let with = |claim: &str, value: Value| {
            let mut claims = claims();
            claims[claim] = value;
            hs256(&claims)
        };
        let without = |claim: &str| {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(claim);
            hs256(&claims)
        };
        let other = EncodingKey::from_secret(b"another secret, which is not known here");
        // The public key is no secret, so it must not do as one.
        let confused = EncodingKey::from_secret(RSA_PUBLIC.as_bytes());
        let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.".to_owned();
        for (token, expected) in [
            (with("exp", json!(now_s() - 60)), "has expired"),
            (with("exp", json!("tomorrow")), ""),
            (with("nbf", json!(now_s() + 600)), "does not hold yet"),
            (with("aud", json!("others")), "another audience"),
            (with("iss", json!("https://evil.example")), "issuer is not known"),
            (with("sub", json!("")), "no claim `sub` that is a name"),
            (with("sub", json!({"a": 1})), ""),
            (without("exp"), "no claim `exp`"),
            (without("aud"), "no claim `aud`"),
            (without("iss"), "no claim `iss`"),
            (signed(Algorithm::HS256, &other, &claims()), "signature does not hold"),
            (signed(Algorithm::HS256, &confused, &claims()), "signature does not hold"),
            (signed(Algorithm::HS512, &other, &claims()), "signed by nobody who is known"),
            (none, "no token that can be read"),
            ("a.b.c".to_owned(), "no token that can be read"),
            (format!("a.{}.c", "b".repeat(MAX_TOKEN)), "is longer than"),
        ] {
            let reason = verify(&tokens, &token).expect_err(&token);
            assert!(reason.contains(expected), "{expected}: {reason}");
        }
    }

    #[test]
    fn a_key_that_has_a_name_is_only_for_tokens_that_name_it_or_none() {
        let named = Verifier {
            kid: Some("2026".to_owned()),
            ..verifier(Algorithm::HS256, DecodingKey::from_secret(SECRET))
        };
        let tokens = Tokens::of(vec![named]);
        let named = |kid: Option<&str>| {
            let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::HS256) };
            encode(&header, &claims(), &EncodingKey::from_secret(SECRET)).unwrap()
        };
        assert!(verify(&tokens, &named(Some("2026"))).is_ok());
        assert!(verify(&tokens, &named(None)).is_ok());
        assert!(verify(&tokens, &named(Some("2025"))).is_err());
    }

    #[test]
    fn verified_tokens_are_remembered_until_they_end_and_within_bounds() {
        let mut seen = Seen::default();
        let who = Arc::new(Who { user: "alice".to_owned(), team: None, key: None });
        seen.add([1; 32], who.clone(), 100);
        assert!(seen.find(&[1; 32], 99).is_some());
        assert!(seen.find(&[1; 32], 100).is_none(), "it has ended");
        for number in 0..10 * Seen::HALF {
            let digest: [u8; 32] = Sha256::digest(number.to_le_bytes()).into();
            seen.add(digest, who.clone(), 100);
            assert!(seen.young.len() + seen.old.len() <= 2 * Seen::HALF);
            assert!(seen.find(&digest, 0).is_some());
        }
        assert!(seen.find(&[1; 32], 0).is_none(), "forgotten");
    }
}
