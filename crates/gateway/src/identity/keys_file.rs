//! The file of keys: who may call, with hashes only.
//!
//! ```toml
//! [[key]]
//! user = "alice"
//! team = "research"      # may be left out
//! sha256 = "2bb80d..."   # of the key
//! created = "2026-11-25"
//! ```

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use tidegate::policy::{FileError, Source, Spanned};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::keys::{KeyError, KeyHash, Keys};
use crate::whole_file;

/// The file as it stands.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<Spanned<KeySpec>>,
}

/// One key of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeySpec {
    pub(crate) user: String,
    pub(crate) team: Option<String>,
    pub(crate) sha256: String,
    pub(crate) created: Option<String>,
}

const HEADER: &str = "\
# Who may call, by `tidegate keys`. Only hashes of the keys are here: a key that is lost cannot be read
# back, only replaced. A running gateway takes changes over by itself.

";

/// Reads a file's keys, or all that is wrong with it.
pub(super) fn read(path: &Path, keys: &mut Keys) -> Result<(), KeysError> {
    let text = read_text(path)?;
    let name = path.display().to_string();
    let source = Source::new(&name, &text);
    let (file, mut errors) = source.parse_all::<File>();
    for spec in file.iter().flat_map(|file| &file.key) {
        let key = spec.get_ref();
        let hash = key.sha256.parse::<KeyHash>();
        let added = hash.and_then(|hash| keys.add(&key.user, key.team.as_deref(), hash));
        if let Err(error) = added {
            errors.push(source.error(spec.span(), &format!("key of `{}`", key.user), &error));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(KeysError::Wrong(errors)) }
}

/// The keys of a file, for people.
pub(crate) fn list(path: &Path) -> Result<Vec<KeySpec>, KeysError> {
    let mut keys = Keys::default();
    read(path, &mut keys)?;
    let text = read_text(path)?;
    let name = path.display().to_string();
    let file: File =
        Source::new(&name, &text).parse().map_err(|error| KeysError::Wrong(vec![error]))?;
    Ok(file.key.into_iter().map(Spanned::into_inner).collect())
}

/// A new key of a user, which nobody can guess: its hash goes into the file, which is made if it is not
/// there. The key itself is given back, and is nowhere else.
pub(crate) fn add(path: &Path, user: &str, team: Option<&str>) -> Result<String, KeysError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| KeysError::io("read randomness for", path, &error))?;
    let key = format!("tg_{}", BASE64_URL_SAFE_NO_PAD.encode(random));
    let hash = KeyHash::of(key.as_bytes());
    // The same checks as when it is read.
    Keys::default().add(user, team, hash).map_err(KeysError::Key)?;
    let (header, mut document) = match path.exists() {
        true => ("", list(path).and_then(|_| open(path))?),
        false => (HEADER, DocumentMut::new()),
    };
    let mut entry = Table::new();
    entry["user"] = value(user);
    if let Some(team) = team {
        entry["team"] = value(team);
    }
    entry["sha256"] = value(hash.to_string());
    entry["created"] = value(jiff::Timestamp::now().strftime("%Y-%m-%d").to_string());
    let keys = document.entry("key").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let keys = keys.as_array_of_tables_mut().ok_or_else(|| KeysError::NoList(path.to_owned()))?;
    keys.push(entry);
    write(path, &format!("{header}{document}"))?;
    Ok(key)
}

/// Takes out the keys of this name, or of this user; gives what was taken out.
pub(crate) fn remove(path: &Path, name: &str) -> Result<Vec<KeySpec>, KeysError> {
    let is_meant = |key: &KeySpec| key.user == name || name_of(key) == name;
    let removed: Vec<_> = list(path)?.into_iter().filter(is_meant).collect();
    if removed.is_empty() {
        return Err(KeysError::NoSuchKey { path: path.to_owned(), name: name.to_owned() });
    }
    let mut document = open(path)?;
    if let Some(keys) = document.get_mut("key").and_then(Item::as_array_of_tables_mut) {
        let is_removed = |entry: &Table| {
            let hash = entry.get("sha256").and_then(Item::as_str);
            removed.iter().any(|key| Some(key.sha256.as_str()) == hash)
        };
        keys.retain(|entry| !is_removed(entry));
    }
    write(path, &document.to_string())?;
    Ok(removed)
}

/// What a key is called.
pub(crate) fn name_of(key: &KeySpec) -> String {
    key.sha256.to_ascii_lowercase().chars().take(8).collect()
}

fn read_text(path: &Path) -> Result<String, KeysError> {
    fs::read_to_string(path).map_err(|error| KeysError::io("read", path, &error))
}

fn open(path: &Path) -> Result<DocumentMut, KeysError> {
    let document = read_text(path)?.parse::<DocumentMut>();
    document.map_err(|error| KeysError::io("read", path, &error))
}

/// Writes the file as a whole, for its owner only: who reads it sees the old one or the new one.
fn write(path: &Path, text: &str) -> Result<(), KeysError> {
    whole_file::write(path, text.as_bytes(), 0o600)
        .map_err(|error| KeysError::io("write", path, &error))
}

/// Why keys cannot be read or changed.
#[derive(Debug)]
pub(crate) enum KeysError {
    Io { what: &'static str, path: PathBuf, reason: String },
    Wrong(Vec<FileError>),
    Key(KeyError),
    NoList(PathBuf),
    NoSuchKey { path: PathBuf, name: String },
}

impl KeysError {
    fn io(what: &'static str, path: &Path, reason: &(impl fmt::Display + ?Sized)) -> Self {
        Self::Io { what, path: path.to_owned(), reason: reason.to_string() }
    }
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, path, reason } => write!(
                f,
                "cannot {what} {}: {reason}; `tidegate keys add NAME --file FILE` makes one",
                path.display()
            ),
            Self::Wrong(errors) => {
                let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join("\nerror: "))
            }
            Self::Key(error) => error.fmt(f),
            Self::NoList(path) => write!(f, "{}: `key` is no list of tables", path.display()),
            Self::NoSuchKey { path, name } => write!(
                f,
                "{} has no key or user called `{name}`; `tidegate keys list` shows all",
                path.display()
            ),
        }
    }
}

impl std::error::Error for KeysError {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_come_and_go_and_only_hashes_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let first = add(&path, "alice", Some("ml")).unwrap();
        let second = add(&path, "bob", None).unwrap();
        assert!(first.starts_with("tg_") && first.len() == 46 && first != second);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&first[3..]) && text.starts_with("# Who may call"), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let mut keys = Keys::default();
        read(&path, &mut keys).unwrap();
        let alice = keys.find(first.as_bytes()).unwrap();
        assert_eq!((&*alice.user, alice.team.as_deref()), ("alice", Some("ml")));
        let name = alice.key.clone().unwrap();

        // What people write beside it stays.
        fs::write(&path, text.replace("user = \"bob\"", "user = \"bob\" # on leave")).unwrap();
        assert_eq!(remove(&path, &name).unwrap()[0].user, "alice");
        assert!(fs::read_to_string(&path).unwrap().contains("# on leave"));
        let mut keys = Keys::default();
        read(&path, &mut keys).unwrap();
        assert!(keys.find(first.as_bytes()).is_none() && keys.find(second.as_bytes()).is_some());
        assert!(matches!(remove(&path, "alice"), Err(KeysError::NoSuchKey { .. })));
        assert_eq!(remove(&path, "bob").unwrap().len(), 1);
        assert!(list(&path).unwrap().is_empty());
    }

    #[test]
    fn a_bad_file_is_told_with_its_lines_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let bad =
            "[[key]]\nuser = \"a\"\nsha256 = \"abc\"\n[[key]]\nusr = \"b\"\nsha256 = \"abc\"\n";
        fs::write(&path, bad).unwrap();
        let error = add(&path, "carol", None).unwrap_err().to_string();
        assert!(error.contains("keys.toml:1:1: key of `a`: a SHA-256 hash has 64"), "{error}");
        assert!(error.contains("keys.toml:5:1: unknown field `usr`"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        let error = add(&folder.path().join("no/keys.toml"), "carol", None).unwrap_err();
        assert!(error.to_string().starts_with("cannot write"), "{error}");
        assert!(matches!(add(&path.with_file_name("new"), "", None), Err(KeysError::Key(_))));
    }
}
