//! Recording histories, and judging them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stateright::semantics::{ConsistencyTester, LinearizabilityTester};
use tidegate_core::Timestamp;

use crate::calls::{self, Call, Clocks, Kind, Step, Told};
use crate::models::Model;
use crate::schedule::{THREADS, rounds, stopped_after, together};
use crate::spec::Spec;
use crate::subjects::Subject;

/// A call, when it began, and when it was answered and how, by a clock of tickets.
#[derive(Debug, Clone, Copy)]
struct Recorded {
    thread: usize,
    call: Call,
    began: u64,
    /// Nothing where the thread stopped for ever.
    ended: Option<(u64, Told)>,
}

/// Records a history of each round, and asserts that each is linearizable.
pub fn assert_linearizable<S: Subject>(
    clocks: Clocks,
    users: u64,
    subject: impl Fn() -> S + Send + Sync + 'static,
    model: impl Model + Send + Sync + 'static,
) {
    rounds(move |seed| {
        let history = record(seed, clocks, users, subject());
        assert!(
            is_linearizable(&history, model.clone()),
            "not linearizable, seed {seed}:\n{}",
            history.iter().map(|call| format!("{call:?}\n")).collect::<String>()
        );
    });
}

/// How many of the rounds' histories are not.
pub fn count_rejected<S: Subject>(
    subject: impl Fn() -> S + Send + Sync + 'static,
    model: impl Model + Send + Sync + 'static,
) -> u64 {
    let rejected = Arc::new(AtomicU64::new(0));
    let counter = rejected.clone();
    rounds(move |seed| {
        let history = record(seed, Clocks::InPhases, 1, subject());
        let is_bad = !is_linearizable(&history, model.clone());
        counter.fetch_add(is_bad.into(), Ordering::Relaxed); // read when all is done
    });
    rejected.load(Ordering::Relaxed)
}

fn record<S: Subject>(seed: u64, clocks: Clocks, users: u64, subject: S) -> Vec<Recorded> {
    let script = calls::script(seed, clocks, THREADS as u64, users);
    let tickets = AtomicU64::new(0);
    let histories = together(move |thread, barrier| {
        let mut recorder = Recorder { thread, last: None, tickets: &tickets, history: Vec::new() };
        // In every other history, the first thread stops for ever at some point.
        let stops = seed.is_multiple_of(2) && thread == 0;
        for (number, phase) in script.iter().enumerate() {
            barrier.wait();
            let stops_now = stops && seed / 2 % script.len() as u64 == number as u64;
            let operations = stops_now.then_some(seed as usize / 8 % 24);
            recorder.phase(&phase[thread], operations, &subject);
            barrier.wait();
        }
        recorder.history
    });
    histories.into_iter().flatten().collect()
}

struct Recorder<'a> {
    thread: usize,
    last: Option<(u64, Timestamp)>,
    tickets: &'a AtomicU64,
    history: Vec<Recorded>,
}

impl Recorder<'_> {
    /// Makes the calls of a phase, unless it has stopped, and stops after so many operations.
    fn phase<S: Subject>(&mut self, steps: &[Step], operations: Option<usize>, subject: &S) {
        if self.history.last().is_some_and(|last| last.ended.is_none()) {
            return;
        }
        let mut all = || steps.iter().for_each(|step| self.make(*step, subject));
        match operations {
            None => all(),
            Some(operations) => drop(stopped_after(operations, all)),
        }
    }

    fn make<S: Subject>(&mut self, step: Step, subject: &S) {
        let Some(call) = step.call(&mut self.last) else { return };
        let began = self.tickets.fetch_add(1, Ordering::SeqCst);
        self.history.push(Recorded { thread: self.thread, call, began, ended: None });
        let told = subject.call(call);
        let ended = self.tickets.fetch_add(1, Ordering::SeqCst);
        if let Some(recorded) = self.history.last_mut() {
            recorded.ended = Some((ended, told));
        }
        if let (Kind::Decide, Told::Decided { allowed: true, .. }) = (call.kind, told) {
            self.last = Some((call.user, call.now));
        }
    }
}

fn is_linearizable(history: &[Recorded], model: impl Model) -> bool {
    enum Event {
        Began(Call),
        Ended(Told),
    }
    let began = history.iter().map(|one| (one.began, one.thread, Event::Began(one.call)));
    let ended = history.iter().filter_map(|one| {
        let (at, told) = one.ended?;
        Some((at, one.thread, Event::Ended(told)))
    });
    let mut events: Vec<_> = began.chain(ended).collect();
    events.sort_by_key(|(at, _, _)| *at);
    let mut tester = LinearizabilityTester::new(Spec::new(model));
    for (_, thread, event) in events {
        let noted = match event {
            Event::Began(call) => tester.on_invoke(thread, call),
            Event::Ended(told) => tester.on_return(thread, told),
        };
        noted.map(|_| ()).expect("a history that makes sense");
    }
    tester.is_consistent()
}
