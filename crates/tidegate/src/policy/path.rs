//! Paths: one canonical form for all spellings, and patterns on it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

/// The canonical form of a path: percent-decoded, in lower case, without parameters (`;...`), empty
/// segments, dot segments and a slash at the end.
///
/// Servers differ in which spellings they treat alike. This form treats alike whatever some server does. It is
/// one reading of a path among several: a [`PathPattern`] applies when any of them fits.
///
/// ```
/// assert_eq!(tidegate::policy::canonical_path("//v1/./Chat/"), "/v1/chat");
/// ```
#[must_use]
pub fn canonical(path: &str) -> Cow<'_, str> {
    if is_canonical(path) {
        return Cow::Borrowed(path);
    }
    Cow::Owned(reading(path, Reading { splits_decoded: true, drops_segments: true }))
}

/// How a server may read a path.
#[derive(Clone, Copy)]
struct Reading {
    /// Whether what is encoded, `%2F`, and `\` part segments, too.
    splits_decoded: bool,
    /// Whether dot segments are followed, and segments of nothing but parameters are left out.
    drops_segments: bool,
}

/// The path as one server reads it: percent-decoded, in lower case, without empty segments and parameters.
fn reading(path: &str, reading: Reading) -> String {
    let mut segments: Vec<Cow<'_, str>> = Vec::new();
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let whole: &str = if reading.splits_decoded { &decoded } else { path };
    let is_between = |at: char| at == '/' || (at == '\\' && reading.splits_decoded);
    for segment in whole.split(is_between).filter(|segment| !segment.is_empty()) {
        let segment = match reading.splits_decoded {
            true => Cow::Borrowed(segment),
            false => percent_decode_str(segment).decode_utf8_lossy(),
        };
        match (name_of(&segment), reading.drops_segments) {
            ("" | ".", true) => {}
            ("..", true) => drop(segments.pop()),
            ("", false) => segments.push(segment),
            (name, _) => segments.push(name.to_owned().into()),
        }
    }
    let mut text = String::with_capacity(path.len() + 1);
    for segment in segments {
        text.push('/');
        // What was decoded parts no segments any more, and no readings.
        text.extend(segment.chars().map(within_a_segment));
    }
    if text.is_empty() {
        text.push('/');
    }
    text.make_ascii_lowercase();
    text
}

/// A character of a segment that was decoded: none that would part it.
const fn within_a_segment(one: char) -> char {
    if matches!(one, '/' | '\n') { '\u{fffd}' } else { one }
}

/// A segment without its parameters.
fn name_of(segment: &str) -> &str {
    segment.split(';').next().unwrap_or("")
}

/// Whether a path has a segment `.` or `..`, in any spelling that some server reads so: `%2e%2e`, `..;x`, `..\`,
/// or encoded twice.
///
/// For who passes paths on: rules look at the path without them, and the server behind may not, so that
/// `/v1/a/../../x` is `/x` to one and below `/v1` to the other. Clients resolve them before they send a path
/// (RFC 3986, 5.2.4).
///
/// ```
/// use tidegate::policy::has_dot_segments;
///
/// assert!(has_dot_segments("/v1/%2e%2e/x"));
/// assert!(!has_dot_segments("/v1/a..b"));
/// ```
#[must_use]
pub fn has_dot_segments(path: &str) -> bool {
    // Nearly all have none of these.
    if !path.contains("/.") && !path.contains(['%', '\\']) {
        return false;
    }
    let once = percent_decode_str(path).decode_utf8_lossy();
    let twice = percent_decode_str(&once).decode_utf8_lossy();
    let readings = [path, &once, &twice];
    let mut segments = readings.into_iter().flat_map(|reading| reading.split(['/', '\\']));
    segments.any(|segment| matches!(name_of(segment), "." | ".."))
}

/// All that servers may read in a path, for [`PathPattern::applies_in`]: the canonical form alone, where there
/// is no other; or each reading after a line's end.
///
/// Of `/users/a%2Fb/chat` some see three segments, and some four; a rule on `/users/*/chat` is for the handler
/// of either.
pub(super) fn readings(path: &str) -> Cow<'_, str> {
    if is_canonical(path) {
        return Cow::Borrowed(path);
    }
    let mut all = String::new();
    for (splits_decoded, drops_segments) in
        [(true, true), (true, false), (false, true), (false, false)]
    {
        all.push('\n');
        all.push_str(&reading(path, Reading { splits_decoded, drops_segments }));
    }
    Cow::Owned(all)
}

/// Whether a path is in its canonical form already, as nearly all are.
fn is_canonical(path: &str) -> bool {
    let bytes = path.as_bytes();
    let plain = |byte: &u8| !matches!(byte, b'%' | b';' | b'\\' | b'\n' | b'A'..=b'Z');
    let slashes_apart =
        bytes.windows(2).all(|pair| pair[0] != b'/' || !matches!(pair[1], b'/' | b'.'));
    let ends_well = bytes == b"/" || bytes.last().is_some_and(|last| *last != b'/');
    bytes.first() == Some(&b'/') && ends_well && slashes_apart && bytes.iter().all(plain)
}

/// Which paths a rule is for: `/v1/chat/completions`, `/v1/*`, `/users/*/chat`.
///
/// A `*` stands for one segment; at the end, for any number of them, none included. Patterns apply to every
/// spelling of a path that some server takes to the handler they mean: percent-decoded or not, with dot segments,
/// doubled slashes, parameters (`;...`) and such, and in any case. The error is toward applying. They may be
/// percent-encoded themselves: `/caf%C3%A9/*`, or `/groups/a%2Fb` for a slash within a segment.
///
/// ```
/// use tidegate::policy::PathPattern;
///
/// let pattern: PathPattern = "/v1/*".parse()?;
/// for spelling in ["/v1/chat", "//v1//chat/", "/v1/./chat", "/%76%31/chat", "/V1/chat;x=1", "/v1"] {
///     assert!(pattern.applies_to(spelling), "{spelling}");
/// }
/// assert!(!pattern.applies_to("/v10/chat"));
/// # Ok::<(), tidegate::policy::PathPatternError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
    /// Whether more segments may follow.
    open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Any,
}

impl PathPattern {
    /// Whether the pattern applies to a path, in whatever spelling.
    #[must_use]
    pub fn applies_to(&self, path: &str) -> bool {
        self.applies_in(&readings(path))
    }

    /// Whether it applies in any of the [readings](readings) of a path.
    pub(super) fn applies_in(&self, readings: &str) -> bool {
        match readings.strip_prefix('\n') {
            None => self.applies_to_canonical(readings),
            Some(readings) => readings.split('\n').any(|path| self.applies_to_canonical(path)),
        }
    }

    fn applies_to_canonical(&self, path: &str) -> bool {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        for pattern in &self.segments {
            match (segments.next(), pattern) {
                (None, _) => return false,
                (Some(_), Segment::Any) => {}
                (Some(segment), Segment::Literal(literal)) if segment == literal => {}
                _ => return false,
            }
        }
        self.open || segments.next().is_none()
    }
}

impl FromStr for PathPattern {
    type Err = PathPatternError;

    fn from_str(text: &str) -> Result<Self, PathPatternError> {
        let wrong = |is_no_path| PathPatternError { pattern: text.to_owned(), is_no_path };
        let error = || wrong(true);
        let rest = text.strip_prefix('/').ok_or_else(error)?;
        let (rest, open) = match rest.strip_suffix('*') {
            Some("") => ("", true),
            Some(before) if before.ends_with('/') => (before, true),
            _ => (rest, false),
        };
        let mut segments = Vec::new();
        for segment in rest.split('/').filter(|segment| !segment.is_empty()) {
            segments.push(match segment {
                "*" => Segment::Any,
                glued if glued.contains('*') => return Err(error()),
                literal => Segment::Literal(as_read(literal).ok_or_else(|| wrong(false))?),
            });
        }
        Ok(Self { segments, open })
    }
}

/// A segment of a pattern as readings have it; `None` for what they never have, so that it would never apply.
fn as_read(segment: &str) -> Option<String> {
    let decoded = percent_decode_str(segment).decode_utf8_lossy();
    let is_never_read = segment.contains(['?', '#']) || decoded.contains(';');
    if is_never_read || matches!(&*decoded, "." | "..") {
        return None;
    }
    Some(decoded.chars().map(within_a_segment).collect::<String>().to_ascii_lowercase())
}

fn write_literal(literal: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("/")?;
    literal.chars().try_for_each(|one| match one {
        // Would be read as something else.
        '%' | '*' | '?' | '#' | '\0'..='\x1f' => write!(f, "%{:02X}", u32::from(one)),
        _ => write!(f, "{one}"),
    })
}

/// In its canonical form.
impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => write_literal(literal, f)?,
                Segment::Any => f.write_str("/*")?,
            }
        }
        if self.open {
            f.write_str("/*")
        } else if self.segments.is_empty() {
            f.write_str("/")
        } else {
            Ok(())
        }
    }
}

/// A text is no path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPatternError {
    pattern: String,
    /// Whether it is none at all, or one that no path fits.
    is_no_path: bool,
}

impl fmt::Display for PathPatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = &self.pattern;
        match self.is_no_path {
            true => write!(
                f,
                "`{pattern}` is not a path; begin with `/`, and use `*` only for a whole segment, as in `/v1/*`"
            ),
            false => write!(
                f,
                "`{pattern}` would never apply: paths are looked at without `?` and `#` and what follows, `;` parameters and dot segments; leave these out, as in `/v1/*`"
            ),
        }
    }
}

impl std::error::Error for PathPatternError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_path_has_one_canonical_form() {
        for spelling in [
            "/a/b",
            "//a/b",
            "/a//b",
            "/a/b/",
            "/./a/b",
            "/a/c/../b",
            "/%61/b",
            "/A/B",
            "/a;x=1/b;y",
            "\\a\\b",
            "/a/b/.",
            "/a%2fb",
            "/%2e%2e/a/b",
            "a/b",
        ] {
            assert_eq!(canonical(spelling), "/a/b", "{spelling}");
        }
        for root in ["/", "", "//", "/.", "/..", "/%2F"] {
            assert_eq!(canonical(root), "/", "{root}");
        }
        assert!(matches!(canonical("/v1/chat-completions_2"), Cow::Borrowed(_)));
    }

    #[test]
    fn canonical_forms_stay_as_they_are() {
        for path in ["/", "/a", "/a/b", "/x%2525", "/%00", "/ü", "/a.b/c..d"] {
            let once = canonical(path).into_owned();
            if !once.contains('%') {
                assert_eq!(canonical(&once), once, "{path}");
            }
        }
    }

    #[test]
    fn patterns_mean_whole_segments() {
        let applies =
            |pattern: &str, path: &str| pattern.parse::<PathPattern>().unwrap().applies_to(path);
        assert!(applies("/*", "/"));
        assert!(applies("/*", "/anything/at/all"));
        assert!(applies("/v1/*", "/v1"));
        assert!(applies("/v1/*", "/v1/chat/completions"));
        assert!(!applies("/v1/*", "/v2/chat"));
        assert!(!applies("/v1", "/v1/chat"));
        assert!(applies("/users/*/chat", "/users/alice/chat"));
        assert!(!applies("/users/*/chat", "/users/chat"));
        assert!(!applies("/users/*/chat", "/users/a/b/chat"));
        assert!(applies("/Login", "/login"));
        assert!(!applies("/", "/login"));
    }

    /// Servers part segments before they decode them or after, and drop some or none.
    #[test]
    fn no_spelling_leads_around_a_pattern() {
        let chat: PathPattern = "/users/*/chat".parse().unwrap();
        for path in [
            "/users/a%2Fb/chat",
            "/users/a%5Cb/chat",
            "/users/a\\b/chat",
            "/users/;a/chat",
            "/users/a%2Fb;x/chat;y",
            "/users/./a%2Fb/chat",
            "/users/x%252Fy/chat",
            "/Users/%2e/Chat",
            "/users/%0a/chat",
        ] {
            assert!(chat.applies_to(path), "{path}");
        }
        assert!(!chat.applies_to("/users/a%2Fb/c/chat"));
        let below: PathPattern = "/chat/*".parse().unwrap();
        assert!(below.applies_to("/chat/%2e%2e") && below.applies_to("/x/../chat/y"));
        assert!(!below.applies_to("/x%0A/chat/y"), "a line's end begins no other reading");
    }

    #[test]
    fn dot_segments_are_found_in_every_spelling() {
        for path in [
            "/v1/../x",
            "/v1/./x",
            "/..",
            "/v1/.",
            "/v1/%2e%2E/x",
            "/v1/.%2e/x",
            "/v1/%252e%252e/x",
            "/v1%2f..%2fx",
            "/v1\\..\\x",
            "/v1/..;a=b/x",
            "/v1/..%3ba/x",
        ] {
            assert!(has_dot_segments(path), "{path}");
        }
        for path in [
            "/",
            "/v1/chat",
            "/.well-known/x",
            "/v1/a..b/...",
            "/v1/models/org%2Fname",
            "/v1/a%20b",
        ] {
            assert!(!has_dot_segments(path), "{path}");
        }
    }

    #[test]
    fn patterns_may_be_encoded() {
        for (pattern, applies, not) in [
            ("/caf%C3%A9/*", "/caf%c3%a9/x", "/cafe/x"),
            ("/caf%C3%A9/*", "/café", "/cafe/x"),
            ("/%76%31/Chat", "/v1/chat", "/v1"),
            ("/a%20b", "/a%20b", "/a%2520b"),
            ("/a%2520b", "/a%2520b", "/a%20b"),
            ("/groups/a%2Fb/x", "/groups/a%2fb/x", "/groups/a/x"),
            ("/%2A/x", "/*/x", "/y/x"),
            ("/a%3Fb", "/a%3Fb", "/a"),
            ("/100%", "/100%", "/100"),
        ] {
            let parsed: PathPattern = pattern.parse().unwrap();
            assert!(parsed.applies_to(applies), "{pattern} {applies}");
            assert!(!parsed.applies_to(not), "{pattern} {not}");
            assert_eq!(parsed.to_string().parse::<PathPattern>().unwrap(), parsed, "{pattern}");
        }
    }

    /// A rule on one would limit nothing, and nobody would know.
    #[test]
    fn a_pattern_that_no_path_fits_is_refused() {
        for text in [
            "/v1;x=1/*",
            "/v1%3Bx",
            "/search?q=*",
            "/search?q=1",
            "/a#b",
            "/v1/../x",
            "/./x",
            "/%2e%2E/x",
        ] {
            let error = text.parse::<PathPattern>().unwrap_err();
            assert!(error.to_string().contains("`/v1/*`"), "{error}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "v1/*", "*", "/v1*", "/v*/chat", "/**"] {
            let error = text.parse::<PathPattern>().unwrap_err();
            assert!(error.to_string().contains("`/v1/*`"), "{error}");
        }
    }
}
