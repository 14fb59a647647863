//! [`Credential`]: the secret that a request bears.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName};

/// The headers that LLM clients put a bare key in: Anthropic's and Google's.
static API_KEY: [HeaderName; 2] =
    [HeaderName::from_static("x-api-key"), HeaderName::from_static("x-goog-api-key")];

/// The secret that a request bears.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credential<'a>(&'a [u8]);

impl<'a> Credential<'a> {
    /// The one secret that a request bears, wherever its API has it. `Err` when it bears several: which
    /// one counts?
    pub(crate) fn of(headers: &'a HeaderMap) -> Result<Option<Self>, &'static str> {
        let bearer = headers.get_all(AUTHORIZATION).iter().map(|line| bearer(line.as_bytes()));
        let bare = API_KEY.iter().flat_map(|name| headers.get_all(name));
        let bare = bare.map(|line| Some(line.as_bytes().trim_ascii()));
        let mut found = None;
        for key in bearer.chain(bare) {
            // Another scheme is none of ours, but beside it there is no telling which one counts.
            let key = key.filter(|key| !key.is_empty());
            if found.is_some_and(|found| found != key) {
                return Err("The request bears several keys; send one.");
            }
            found = Some(key);
        }
        Ok(found.flatten().map(Self))
    }

    pub(crate) const fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// The key of `Bearer <key>`.
fn bearer(line: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = line.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[(&'static str, &str)]) -> Result<Option<String>, &'static str> {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        let headers: HeaderMap = lines.iter().map(line).collect();
        let text = |key: Credential<'_>| String::from_utf8(key.bytes().to_vec()).unwrap();
        Credential::of(&headers).map(|key| key.map(text))
    }

    #[test]
    fn a_key_is_found_where_clients_put_it() {
        assert_eq!(of(&[("authorization", "Bearer a-key")]), Ok(Some("a-key".to_owned())));
        assert_eq!(of(&[("authorization", "bearer  a-key ")]), Ok(Some("a-key".to_owned())));
        assert_eq!(of(&[("x-api-key", "a-key")]), Ok(Some("a-key".to_owned())));
        assert_eq!(of(&[("x-goog-api-key", " a-key")]), Ok(Some("a-key".to_owned())));
        let twice = [("authorization", "Bearer a-key"), ("x-api-key", "a-key")];
        assert_eq!(of(&twice), Ok(Some("a-key".to_owned())), "the same one");
        for none in ["a-key", "Bearer", "Bearer ", "Basic a-key", "Bearera-key"] {
            assert_eq!(of(&[("authorization", none)]), Ok(None), "{none}");
        }
        assert_eq!(of(&[]), Ok(None));
    }

    #[test]
    fn of_several_keys_none_is_picked() {
        assert!(of(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]).is_err());
        assert!(of(&[("authorization", "Bearer a"), ("x-api-key", "b")]).is_err());
        assert!(of(&[("authorization", "Basic a"), ("x-api-key", "b")]).is_err());
    }
}
