//! [`Source`]: a text that is read strictly, and what is wrong in it, with line and field.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A text, and what to call it in errors: a file's name.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    name: &'a str,
    text: &'a str,
}

/// More errors than that help nobody.
const MOST_ERRORS: usize = 100;

impl<'a> Source<'a> {
    /// A text called `name`.
    #[must_use]
    pub const fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text }
    }

    /// The text at `span`, as it is written.
    #[must_use]
    pub fn text_at(&self, span: Range<usize>) -> &'a str {
        self.text.get(span).unwrap_or_default()
    }

    /// Reads a value, strictly.
    ///
    /// # Errors
    /// When the text is not TOML, or not such a value.
    pub fn parse<T: for<'de> Deserialize<'de>>(&self) -> Result<T, FileError> {
        toml::from_str(self.text).map_err(|error| self.toml_error(&error))
    }

    /// Reads a value, strictly, and goes on where something is wrong: gives all that is, in the order of
    /// the text, and the value without the parts that are, if there is one. With no errors, there is one.
    ///
    /// For who looks for all errors at once; a value beside errors is only to look for more in.
    #[must_use]
    pub fn parse_all<T: for<'de> Deserialize<'de>>(&self) -> (Option<T>, Vec<FileError>) {
        let (mut table, syntax) = DeTable::parse_recoverable(self.text);
        if !syntax.is_empty() {
            let errors = syntax.iter().map(|error| self.toml_error(error));
            return (None, sorted(errors.collect()));
        }
        let (mut errors, mut removed) = (Vec::new(), Vec::new());
        while errors.len() < MOST_ERRORS {
            let error = match T::deserialize(toml::de::Deserializer::from(table.clone())) {
                Ok(value) => return (Some(value), sorted(errors)),
                Err(error) => error,
            };
            let span = error.span().unwrap_or(0..0);
            let missing = missing_field(error.message());
            // What is missing only since it was wrong has been told of.
            let told = missing.is_some_and(|field| {
                removed.iter().any(|(table, removed)| *table == span && removed == field)
            });
            if !told {
                errors.push(self.toml_error(&error));
            }
            let taken = take(table.get_mut(), &span, missing.is_some());
            let Some(taken) = taken else { break };
            removed.push(taken);
        }
        (None, sorted(errors))
    }

    fn toml_error(&self, error: &toml::de::Error) -> FileError {
        let message = error.message().trim().replace('\n', ", ");
        self.error(error.span().unwrap_or(0..0), "", &message)
    }

    /// An error about the field at `span`.
    pub fn error(&self, span: Range<usize>, field: &str, message: &impl fmt::Display) -> FileError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        FileError {
            name: self.name.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            field: field.to_owned(),
            message: message.to_string(),
        }
    }
}

fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// The span of a table, and the name of an entry that was taken from it.
type Taken = (Range<usize>, String);

/// Takes the innermost entry that covers `span` out of the table; with `whole`, the table that is at
/// `span`, for it lacks something.
fn take(table: &mut DeTable<'_>, span: &Range<usize>, whole: bool) -> Option<Taken> {
    let covers = |other: Range<usize>| other.start <= span.start && span.end <= other.end;
    let mut found = None;
    for (key, value) in table.iter_mut() {
        if covers(key.span()) {
            found = Some(key.clone());
            break;
        }
        let own_span = value.span();
        // The span of a table in dotted or standard form is that of its header only.
        if let Some(taken) = take_inside(value, span, whole) {
            return Some(taken);
        }
        if covers(own_span) {
            found = Some(key.clone());
            break;
        }
    }
    let key = found?;
    table.remove(&key);
    Some((Range::default(), key.get_ref().to_string()))
}

/// As [`take`], of what is inside of a value.
fn take_inside(
    value: &mut Spanned<DeValue<'_>>,
    span: &Range<usize>,
    whole: bool,
) -> Option<Taken> {
    let own_span = value.span();
    match value.get_mut() {
        DeValue::Table(_) if whole && own_span == *span => None,
        DeValue::Table(table) => {
            let (_, name) = take(table, span, whole)?;
            Some((own_span, name))
        }
        DeValue::Array(items) => {
            let at = items.iter().position(|item| whole && item.span() == *span);
            if let Some(at) = at {
                let others = items.iter().enumerate().filter(|(index, _)| *index != at);
                *items = others.map(|(_, item)| item.clone()).collect();
                return Some((own_span, String::new()));
            }
            items.iter_mut().find_map(|item| take_inside(item, span, whole))
        }
        _ => None,
    }
}

/// In the order of the text.
pub(super) fn sorted(mut errors: Vec<FileError>) -> Vec<FileError> {
    errors.sort_by_key(|error| (error.line, error.column));
    errors
}

/// What is wrong in a file, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    name: String,
    line: usize,
    column: usize,
    field: String,
    message: String,
}

impl FileError {
    /// The line, counted from 1.
    #[must_use]
    pub const fn line(&self) -> usize {
        self.line
    }

    /// The column, in characters, counted from 1.
    #[must_use]
    pub const fn column(&self) -> usize {
        self.column
    }

    /// The field, if it is known.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.name, self.line, self.column)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for FileError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // read by `Debug`
    struct File {
        listen: Option<String>,
        #[serde(default)]
        inner: Inner,
        #[serde(default)]
        item: Vec<Spanned<Item>>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // read by `Debug`
    struct Inner {
        number: Option<u32>,
        list: Option<Vec<String>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // read by `Debug`
    struct Item {
        name: String,
        size: u32,
    }

    fn errors(text: &str) -> (bool, Vec<String>) {
        let (file, errors) = Source::new("t", text).parse_all::<File>();
        let errors = errors.iter().map(|error| error.to_string()).collect();
        (file.is_some(), errors)
    }

    #[test]
    fn a_text_without_errors_is_read() {
        let text = "listen = \"x\"\n[inner]\nnumber = 1\n[[item]]\nname = \"a\"\nsize = 1\n";
        assert_eq!(errors(text), (true, vec![]));
    }

    #[test]
    fn all_that_is_wrong_is_told_once_in_the_order_of_the_text() {
        let text = "listen = 5\nlisten_to = 6\n[inner]\nnumber = \"x\"\nlist = [\"a\", 5]\nnumbers = 1\n\
                    [[item]]\nname = \"a\"\nsize = \"large\"\n\
                    [[item]]\nname = \"b\"\n\
                    [[item]]\nname = \"c\"\nsize = 1\ncolour = 2\nweight = 3\n";
        let (is_read, errors) = errors(text);
        let places: Vec<_> =
            errors.iter().map(|error| &error[..error.find(": ").unwrap()]).collect();
        assert_eq!(
            places,
            ["t:1:10", "t:2:1", "t:4:10", "t:5:14", "t:6:1", "t:9:8", "t:10:1", "t:15:1", "t:16:1"],
            "{errors:#?}"
        );
        assert!(errors[6].contains("missing field `size`"), "{errors:#?}");
        assert!(is_read, "the rest can be looked at");
    }

    #[test]
    fn a_text_that_is_no_toml_is_told_where_it_is_none() {
        let (is_read, errors) = errors("listen = \n[inner\n");
        assert!(!is_read && errors.len() == 2, "{errors:?}");
        assert!(errors[0].starts_with("t:1:"), "{errors:?}");
    }
}
