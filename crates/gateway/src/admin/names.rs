//! [`Names`]: what the keys of tables are called, which keep only fingerprints.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tidegate::Key;
use tidegate::policy::{Call, Policy, Standing};

use crate::identity::Who;

/// What the keys that called lately are called: of at most so many, in bounded memory. A key that is not
/// here has not called for long, or since the start.
///
/// A call whose keys are known takes no lock and writes nothing. One with a new key writes it down, unless
/// somebody is just writing next to it: then the key's next call does.
pub(crate) struct Names {
    sets: Box<[Set]>,
}

/// Keys whose hashes end alike.
#[derive(Default)]
struct Set {
    /// The hashes, for a quick look: a stale one only costs or spares a write.
    hashes: [AtomicU64; WAYS],
    names: Mutex<Named>,
}

#[derive(Default)]
struct Named {
    names: [Option<(Key, Box<str>)>; WAYS],
    /// Which one is replaced next.
    next: usize,
}

const SETS: usize = 4_096;
const WAYS: usize = 4;

/// The bits of a key's hash that tables tell.
const FINGERPRINT: u64 = (1 << 46) - 1;

/// The longest name that is kept, in bytes.
const MAX_NAME: usize = 256;

impl Default for Names {
    fn default() -> Self {
        Self { sets: (0..SETS).map(|_| Set::default()).collect() }
    }
}

impl Names {
    /// Notes what a call's keys are called.
    pub(crate) fn note(&self, standings: &[Standing<'_>], call: &Call<'_>) {
        for standing in standings {
            self.note_key(standing.key(), || standing.rule().key_text(call));
        }
    }

    /// Notes what the keys of users that are configured are called, so that they have names before they
    /// call: what they spent outlives a restart, and their names here do not.
    pub(crate) fn note_users<'a>(&self, policy: &Policy, users: impl Iterator<Item = &'a Who>) {
        for who in users.take(SETS * WAYS) {
            let call = Call::new("", "").by_user(&who.user);
            let call = who.team.as_deref().map_or(call, |team| call.of_team(team));
            let call = who.key.as_deref().map_or(call, |key| call.by_api_key(key));
            for rule in policy.rules() {
                // Those for which more is needed than is known of the user have no account.
                if let Ok(account) = policy.account(rule.name(), &call) {
                    self.note_key(account.key(), || rule.key_text(&call));
                }
            }
        }
    }

    fn note_key(&self, key: Key, name: impl FnOnce() -> String) {
        let set = self.set(key.hash());
        // Relaxed: a hint. The names themselves are behind the lock.
        if set.hashes.iter().any(|hash| hash.load(Ordering::Relaxed) == key.hash()) {
            return;
        }
        let Ok(mut named) = set.names.try_lock() else { return };
        let mut name = name();
        if let Some((end, _)) = name.char_indices().find(|(at, _)| *at >= MAX_NAME) {
            name.truncate(end);
        }
        let way = named.next;
        named.next = (way + 1) % WAYS;
        named.names[way] = Some((key, name.into()));
        set.hashes[way].store(key.hash(), Ordering::Relaxed); // as above
    }

    /// The key of a fingerprint and what it is called, if it has called lately.
    pub(crate) fn find(&self, fingerprint: u64) -> Option<(Key, Box<str>)> {
        let set = self.set(fingerprint);
        let named = set.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names = named.names.iter().flatten();
        names.find(|(key, _)| key.hash() & FINGERPRINT == fingerprint).cloned()
    }

    fn set(&self, hash: u64) -> &Set {
        &self.sets[(hash & FINGERPRINT) as usize % SETS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy::from_toml(
            "[[rule]]\nname = \"u\"\nlimit = \"9 per hour\"\nkey = \"user\"\nkeys = 100_000\n",
        )
        .unwrap()
    }

    fn call_by(policy: &Policy, names: &Names, user: &str) -> u64 {
        let call = Call::new("GET", "/").by_user(user);
        let verdict = policy.decide(&call);
        names.note(verdict.standings(), &call);
        verdict.standings()[0].key().hash() & FINGERPRINT
    }

    #[test]
    fn a_key_that_called_is_found_by_what_tables_tell_of_it() {
        let (policy, names) = (policy(), Names::default());
        let alice = call_by(&policy, &names, "alice");
        let bob = call_by(&policy, &names, "bob");
        assert_eq!(names.find(alice).map(|(_, name)| name).as_deref(), Some("alice"));
        assert_eq!(names.find(bob).map(|(_, name)| name).as_deref(), Some("bob"));
        assert!(names.find(alice ^ 1).is_none());
        let rule = &policy.rules()[0];
        let top = rule.top_consumers(1, policy.now())[0];
        assert!(names.find(top.fingerprint).is_some());
    }

    #[test]
    fn users_that_are_configured_have_names_before_they_call() {
        let (policy, names) = (policy(), Names::default());
        let who = Who { user: "alice".to_owned(), team: None, key: None };
        names.note_users(&policy, [&who].into_iter());
        let key = policy.account("u", &Call::new("", "").by_user("alice")).unwrap().key();
        let found = names.find(key.hash() & FINGERPRINT);
        assert_eq!(found.map(|(_, name)| name).as_deref(), Some("alice"));
    }

    #[test]
    fn however_many_call_memory_is_bounded_and_who_calls_again_is_found() {
        let (policy, names) = (policy(), Names::default());
        for number in 0..50_000 {
            call_by(&policy, &names, &format!("user-{number}"));
        }
        let kept: usize = names
            .sets
            .iter()
            .map(|set| set.names.lock().unwrap().names.iter().flatten().count())
            .sum();
        assert!(kept <= SETS * WAYS);
        let alice = call_by(&policy, &names, "alice");
        assert_eq!(names.find(alice).map(|(_, name)| name).as_deref(), Some("alice"));
        let long = "x".repeat(10_000);
        let long = call_by(&policy, &names, &long);
        assert_eq!(names.find(long).unwrap().1.len(), MAX_NAME);
    }
}
