//! [`Tasks`]: what connections do, and what outlives them, so that a stop can cut it off.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// How long it may take to drop all tasks. None of them waits for anything when it is dropped.
const LONGEST_CUT: Duration = Duration::from_secs(5);

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
    pub(crate) fn spawn_on<F>(&self, runtime: &Handle, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // A runtime that ends drops at once what is spawned on it, and what a task does when it is dropped is not
        // known here: it may come back to this lock. So the task itself is handed over, or dropped, after it.
        let (hand_over, handed) = oneshot::channel::<F>();
        {
            let mut running = self.lock();
            if !running.is_cut_off {
                while running.tasks.try_join_next().is_some() {}
                let shell = async move {
                    if let Ok(task) = handed.await {
                        task.await;
                    }
                };
                running.tasks.spawn_on(shell, runtime);
            }
        }
        drop(hand_over.send(task));
    }

    /// Drops what has not ended and what comes from now on, and comes back when that is done; or, with false,
    /// when that takes too long, since one of them blocks its thread.
    pub(crate) async fn cut_off(&self) -> bool {
        self.cut_off_within(LONGEST_CUT).await
    }

    async fn cut_off_within(&self, longest: Duration) -> bool {
        let mut tasks = {
            let mut running = self.lock();
            running.is_cut_off = true;
            std::mem::take(&mut running.tasks)
        };
        tokio::time::timeout(longest, tasks.shutdown()).await.is_ok()
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
        assert!(tasks.cut_off().await);
        assert_eq!(dropped.load(Ordering::Relaxed), 6);
        let late = Guard(dropped.clone());
        tasks.spawn(async move { drop(late) });
        assert_eq!(dropped.load(Ordering::Relaxed), 7, "nothing begins any more");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_task_that_blocks_its_thread_keeps_nobody_waiting_for_ever() {
        let tasks = Tasks::default();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        tasks.spawn(async move {
            begun.send(()).unwrap();
            let _ = ends.recv();
        });
        begins.await.unwrap();
        assert!(!tasks.cut_off_within(Duration::from_millis(1)).await);
        end.send(()).unwrap();
        assert!(tasks.cut_off().await, "nothing is left of it here");
    }

    /// Spawns when it is dropped, as an answer does whose client has gone.
    struct Spawning(Tasks, Arc<AtomicU32>);

    impl Drop for Spawning {
        fn drop(&mut self) {
            let guard = Guard(self.1.clone());
            self.0.spawn(async move { drop(guard) });
        }
    }

    #[test]
    fn what_a_runtime_that_ends_drops_may_spawn_itself() {
        let (tasks, dropped) = (Tasks::default(), Arc::new(AtomicU32::new(0)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _within = handle.enter();
        let spawning = Spawning(tasks.clone(), dropped.clone());
        // It would wait for its own lock.
        tasks.spawn(async move { drop(spawning) });
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
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
