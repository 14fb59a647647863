//! `tidegate keys`: keys come and go.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::identity::keys_file::{self, KeySpec, KeysError};

/// Adds, lists and removes the keys that callers are known by.
///
/// A key is shown once, when it is made. The file keeps its hash only. A running gateway takes changes
/// over by itself.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate keys add alice                        makes a key; the file is made if it is not there
  tidegate keys add alice --team research        with a team, for rules with `key = \"team\"`
  KEY=$(tidegate keys add ci)                    only the key goes to standard output
  tidegate keys list
  tidegate keys remove 2bb80d53                  one key, by its name in the list
  tidegate keys remove alice                     all keys of a user

The configuration names the file:
  [auth]
  keys_file = \"tidegate-keys.toml\"
")]
pub(crate) struct KeysCommand {
    #[command(subcommand)]
    action: Action,

    /// The file of keys
    #[arg(
        long,
        value_name = "FILE",
        env = "TIDEGATE_KEYS_FILE",
        default_value = "tidegate-keys.toml",
        global = true
    )]
    file: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes a new key of a user, and shows it once
    Add {
        /// Whom the key is for, as rules and logs name them
        user: String,
        /// The user's team
        #[arg(long)]
        team: Option<String>,
    },
    /// Lists all keys, by name and user
    List,
    /// Removes a key, or all keys of a user
    Remove {
        /// The key's name, as the list shows it, or a user
        name: String,
    },
}

impl KeysCommand {
    pub(crate) fn run(&self) -> Result<(), KeysError> {
        let path = self.file.display();
        match &self.action {
            Action::Add { user, team } => {
                let key = keys_file::add(&self.file, user, team.as_deref())?;
                print(&format!("{key}\n"));
                let hash = crate::identity::keys::KeyHash::of(key.as_bytes());
                eprintln!(
                    "This is the key of {user}, shown this once. {path} has its hash, under the name {}.",
                    hash.name()
                );
            }
            Action::List => {
                let keys = keys_file::list(&self.file)?;
                if keys.is_empty() {
                    eprintln!("{path} has no keys; `tidegate keys add NAME` makes one.");
                }
                print(&table(&keys));
            }
            Action::Remove { name } => {
                for key in keys_file::remove(&self.file, name)? {
                    let name = keys_file::name_of(&key);
                    eprintln!("Removed key {name} of {} from {path}.", key.user);
                }
            }
        }
        Ok(())
    }
}

fn table(keys: &[KeySpec]) -> String {
    let width =
        |of: fn(&KeySpec) -> usize, least| keys.iter().map(of).max().unwrap_or(0).max(least);
    let user = width(|key| key.user.chars().count(), 4);
    let team = width(|key| key.team.as_deref().unwrap_or("-").chars().count(), 4);
    let mut text = String::new();
    if !keys.is_empty() {
        text = format!("{:8}  {:user$}  {:team$}  created\n", "key", "user", "team");
    }
    for key in keys {
        let (name, created) = (keys_file::name_of(key), key.created.as_deref().unwrap_or("-"));
        let of_team = key.team.as_deref().unwrap_or("-");
        text += &format!("{name:8}  {:user$}  {of_team:team$}  {created}\n", key.user);
    }
    text
}

/// Nobody may be reading; that is no reason to fail.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
