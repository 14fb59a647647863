//! [`Lanes`]: a runtime for each processor.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle};

/// Threads of which each runs the calls of its own connections, and their connections to upstreams.
///
/// The parts of a call wake each other. On one runtime for all processors each such wake may wake another
/// thread, to take the work over; here none does, so that calls take about a quarter less time. What moves
/// no more is a connection: the calls of one share a processor.
///
/// They last as long as the process.
pub(crate) struct Lanes(Box<[Lane]>);

struct Lane {
    runtime: Handle,
    /// Counted by who holds it, too.
    open: Arc<()>,
}

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(0) };
}

/// How many there are.
fn count() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

impl Lanes {
    /// One for each processor that this process may use.
    pub(crate) fn start() -> io::Result<Self> {
        let lane = |number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            thread::Builder::new().name(format!("calls-{number}")).spawn(move || {
                LANE.set(number);
                runtime.block_on(std::future::pending::<()>());
            })?;
            Ok(Lane { runtime: handle, open: Arc::new(()) })
        };
        Ok(Self((0..count()).map(lane).collect::<io::Result<_>>()?))
    }

    /// The runtime with the fewest connections, and what is held for as long as another one is there.
    pub(crate) fn fewest(&self) -> Option<(&Handle, Arc<()>)> {
        let fewest = self.0.iter().min_by_key(|lane| Arc::strong_count(&lane.open))?;
        Some((&fewest.runtime, fewest.open.clone()))
    }
}

/// One of a kind for each lane, so that lanes do not wait for each other. Elsewhere, it is the first one's.
pub(crate) struct PerLane<T>(Box<[T]>);

impl<T> PerLane<T> {
    pub(crate) fn new(make: impl FnMut() -> T) -> Self {
        Self(std::iter::repeat_with(make).take(count()).collect())
    }

    /// This lane's.
    pub(crate) fn get(&self) -> &T {
        &self.0[LANE.get() % self.0.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_the_fewest_are() {
        let lanes = Lanes::start().unwrap();
        let all: Vec<_> = (0..2 * count()).map(|_| lanes.fewest().unwrap().1).collect();
        assert!(lanes.0.iter().all(|lane| Arc::strong_count(&lane.open) == 3), "two, and its own");
        drop(all);
        assert!(lanes.0.iter().all(|lane| Arc::strong_count(&lane.open) == 1));
    }

    #[test]
    fn each_lane_has_its_own() {
        let lanes = Lanes::start().unwrap();
        let counter = Cell::new(0);
        let numbers = Arc::new(PerLane::new(|| counter.replace(counter.get() + 1)));
        let tasks = lanes.0.iter().map(|lane| {
            let numbers = numbers.clone();
            lane.runtime.spawn(async move { *numbers.get() })
        });
        let tasks: Vec<_> = tasks.collect();
        let runtime = Builder::new_current_thread().build().unwrap();
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(runtime.block_on(task).unwrap(), number);
        }
        assert_eq!(*numbers.get(), 0);
    }
}
