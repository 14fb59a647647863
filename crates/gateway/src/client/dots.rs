//! Paths that mean one thing to some servers, and another to others.

use percent_encoding::percent_decode_str;

/// Whether a path has a segment `.` or `..`, in any spelling that some server reads so: `%2e%2e`, `..;x`, `..\`,
/// or encoded twice.
///
/// Rules and log-ins look at the path without them, and the API behind may not: `/v1/a/../../x` is `/x` to one
/// and below `/v1` to the other. Clients resolve them before they send a path (RFC 3986, 5.2.4).
pub(crate) fn has_dot_segments(path: &str) -> bool {
    // Nearly all have none of these.
    if !path.contains("/.") && !path.contains(['%', '\\']) {
        return false;
    }
    let once = percent_decode_str(path).decode_utf8_lossy();
    let twice = percent_decode_str(&once).decode_utf8_lossy();
    [path, &once, &twice].into_iter().any(|reading| {
        let mut segments = reading.split(['/', '\\']);
        segments.any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
