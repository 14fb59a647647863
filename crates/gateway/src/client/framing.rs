//! Framing that servers read differently.

use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, StatusCode};

/// Why a request is refused for how its body is framed; `None` for one that all servers read alike.
///
/// hyper refuses what has no one meaning, and takes `chunked` over a length. What it leaves are codings
/// before `chunked`, which are for one connection, and which nobody here undoes.
pub(crate) fn odd_framing(headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let (coding, more) = (codings.next()?, codings.next());
    if more.is_none() && coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
        return None;
    }
    let message =
        "The body has a transfer coding that is not known here; send it `chunked`, and no more.";
    Some((StatusCode::NOT_IMPLEMENTED, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chunked_by_itself_is_read_alike_by_all() {
        let odd = |lines: &[&'static str]| {
            let lines = lines.iter().map(|line| (TRANSFER_ENCODING, line.parse().unwrap()));
            odd_framing(&lines.fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            }))
            .is_some()
        };
        assert!(!odd(&[]) && !odd(&["chunked"]) && !odd(&["Chunked "]));
        for lines in [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked", "chunked"], &[""]]
        {
            assert!(odd(lines), "{lines:?}");
        }
    }
}
