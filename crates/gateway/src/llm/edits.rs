//! [`Edits`]: changes to a JSON text that leave every other byte as it is.

use std::ops::Range;

use super::members::Members;

/// Changes to a JSON text. Numbers would lose digits if all of it were written anew.
#[derive(Debug, Clone, Default)]
pub(super) struct Edits(Vec<Edit>);

#[derive(Debug, Clone)]
struct Edit {
    at: Range<usize>,
    with: With,
}

#[derive(Debug, Clone)]
enum With {
    Text(String),
    /// The ceiling, unless what is there is no higher.
    Ceiling {
        above: Option<u64>,
        before: String,
        after: &'static str,
    },
}

impl Edits {
    /// Puts another text in the place of `part` of `text`.
    pub(super) fn replace(&mut self, text: &str, part: &str, with: &str) {
        self.0.push(Edit { at: place_of(text, part), with: With::Text(with.to_owned()) });
    }

    /// Puts a member before all others of `object`, which is a part of `text`.
    pub(super) fn insert(&mut self, text: &str, object: &str, members: &Members<'_>, member: &str) {
        let comma = if members.is_empty() { "" } else { "," };
        let at = after_brace(text, object);
        self.0.push(Edit { at, with: With::Text(format!("{member}{comma}")) });
    }

    /// Puts the ceiling in the place of `part`, which is `above`, unless that is no higher.
    pub(super) fn lower(&mut self, text: &str, part: &str, above: Option<u64>) {
        let with = With::Ceiling { above, before: String::new(), after: "" };
        self.0.push(Edit { at: place_of(text, part), with });
    }

    /// Puts the ceiling in the place of `part`, with something `before` it and `after` it.
    pub(super) fn replace_with_ceiling(
        &mut self,
        text: &str,
        part: &str,
        (before, after): (String, &'static str),
    ) {
        let with = With::Ceiling { above: None, before, after };
        self.0.push(Edit { at: place_of(text, part), with });
    }

    /// Puts a member with the ceiling before all others of `object`: `before` it, the ceiling, and then
    /// `after` it.
    pub(super) fn insert_ceiling(
        &mut self,
        text: &str,
        object: &str,
        (before, after): (String, &'static str),
    ) {
        let with = With::Ceiling { above: None, before, after };
        self.0.push(Edit { at: after_brace(text, object), with });
    }

    /// The text with all changes, or without a ceiling those that set none; `None` when nothing changes.
    pub(super) fn apply(&self, text: &str, ceiling: Option<u64>) -> Option<String> {
        let is_made = |edit: &&Edit| match (&edit.with, ceiling) {
            (With::Text(_), _) => true,
            (With::Ceiling { .. }, None) => false,
            (With::Ceiling { above, .. }, Some(ceiling)) => {
                above.is_none_or(|above| above > ceiling)
            }
        };
        let mut edits: Vec<_> = self.0.iter().filter(is_made).collect();
        if edits.is_empty() {
            return None;
        }
        // Stable, so that insertions at one place stay in their order.
        edits.sort_by_key(|edit| edit.at.start);
        let mut changed = String::with_capacity(text.len() + 64);
        let mut done = 0;
        for Edit { at, with } in edits {
            changed.push_str(&text[done..at.start]);
            match with {
                With::Text(text) => changed.push_str(text),
                With::Ceiling { before, after, .. } => {
                    changed.push_str(before);
                    changed.push_str(&ceiling.unwrap_or_default().to_string());
                    changed.push_str(after);
                }
            }
            done = at.end;
        }
        changed.push_str(&text[done..]);
        Some(changed)
    }
}

/// Where a part of a text is in it.
fn place_of(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - text.as_ptr() as usize;
    start..start + part.len()
}

fn after_brace(text: &str, object: &str) -> Range<usize> {
    let brace = object.find('{').map_or(0, |brace| brace + 1);
    let at = place_of(text, object).start + brace;
    at..at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_changed_changes() {
        let text = r#" { "a" : [1, {"b":2}] , "b" : 2, "c":{ } }"#;
        let members = Members::read(text).unwrap();
        let inner = members.find("c").unwrap();
        let mut edits = Edits::default();
        edits.insert(text, text, &members, r#""x":1"#);
        edits.replace(text, members.find("b").unwrap(), "3");
        edits.insert(text, inner, &Members::read(inner).unwrap(), r#""y":2"#);
        edits.insert_ceiling(text, text, (r#""z":"#.to_owned(), ","));
        let changed = r#" {"x":1,"z":7, "a" : [1, {"b":2}] , "b" : 3, "c":{"y":2 } }"#;
        assert_eq!(edits.apply(text, Some(7)).unwrap(), changed);
        let without = r#" {"x":1, "a" : [1, {"b":2}] , "b" : 3, "c":{"y":2 } }"#;
        assert_eq!(edits.apply(text, None).unwrap(), without);
        assert_eq!(Edits::default().apply(text, Some(7)), None);
    }

    #[test]
    fn a_ceiling_is_lowered_and_never_raised() {
        let text = r#"{"b":20}"#;
        let value = &text[5..7];
        let mut edits = Edits::default();
        edits.lower(text, value, Some(20));
        assert_eq!(edits.apply(text, Some(19)).unwrap(), r#"{"b":19}"#);
        assert_eq!(edits.apply(text, Some(20)), None);
        assert_eq!(edits.apply(text, Some(21)), None);
    }
}
