//! [`Tasks`]: what connections do, and what outlives them, so that a stop can cut it off.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// The tasks of connections, of the streams within them, and of what is read on when a client has gone.
///
/// A stop ends them before it books what calls have used: a call that is cut off later, with the whole
/// process, would have nobody left to book it on a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks(Arc<Mutex<Running>>);

#[derive(Debug, Default)]
struct Running {
    tasks: JoinSet<()>,
    is_cut_off: bool,
}

impl Tasks {
    /// Runs a task where this is called. Drops it at once when all have been cut off, or nothing runs any more.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = Handle::try_current() {
            self.spawn_on(&runtime, task);
        }
    }

    /// The same on a runtime.
    pub(crate) fn spawn_on(
        &self,
        runtime: &Handle,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut running = self.lock();
        if running.is_cut_off {
            // Not with it in the lock: what it does when it is dropped is not known here.
            drop(running);
            drop(task);
        } else {
            while running.tasks.try_join_next().is_some() {}
            running.tasks.spawn_on(task, runtime);
        }
    }

    /// Drops what has not ended and what comes from now on, and comes back when that is done.
    pub(crate) async fn cut_off(&self) {
        let mut tasks = {
            let mut running = self.lock();
            running.is_cut_off = true;
            std::mem::take(&mut running.tasks)
        };
        tasks.shutdown().await;
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How what has no client any more is read on: among which tasks, and how long; or not at all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drain(Option<(Duration, Tasks)>);

impl Drain {
    pub(crate) fn new(lasts: Duration, tasks: &Tasks) -> Self {
        Self(Some(lasts).filter(|lasts| !lasts.is_zero()).map(|lasts| (lasts, tasks.clone())))
    }

    pub(crate) const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Reads on. When the time is over, or at a stop, the reading is dropped.
    pub(crate) fn read_on(self, reading: impl Future<Output = ()> + Send + 'static) {
        if let Some((lasts, tasks)) = self.0 {
            tasks.spawn(async move {
                let _ = tokio::time::timeout(lasts, reading).await;
            });
        }
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(async move {
            task.await;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Counts when it is dropped.
    struct Guard(Arc<AtomicU32>);

    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn all_that_has_not_ended_is_dropped_before_the_cut_is_over() {
        let (tasks, dropped) = (Tasks::default(), Arc::new(AtomicU32::new(0)));
        for _ in 0..3 {
            let (within, guard) = (tasks.clone(), Guard(dropped.clone()));
            tasks.spawn(async move {
                let inner = Guard(guard.0.clone());
                within.execute(async move {
                    std::future::pending::<()>().await;
                    drop(inner);
                });
                std::future::pending::<()>().await;
                drop(guard);
            });
        }
        tokio::task::yield_now().await;
        tasks.cut_off().await;
        assert_eq!(dropped.load(Ordering::Relaxed), 6);
        let late = Guard(dropped.clone());
        tasks.spawn(async move { drop(late) });
        assert_eq!(dropped.load(Ordering::Relaxed), 7, "nothing begins any more");
    }

    #[tokio::test]
    async fn tasks_that_have_ended_are_not_kept() {
        let tasks = Tasks::default();
        for _ in 0..100 {
            tasks.spawn(async {});
            tokio::task::yield_now().await;
        }
        assert!(tasks.lock().tasks.len() <= 2);
    }
}
