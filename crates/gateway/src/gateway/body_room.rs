//! [`BodyRoom`]: the memory that bodies of calls take until they are passed on.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// Counts the bytes of bodies that are kept, of all calls in the process and of each client, so that no number of
/// calls, however slow, takes all memory, and no client all of what there is.
///
/// Bytes are counted when they have come, not when they are announced: who announces much and sends little takes
/// little.
///
/// # Orderings
///
/// All are Relaxed: the counts guard no other memory, and each is right by itself.
#[derive(Debug, Clone)]
pub(super) struct BodyRoom(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    all: AtomicU64,
    /// By client. Two clients may have one count, and then share a share.
    shares: Box<[AtomicU64]>,
    seed: RandomState,
}

/// Clients that are told apart, about.
const SHARES: usize = 1024;

/// The part of all room that one client may take.
pub(crate) const SHARE: u64 = 4;

impl Default for BodyRoom {
    fn default() -> Self {
        let shares = (0..SHARES).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Counts { all: AtomicU64::new(0), shares, seed: RandomState::new() }))
    }
}

impl BodyRoom {
    /// Room for a body of a client, where there may be so many bytes in all. It begins empty.
    pub(super) fn begin(&self, client: Client<'_>, most: u64) -> Taken {
        let hash = match client {
            Client::User(user) => self.0.seed.hash_one(user),
            // Who has an address of version 6 has 2^64 of them.
            Client::Ip(Some(IpAddr::V6(ip))) => self.0.seed.hash_one(&ip.octets()[..8]),
            Client::Ip(ip) => self.0.seed.hash_one(ip),
        };
        let share = (hash % SHARES as u64) as usize;
        Taken { counts: self.0.clone(), share, bytes: 0, most }
    }
}

/// Whose body it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Client<'a> {
    User(&'a str),
    Ip(Option<IpAddr>),
}

/// The room that one body takes; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    counts: Arc<Counts>,
    share: usize,
    bytes: u64,
    most: u64,
}

impl Taken {
    /// Whether so many bytes more would fit now.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        let fits = |count: &AtomicU64, most: u64| {
            // Relaxed: see above.
            count.load(Ordering::Relaxed).saturating_add(bytes) <= most
        };
        fits(&self.counts.all, self.most) && fits(self.of_client(), self.most / SHARE)
    }

    /// Takes so many bytes more; false, and nothing is taken, where they do not fit.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        if !add(self.of_client(), bytes, self.most / SHARE) {
            return false;
        }
        if !add(&self.counts.all, bytes, self.most) {
            give_back(self.of_client(), bytes);
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Gives back what is taken.
    pub(super) fn clear(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        give_back(self.of_client(), bytes);
        give_back(&self.counts.all, bytes);
    }

    /// The bytes, which keep their room for as long as somebody has them.
    pub(super) fn keep_with(self, bytes: Bytes) -> Bytes {
        if self.bytes == 0 { bytes } else { Bytes::from_owner(Kept { bytes, _room: self }) }
    }

    fn of_client(&self) -> &AtomicU64 {
        &self.counts.shares[self.share]
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.clear();
    }
}

struct Kept {
    bytes: Bytes,
    _room: Taken,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Adds to a count, unless it would be more than so much.
fn add(count: &AtomicU64, bytes: u64, most: u64) -> bool {
    let sum = |found: u64| found.checked_add(bytes).filter(|sum| *sum <= most);
    // Relaxed: see above. When the word has changed, some thread has come on.
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
}

fn give_back(count: &AtomicU64, bytes: u64) {
    // Relaxed: see above.
    count.fetch_sub(bytes, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Client<'static> {
        Client::Ip(Some(text.parse().unwrap()))
    }

    #[test]
    fn a_client_takes_its_share_and_all_together_no_more_than_there_is() {
        let room = BodyRoom::default();
        let mut taken = Vec::new();
        for client in 0..40 {
            let mut body = room.begin(Client::User(&format!("user {client}")), 4_000);
            assert!(!body.grow(1_001), "more than a share");
            if body.grow(900) {
                taken.push(body);
            }
        }
        assert_eq!(taken.len(), 4);
        assert_eq!(room.0.all.load(Ordering::Relaxed), 3_600);
        let nobody = room.begin(ip("192.0.2.1"), 4_000);
        assert!(nobody.fits(0) && !nobody.fits(500));
        drop(taken);
        assert!(nobody.fits(1_000));
        assert_eq!(room.0.all.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_client_is_one_in_all_its_calls() {
        let room = BodyRoom::default();
        for (first, second) in [
            (Client::User("alice"), Client::User("alice")),
            (ip("2001:db8::1"), ip("2001:db8::ffff:2")),
            (ip("192.0.2.1"), ip("192.0.2.1")),
        ] {
            let (mut one, mut other) = (room.begin(first, 4_000), room.begin(second, 4_000));
            assert!(one.grow(600) && !other.fits(600) && !other.grow(600));
            assert!(other.grow(400) && !one.fits(1));
        }
    }

    #[test]
    fn room_is_taken_for_as_long_as_somebody_has_the_bytes() {
        let room = BodyRoom::default();
        let mut taken = room.begin(ip("192.0.2.1"), 4_000);
        assert!(taken.grow(5));
        let bytes = taken.keep_with(Bytes::from_static(b"other"));
        let part = bytes.slice(1..3);
        drop(bytes);
        assert_eq!((&part[..], room.0.all.load(Ordering::Relaxed)), (&b"th"[..], 5));
        drop(part);
        assert_eq!(room.0.all.load(Ordering::Relaxed), 0);
    }
}
