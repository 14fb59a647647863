//! [`Blocks`]: who is kept out by operators.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::address::parse_network;
use crate::identity::Who;
use crate::whole_file;

/// Who is kept out, until an operator says otherwise: beside the state, so that a restart does not let
/// them in, and all gateways of one state keep them out.
pub(crate) struct Blocks {
    list: ArcSwap<List>,
    file: Option<PathBuf>,
    /// The file as this process has read it. Held while the list changes.
    read: Mutex<Read>,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct List {
    blocks: Vec<Block>,
}

/// A file, as far as it has been read.
#[derive(Debug, Default)]
struct Read {
    /// When it was last written.
    written: Option<SystemTime>,
    /// Why it cannot be read, if so.
    failed: Option<String>,
}

/// One who is kept out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Block {
    #[serde(flatten)]
    pub(crate) whom: Whom,
    /// In the words of who did it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    /// When, in seconds since the Unix epoch.
    pub(crate) since_s: u64,
}

/// Whom a block is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Whom {
    User(String),
    Team(String),
    /// A key, by its name.
    Key(String),
    /// A client address, or a network of them.
    Ip(String),
}

impl std::fmt::Display for Whom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}"),
            Self::Team(team) => write!(f, "team {team}"),
            Self::Key(key) => write!(f, "key {key}"),
            Self::Ip(ip) => write!(f, "address {ip}"),
        }
    }
}

/// More blocks than that are a job for a firewall.
const MAX_BLOCKS: usize = 1_000;

impl Block {
    fn is_of(&self, ip: Option<IpAddr>, who: Option<&Who>) -> bool {
        let is = |text: Option<&str>, wanted: &str| text == Some(wanted);
        match &self.whom {
            Whom::User(user) => is(who.map(|who| &*who.user), user),
            Whom::Team(team) => is(who.and_then(|who| who.team.as_deref()), team),
            Whom::Key(key) => is(who.and_then(|who| who.key.as_deref()), key),
            Whom::Ip(text) => {
                let network: Option<IpNet> = parse_network(text).ok();
                network.zip(ip).is_some_and(|(network, ip)| network.contains(&ip.to_canonical()))
            }
        }
    }
}

impl Blocks {
    /// The blocks that belong to a file of state; without one, they are forgotten at the end. `Err` when there
    /// are some that cannot be read, which let nobody in.
    pub(crate) fn beside(state: Option<&Path>) -> Result<Self, String> {
        let file = state.map(|state| {
            let mut name = state.as_os_str().to_owned();
            name.push(".blocks.json");
            PathBuf::from(name)
        });
        let mut read = Read::default();
        let blocks = Self { list: ArcSwap::default(), file, read: Mutex::default() };
        blocks.take_over(&mut read);
        if let Some(reason) = read.failed {
            return Err(format!("{reason}; mend it, or remove it to let everybody in"));
        }
        *blocks.lock() = read;
        Ok(blocks)
    }

    /// The block of a caller, if there is one.
    pub(crate) fn find(&self, ip: Option<IpAddr>, who: Option<&Who>) -> Option<Block> {
        let list = self.list.load();
        list.blocks.iter().find(|block| block.is_of(ip, who)).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Block> {
        self.list.load().blocks.clone()
    }

    /// Keeps somebody out from now on.
    pub(crate) fn add(&self, block: Block) -> Result<(), String> {
        if let Whom::Ip(text) = &block.whom {
            parse_network(text)?;
        }
        self.change(|blocks| {
            blocks.retain(|other| other.whom != block.whom);
            if blocks.len() >= MAX_BLOCKS {
                return Err(format!("there are {MAX_BLOCKS} blocks; lift some first"));
            }
            blocks.push(block);
            Ok(())
        })
    }

    /// Lets somebody in again. `Err` when nobody of that name was kept out.
    pub(crate) fn remove(&self, whom: &Whom) -> Result<(), String> {
        self.change(|blocks| {
            let before = blocks.len();
            blocks.retain(|block| block.whom != *whom);
            if blocks.len() < before { Ok(()) } else { Err(format!("{whom} is not blocked")) }
        })
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Block>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut read = self.lock();
        // Another gateway may have changed it.
        self.take_over(&mut read);
        // What it says would be lost.
        if let Some(reason) = &read.failed {
            return Err(reason.clone());
        }
        let mut list = List::clone(&self.list.load());
        change(&mut list.blocks)?;
        if let Some(file) = &self.file {
            let failed = |error: io::Error| format!("cannot write {}: {error}", file.display());
            write(file, &list).map_err(failed)?;
            read.written = modified(file);
        }
        self.list.store(Arc::new(list));
        Ok(())
    }

    /// Takes over what another gateway of the same state has changed. For a timer.
    pub(crate) fn refresh(&self) {
        self.take_over(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_over(&self, read: &mut Read) {
        let Some(file) = &self.file else { return };
        let now = modified(file);
        if now == read.written {
            return;
        }
        let list = match fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(List::default()),
            Err(error) => Err(error.to_string()),
        };
        let list = list.map_err(|reason| format!("{} cannot be read: {reason}", file.display()));
        *read = Read { written: now, failed: list.as_ref().err().cloned() };
        match list {
            Ok(list) => self.list.store(Arc::new(list)),
            // Those who are kept out stay so.
            Err(reason) => tracing::error!("{reason}"),
        }
    }
}

fn modified(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}

fn write(file: &Path, list: &List) -> io::Result<()> {
    whole_file::write(file, &serde_json::to_vec_pretty(list)?, 0o666)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(whom: Whom) -> Block {
        Block { whom, reason: "test".to_owned(), since_s: 1 }
    }

    fn who() -> Who {
        Who { user: "alice".into(), team: Some("ml".into()), key: Some("2bb80d53".into()) }
    }

    #[test]
    fn whoever_is_blocked_is_found_by_any_of_their_names() {
        let ip: IpAddr = "192.0.2.7".parse().unwrap();
        for whom in [
            Whom::User("alice".into()),
            Whom::Team("ml".into()),
            Whom::Key("2bb80d53".into()),
            Whom::Ip("192.0.2.7".into()),
            Whom::Ip("192.0.2.0/24".into()),
        ] {
            let blocks = Blocks::beside(None).unwrap();
            assert!(blocks.find(Some(ip), Some(&who())).is_none());
            blocks.add(block(whom.clone())).unwrap();
            assert!(blocks.find(Some(ip), Some(&who())).is_some(), "{whom}");
            let other = Who { user: "bob".into(), team: None, key: None };
            assert!(blocks.find(Some([192, 0, 3, 7].into()), Some(&other)).is_none(), "{whom}");
            assert!(blocks.find(None, None).is_none(), "{whom}");
            blocks.remove(&whom).unwrap();
            assert!(blocks.find(Some(ip), Some(&who())).is_none());
            assert!(blocks.remove(&whom).is_err());
        }
        let blocks = Blocks::beside(None).unwrap();
        assert!(blocks.add(block(Whom::Ip("everybody".into()))).is_err());
    }

    #[test]
    fn blocks_outlive_a_restart_and_reach_other_gateways() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let begin = || Blocks::beside(Some(&state));
        let (one, other) = (begin().unwrap(), begin().unwrap());
        one.add(block(Whom::User("alice".into()))).unwrap();
        other.refresh();
        assert!(other.find(None, Some(&who())).is_some());
        other.add(block(Whom::User("bob".into()))).unwrap();
        assert_eq!(begin().unwrap().all().len(), 2, "after a restart");
        let file = folder.path().join("state.blocks.json");
        fs::write(&file, "{").unwrap();
        other.refresh();
        assert!(other.find(None, Some(&who())).is_some(), "a bad file lets nobody in");
        let error = other.add(block(Whom::User("carol".into()))).unwrap_err();
        assert!(error.contains("state.blocks.json cannot be read"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"{", "what it says is not lost");
        let error = begin().err().unwrap();
        assert!(error.contains("state.blocks.json cannot be read"), "{error}");
        fs::remove_file(&file).unwrap();
        other.refresh();
        assert!(other.find(None, Some(&who())).is_none());
    }
}
