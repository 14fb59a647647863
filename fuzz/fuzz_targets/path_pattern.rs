//! Any pattern and path: spellings do not get around a pattern.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::policy::PathPattern;

fuzz_target!(|input: (&str, &str)| {
    let (pattern, path) = input;
    let everything: PathPattern = "/*".parse().expect("a pattern");
    assert!(everything.applies_to(path));
    if let Ok(pattern) = pattern.parse::<PathPattern>() {
        let applies = pattern.applies_to(path);
        for spelled in
            [format!("/{path}"), format!("/.{path}"), format!("{path}/"), format!("/x/..{path}")]
        {
            if path.starts_with('/') {
                assert_eq!(pattern.applies_to(&spelled), applies, "{spelled:?}");
            }
        }
    }
});
