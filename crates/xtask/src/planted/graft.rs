//! All bugs in one build: a function with bugs gets a body for each, and a variable of the environment
//! picks one. So each suite is built once, and not once for each bug.

use std::collections::BTreeMap;
use std::ops::Range;

use proc_macro2::LineColumn;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// The variable that says which bug is there, by its number from 1.
pub(super) const VARIABLE: &str = "TIDEGATE_PLANTED";

/// A bug in one file: its number, what it replaces, and what by.
pub(super) struct Change<'a> {
    pub(super) number: usize,
    pub(super) place: Range<usize>,
    pub(super) to: &'a str,
}

/// The text with all changes in it, and the numbers of those that do not lie in one function's body, or
/// in that of a function whose type hangs on its body.
pub(super) fn graft(text: &str, changes: &[Change<'_>]) -> syn::Result<(String, Vec<usize>)> {
    let mut bodies = Bodies { lines: line_starts(text), found: Vec::new() };
    bodies.visit_file(&syn::parse_file(text)?);
    let mut by_body: BTreeMap<usize, (Range<usize>, Vec<&Change<'_>>)> = BTreeMap::new();
    let mut left = Vec::new();
    for change in changes {
        let holds = |body: &&Body| {
            body.range.start < change.place.start && change.place.end < body.range.end
        };
        match bodies.found.iter().filter(holds).min_by_key(|body| body.range.len()) {
            Some(body) if !body.is_opaque => {
                let of_body = by_body.entry(body.range.start);
                of_body.or_insert((body.range.clone(), Vec::new())).1.push(change);
            }
            _ => left.push(change.number),
        }
    }
    let (mut grafted, mut from) = (String::new(), 0);
    for (range, changes) in by_body.into_values() {
        grafted.push_str(&text[from..range.start]);
        grafted.push_str("{ ");
        for Change { number, place, to } in changes {
            let (before, after) = (&text[range.start..place.start], &text[place.end..range.end]);
            grafted.push_str(&format!("if crate::planted({number}) {before}{to}{after} else "));
        }
        grafted.push_str(&text[range.clone()]);
        grafted.push_str(" }");
        from = range.end;
    }
    grafted.push_str(&text[from..]);
    Ok((grafted, left))
}

/// A crate's root with the function that says which bug is there. In constants, none is.
pub(super) fn root(text: &str) -> String {
    let text = text.replace("#![forbid(unsafe_code)]", "").replace("#![deny(unsafe_code)]", "");
    format!("#![feature(core_intrinsics, const_eval_select)]\n#![allow(warnings)]\n{text}\n{PICK}")
}

const PICK: &str = r#"
extern crate std as planted_std;

#[inline(always)]
pub(crate) const fn planted(number: usize) -> bool {
    ::core::intrinsics::const_eval_select((number,), planted_nowhere, planted_now)
}

const fn planted_nowhere(_: usize) -> bool {
    false
}

#[inline(always)]
fn planted_now(number: usize) -> bool {
    use ::core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    static PICKED: AtomicUsize = AtomicUsize::new(usize::MAX);

    // Before anything else: reading the variable allocates, and tests count that.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static FIRST: extern "C" fn() = {
        extern "C" fn first() {
            look();
        }
        first
    };

    #[cold]
    fn look() -> usize {
        let text = planted_std::env::var("TIDEGATE_PLANTED").unwrap_or_default();
        let picked = text.parse().unwrap_or(0);
        PICKED.store(picked, Relaxed);
        picked
    }

    let picked = PICKED.load(Relaxed);
    number == if picked == usize::MAX { look() } else { picked }
}
"#;

struct Body {
    range: Range<usize>,
    /// Whether the function gives an `impl Trait`, which must be one type whatever the bug.
    is_opaque: bool,
}

struct Bodies {
    lines: Vec<usize>,
    found: Vec<Body>,
}

impl Bodies {
    /// All sources are ASCII, but for comments, so a column is as many bytes.
    fn offset(&self, at: LineColumn) -> usize {
        self.lines[at.line - 1] + at.column
    }

    fn note(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let span = block.span();
        let range = self.offset(span.start())..self.offset(span.end());
        let mut opaque = Opaque(false);
        opaque.visit_return_type(&signature.output);
        self.found.push(Body { range, is_opaque: opaque.0 });
    }
}

impl<'a> Visit<'a> for Bodies {
    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.note(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.note(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.note(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

struct Opaque(bool);

impl<'a> Visit<'a> for Opaque {
    fn visit_type_impl_trait(&mut self, _: &'a syn::TypeImplTrait) {
        self.0 = true;
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change<'a>(text: &str, number: usize, from: &str, to: &'a str) -> Change<'a> {
        let start = text.find(from).unwrap();
        Change { number, place: start..start + from.len(), to }
    }

    #[test]
    fn each_bug_is_a_body_and_the_last_is_the_sound_one() {
        let text = "const A: u8 = 1;\nfn f(x: u8) -> u8 {\n    x + 1\n}\n";
        let changes = [
            change(text, 1, "x + 1", "x + 2"),
            change(text, 2, "+ 1", "- 1"),
            change(text, 3, "= 1", "= 2"),
        ];
        let (grafted, left) = graft(text, &changes).unwrap();
        assert_eq!(
            grafted,
            "const A: u8 = 1;\nfn f(x: u8) -> u8 { if crate::planted(1) {\n    x + 2\n} else \
             if crate::planted(2) {\n    x - 1\n} else {\n    x + 1\n} }\n"
        );
        assert_eq!(left, [3]);
    }

    #[test]
    fn a_body_that_says_its_type_is_left_alone() {
        let text = "fn f() -> impl Iterator<Item = u8> { 0..1 }";
        let (grafted, left) = graft(text, &[change(text, 7, "0..1", "0..2")]).unwrap();
        assert_eq!((&*grafted, left), (text, vec![7]));
    }
}
