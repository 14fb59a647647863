//! Any pattern and path: spellings do not get around a pattern.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::policy::{PathPattern, canonical_path};

fuzz_target!(|input: (&str, &str)| {
    let (pattern, path) = input;
    let everything: PathPattern = "/*".parse().expect("a pattern");
    assert!(everything.applies_to(path));
    if let Ok(pattern) = pattern.parse::<PathPattern>() {
        let canonical = canonical_path(path);
        // What it applies to once, it applies to in every spelling; to some of them beyond that. A `%` that was
        // encoded itself would be decoded again.
        if !canonical.contains('%') && path.starts_with('/') && pattern.applies_to(&canonical) {
            let spellings = [
                format!("/{path}"),
                format!("/.{path}"),
                format!("{path}/"),
                format!("/x/..{path}"),
            ];
            for spelled in spellings.iter().map(String::as_str).chain([path]) {
                assert!(pattern.applies_to(spelled), "{spelled:?}");
            }
        }
    }
});
