//! [`Members`]: a JSON object's members where they stand in its text.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object, each with its value's text. No name is there twice.
#[derive(Debug)]
pub(super) struct Members<'a>(Vec<(String, &'a str)>);

/// A name that an object has twice. Readers differ in which of the two they take.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Twice(pub(super) String);

impl<'a> Members<'a> {
    /// The members of the object that a text is. What is no object has none.
    pub(super) fn read(object: &'a str) -> Result<Self, Twice> {
        let Self(members) = serde_json::from_str(object).unwrap_or(Self(Vec::new()));
        let mut seen = HashSet::new();
        match members.iter().find(|(name, _)| !seen.insert(name.as_str())) {
            Some((name, _)) => Err(Twice(name.clone())),
            None => Ok(Self(members)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The text of a member's value.
    pub(super) fn find(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(found, _)| found == name).map(|&(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    members.push((name, value.get()));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_told_with_the_text_of_its_value() {
        let members = Members::read(r#" { "a" : [1, {"b":2}] , "b" : 2 }"#).unwrap();
        assert_eq!(members.find("a"), Some(r#"[1, {"b":2}]"#));
        assert_eq!(members.find("b"), Some("2"));
        assert_eq!(members.find("c"), None);
    }

    #[test]
    fn a_name_that_is_there_twice_is_told_however_it_is_spelt() {
        let twice = Members::read(r#"{"ab":1,"c":2,"\u0061b":3}"#).unwrap_err();
        assert_eq!(twice, Twice("ab".to_owned()));
    }
}
