//! [`Match`]: whom a rule applies to.

use super::{Call, ModelPattern, PathPattern};

/// Whom a rule applies to: all conditions must hold. Without any, to every call.
///
/// ```
/// use tidegate::policy::{Call, Match};
///
/// let chat = Match::everyone().on_path("/v1/*".parse()?).by_method("POST").authenticated(true);
/// assert!(chat.applies_to(&Call::new("POST", "/v1/chat/completions").by_user("alice")));
/// assert!(!chat.applies_to(&Call::new("POST", "/v1/chat/completions")));
/// # Ok::<(), tidegate::policy::PathPatternError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    paths: Vec<PathPattern>,
    methods: Vec<String>,
    headers: Vec<(String, String)>,
    users: Vec<String>,
    teams: Vec<String>,
    models: Vec<ModelPattern>,
    authenticated: Option<bool>,
}

impl Match {
    /// Every call.
    #[must_use]
    pub fn everyone() -> Self {
        Self::default()
    }

    /// Only this path, or another one given so.
    #[must_use]
    pub fn on_path(mut self, pattern: PathPattern) -> Self {
        self.paths.push(pattern);
        self
    }

    /// Only this method, or another one given so. `GET` includes `HEAD`, which reaches the same
    /// handlers.
    #[must_use]
    pub fn by_method(mut self, method: &str) -> Self {
        self.methods.push(method.to_ascii_uppercase());
        self
    }

    /// Only with this header, of exactly this value.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// Only this user, or another one given so.
    #[must_use]
    pub fn by_user(mut self, user: &str) -> Self {
        self.users.push(user.to_owned());
        self
    }

    /// Only users of this team, or of another one given so.
    #[must_use]
    pub fn of_team(mut self, team: &str) -> Self {
        self.teams.push(team.to_owned());
        self
    }

    /// Only these models, or others given so.
    #[must_use]
    pub fn on_model(mut self, pattern: ModelPattern) -> Self {
        self.models.push(pattern);
        self
    }

    /// Only with a user, or only without.
    #[must_use]
    pub fn authenticated(mut self, authenticated: bool) -> Self {
        self.authenticated = Some(authenticated);
        self
    }

    /// The users, teams and models of which one is needed, each if there are any.
    pub(super) fn names(&self) -> (&[String], &[String], Vec<String>) {
        (&self.users, &self.teams, self.models.iter().map(ToString::to_string).collect())
    }

    /// Whether it has no conditions.
    #[must_use]
    pub fn is_everyone(&self) -> bool {
        *self == Self::everyone()
    }

    /// Whether this path, in whatever spelling, is among those that it is for.
    #[must_use]
    pub fn is_on_path(&self, path: &str) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.applies_to(path))
    }

    /// Whether it is for some models only.
    #[must_use]
    pub fn looks_at_model(&self) -> bool {
        !self.models.is_empty()
    }

    /// Whether the conditions hold.
    #[must_use]
    pub fn applies_to(&self, call: &Call<'_>) -> bool {
        self.applies(call, Some(&super::path::readings(call.path())))
    }

    /// Whether it is only for known users, or only for others.
    pub(super) const fn wants_authenticated(&self) -> Option<bool> {
        self.authenticated
    }

    /// The paths, methods and headers of which one must be there, if any are given.
    pub(super) fn conditions(&self) -> (&[PathPattern], &[String], &[(String, String)]) {
        (&self.paths, &self.methods, &self.headers)
    }

    pub(super) fn looks_at_path(&self) -> bool {
        !self.paths.is_empty()
    }

    /// As [`applies_to`](Self::applies_to), with the readings of the path, if any rule asked for them.
    #[inline(never)] // most rules have no conditions; in line, theirs would take the others' registers
    pub(super) fn applies(&self, call: &Call<'_>, path: Option<&str>) -> bool {
        let on_path = |path| self.paths.iter().any(|pattern| pattern.applies_in(path));
        let by_method = |method: &String| {
            call.method().eq_ignore_ascii_case(method)
                || (method == "GET" && call.method().eq_ignore_ascii_case("HEAD"))
        };
        let is_one_of = |names: &[String], name: Option<&str>| {
            names.is_empty() || name.is_some_and(|name| names.iter().any(|one| one == name))
        };
        let on_model = |model| self.models.iter().any(|pattern| pattern.applies_to(model));
        self.authenticated.is_none_or(|wanted| wanted == call.user().is_some())
            && is_one_of(&self.users, call.user())
            && is_one_of(&self.teams, call.team())
            && (self.models.is_empty() || call.model().is_some_and(on_model))
            && (self.methods.is_empty() || self.methods.iter().any(by_method))
            && (self.paths.is_empty() || path.is_some_and(on_path))
            && self.headers.iter().all(|(name, value)| call.header(name) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Headers;

    struct Plan(&'static str);

    impl Headers for Plan {
        fn header(&self, name: &str) -> Option<&str> {
            (name == "x-plan").then_some(self.0)
        }
    }

    #[test]
    fn every_condition_must_hold() {
        let get = Match::everyone().by_method("get");
        assert!(get.applies_to(&Call::new("GET", "/")));
        assert!(get.applies_to(&Call::new("HEAD", "/")), "reaches the same handlers");
        assert!(!get.applies_to(&Call::new("POST", "/")));

        let strangers = Match::everyone().authenticated(false);
        assert!(strangers.applies_to(&Call::new("GET", "/")));
        assert!(!strangers.applies_to(&Call::new("GET", "/").by_user("alice")));

        let free = Match::everyone().with_header("X-Plan", "free");
        assert!(free.applies_to(&Call::new("GET", "/").with_headers(&Plan("free"))));
        assert!(!free.applies_to(&Call::new("GET", "/").with_headers(&Plan("paid"))));
        assert!(!free.applies_to(&Call::new("GET", "/")));
    }

    #[test]
    fn users_teams_and_models_are_told_apart() {
        let call = Call::new("POST", "/").by_user("alice").of_team("red").on_model("gpt-5-mini");
        for (matching, applies) in [
            (Match::everyone().by_user("alice"), true),
            (Match::everyone().by_user("bob").by_user("alice"), true),
            (Match::everyone().by_user("bob"), false),
            (Match::everyone().of_team("red"), true),
            (Match::everyone().of_team("blue"), false),
            (Match::everyone().on_model("gpt-5*".parse().unwrap()), true),
            (Match::everyone().on_model("gpt-4*".parse().unwrap()), false),
        ] {
            assert_eq!(matching.applies_to(&call), applies, "{matching:?}");
            let stranger = matching.applies_to(&Call::new("POST", "/"));
            assert!(!stranger, "{matching:?}");
        }
    }

    #[test]
    fn one_of_several_paths_is_enough() {
        let ai =
            Match::everyone().on_path("/chat".parse().unwrap()).on_path("/v1/*".parse().unwrap());
        assert!(ai.applies_to(&Call::new("POST", "/chat")));
        assert!(ai.applies_to(&Call::new("POST", "/v1/x")));
        assert!(!ai.applies_to(&Call::new("POST", "/login")));
    }

    #[test]
    fn it_tells_whether_it_is_for_a_path_and_for_some_models() {
        let chat = Match::everyone().on_path("/v1/*".parse().unwrap()).by_user("alice");
        assert!(chat.is_on_path("/v1/chat") && !chat.is_on_path("/chat"));
        assert!(Match::everyone().is_on_path("/chat"));
        assert!(!chat.looks_at_model());
        assert!(chat.on_model("gpt-5*".parse().unwrap()).looks_at_model());
    }
}
