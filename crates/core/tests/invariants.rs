//! `INVARIANTS.md` names tests for each promise; they must exist.

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_an_invariant_names_exists() {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = crate_root.join("../..");
    let text = fs::read_to_string(crate_root.join("INVARIANTS.md")).unwrap();
    let named: Vec<_> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.rsplit_once("::"))
        .filter(|(file, _)| file.ends_with(".rs"))
        .collect();
    assert!(named.len() > 80, "only {} tests are named", named.len());
    for (file, test) in named {
        let source = fs::read_to_string(root.join(file)).unwrap_or_default();
        let has_tests = source.contains("#[test]") || source.contains("#[tokio::test");
        let is_test = source.contains(&format!("fn {test}(")) && has_tests;
        assert!(is_test, "INVARIANTS.md names `{file}::{test}`, which is no test");
    }
}

#[test]
fn every_invariant_names_a_test() {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(crate_root.join("INVARIANTS.md")).unwrap();
    let promises = text.split("\n**").skip(1);
    let without: Vec<_> = promises
        .filter(|promise| !promise.split("\n## ").next().unwrap_or_default().contains(".rs::"))
        .map(|promise| promise.lines().next().unwrap_or_default())
        .collect();
    assert!(without.is_empty(), "no test is named for {without:?}");
}
