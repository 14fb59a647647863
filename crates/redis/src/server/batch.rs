//! [`Batches`]: calls that are under way at the same time, decided by one script.
//!
//! Most of what a call costs the server and the client comes before and after the decision: a command to read,
//! a script to set up, the time, an answer to send. So calls that many tasks make at the same time go together.
//! Nobody waits for that: a batch is what is there when all tasks that can run have run.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ahash::RandomState;
use papaya::Equivalent;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, Value};
use smallvec::SmallVec;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::run::Sent;
use super::wire::Wire;
use crate::script::{Algorithms, Operation};

/// The most calls of a batch: the server does nothing else while it decides on one.
const MOST_CALLS: usize = 32;

/// With fewer calls under way, each goes by itself, at once.
const FEW: usize = 4;

/// After a batch whose script failed, so many calls go by themselves: what was wrong with one of them, such as a
/// key that somebody else has written, is no error of the others then.
const CALLS_ALONE: usize = 10_000;

/// Calls that are under way, and those that wait to be sent, by what decides on them together: their layers'
/// algorithms, and their namespace, since keys of a script lie in one slot of a cluster.
///
/// # Orderings
/// `under_way` and `alone` are lone counts: relaxed. For `waiting`, see [`Queue`].
#[derive(Debug, Default)]
pub(super) struct Batches {
    under_way: AtomicUsize,
    queues: papaya::HashMap<Alike, Arc<Queue>, RandomState>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Alike {
    sequence: usize,
    tag: String,
}

#[derive(PartialEq, Eq, Hash)]
struct AlikeRef<'a> {
    sequence: usize,
    tag: &'a str,
}

impl Equivalent<Alike> for AlikeRef<'_> {
    fn equivalent(&self, other: &Alike) -> bool {
        self.sequence == other.sequence && self.tag == other.tag
    }
}

/// Calls that wait.
///
/// # Orderings
/// A call is in the channel before it is counted (release), and who leads takes no more than are counted
/// (acquire), so each one that it takes is there. Whoever counts up from 0 leads, and goes on until it has
/// counted down to 0: there is one leader while any call waits, and no more.
#[derive(Debug)]
pub(super) struct Queue {
    algorithms: Algorithms,
    /// So many calls go by themselves.
    alone: AtomicUsize,
    calls: mpsc::UnboundedSender<Call>,
    /// For the leader alone.
    waiting_calls: Mutex<mpsc::UnboundedReceiver<Call>>,
    waiting: AtomicUsize,
}

/// A call that waits.
#[derive(Debug)]
struct Call {
    /// The keys, and then the parameters of all layers.
    bytes: Vec<u8>,
    /// Where each key ends.
    ends: SmallVec<[usize; 4]>,
    answer: oneshot::Sender<Answered>,
}

/// What came of a call; nothing, if it was not answered in time.
pub(super) type Answered = Option<RedisResult<Told>>;

/// What was answered to a call.
#[derive(Debug, Clone)]
pub(super) enum Told {
    Whole(Value),
    /// A part of what was answered to a batch.
    Part(Arc<Vec<u8>>, Range<usize>),
}

/// A call that is under way.
pub(super) struct UnderWay<'a>(&'a Batches);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Batches {
    /// Counts a call, while it is under way. Whether it should go with others.
    pub(super) fn begin(&self) -> (UnderWay<'_>, bool) {
        let others = self.under_way.fetch_add(1, Ordering::Relaxed);
        (UnderWay(self), others >= FEW)
    }

    /// Where a call goes together with others, if it should.
    pub(super) fn company(&self, algorithms: Algorithms, tag: &str) -> Option<Arc<Queue>> {
        let queue = self.queue(algorithms, tag);
        // Relaxed: a lone count. Whether one call more or less goes alone does not matter.
        let alone = queue.alone.load(Ordering::Relaxed);
        if alone > 0 {
            queue.alone.store(alone - 1, Ordering::Relaxed);
            return None;
        }
        Some(queue)
    }

    fn queue(&self, algorithms: Algorithms, tag: &str) -> Arc<Queue> {
        let (queues, sequence) = (self.queues.pin(), algorithms.sequence());
        match queues.get(&AlikeRef { sequence, tag }) {
            Some(queue) => queue.clone(),
            None => {
                let alike = Alike { sequence, tag: tag.to_owned() };
                queues.get_or_insert_with(alike, || Arc::new(Queue::new(algorithms))).clone()
            }
        }
    }
}

impl Queue {
    fn new(algorithms: Algorithms) -> Self {
        let (calls, waiting_calls) = mpsc::unbounded_channel();
        let waiting_calls = Mutex::new(waiting_calls);
        let (alone, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { algorithms, alone, calls, waiting_calls, waiting }
    }

    /// Sends a call together with others.
    pub(super) async fn send(self: Arc<Self>, wire: &Arc<Wire>, sent: &Sent<'_>) -> Answered {
        let (answer, answered) = oneshot::channel();
        self.push(Call::new(sent, answer), wire);
        let ended = || Some(Err((ErrorKind::Io, "what sends calls has ended").into()));
        answered.await.unwrap_or_else(|_| ended())
    }

    fn push(self: Arc<Self>, call: Call, wire: &Arc<Wire>) {
        // The receiver is ours.
        let _ = self.calls.send(call);
        if self.waiting.fetch_add(1, Ordering::AcqRel) == 0 {
            tokio::spawn(Leader { queue: self, is_done: false }.lead(wire.clone()));
        }
    }

    fn take(&self, most: usize) -> Vec<Call> {
        let mut calls = self.waiting_calls.lock().unwrap_or_else(PoisonError::into_inner);
        (0..most).map_while(|_| calls.try_recv().ok()).collect()
    }

    /// Sends calls, and hands each its answer.
    async fn send_batch(&self, wire: &Wire, mut calls: Vec<Call>) {
        // Of who has gone away, nothing is charged.
        calls.retain(|call| !call.answer.is_closed());
        let Some(first) = calls.first() else { return };
        let script = match calls.len() {
            1 => Operation::Decide.script(self.algorithms),
            _ => Operation::script_of_batch(self.algorithms),
        };
        let layers = first.ends.len();
        let bytes: usize = calls.iter().map(|call| call.bytes.len()).sum();
        let mut command = Cmd::with_capacity(4 + calls.len() * layers, 128 + bytes);
        command.arg("EVALSHA").arg(&script.hash).arg(calls.len() * layers);
        for key in calls.iter().flat_map(Call::keys) {
            command.arg(key);
        }
        let parameters: Vec<&[u8]> = calls.iter().map(Call::parameters).collect();
        command.arg(parameters.concat());
        // One timer for all of them.
        let answer = timeout(wire.timeout, wire.send(script, &command)).await.ok();
        // Whoever does not wait any more is not told.
        match answer {
            Some(Ok(Value::BulkString(answers))) if calls.len() > 1 => {
                let (answers, length) = (Arc::new(answers), 16 * (layers + 1));
                for (place, call) in calls.into_iter().enumerate() {
                    let part = place * length..(place + 1) * length;
                    let _ = call.answer.send(Some(Ok(Told::Part(answers.clone(), part))));
                }
            }
            answer => {
                let is_refused = |error: &RedisError| {
                    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
                };
                if calls.len() > 1
                    && answer.as_ref().is_some_and(|answer| answer.as_ref().is_err_and(is_refused))
                {
                    self.alone.store(CALLS_ALONE, Ordering::Relaxed);
                }
                let answer = answer.map(|answer| answer.map(Told::Whole));
                for call in calls {
                    let _ = call.answer.send(answer.clone());
                }
            }
        }
    }
}

/// Who sends what waits.
struct Leader {
    queue: Arc<Queue>,
    is_done: bool,
}

impl Leader {
    async fn lead(mut self, wire: Arc<Wire>) {
        loop {
            // All that can call now do.
            tokio::task::yield_now().await;
            let calls = self.queue.take(self.queue.waiting.load(Ordering::Acquire).min(MOST_CALLS));
            let (count, queue) = (calls.len(), self.queue.clone());
            if self.queue.waiting.fetch_sub(count, Ordering::AcqRel) == count {
                self.is_done = true;
                return queue.send_batch(&wire, calls).await;
            }
            let wire = wire.clone();
            tokio::spawn(async move { queue.send_batch(&wire, calls).await });
        }
    }
}

impl Drop for Leader {
    /// Its runtime has ended. Calls of another one would wait for nobody.
    fn drop(&mut self) {
        while !self.is_done {
            let count = self.queue.take(self.queue.waiting.load(Ordering::Acquire)).len();
            self.is_done = self.queue.waiting.fetch_sub(count, Ordering::AcqRel) == count;
        }
    }
}

impl Call {
    fn new(sent: &Sent<'_>, answer: oneshot::Sender<Answered>) -> Self {
        let length = sent.keys.iter().map(|key| key.len()).sum::<usize>()
            + sent.arguments.iter().map(|argument| argument.as_bytes().len()).sum::<usize>();
        let (mut bytes, mut ends) = (Vec::with_capacity(length), SmallVec::new());
        for key in &sent.keys {
            bytes.extend_from_slice(key.as_bytes());
            ends.push(bytes.len());
        }
        for argument in &sent.arguments {
            bytes.extend_from_slice(argument.as_bytes());
        }
        Self { bytes, ends, answer }
    }

    fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    fn parameters(&self) -> &[u8] {
        &self.bytes[self.ends.last().copied().unwrap_or(0)..]
    }
}

#[cfg(test)]
mod tests {
    use stateright::{Checker, Model, Property};

    /// How callers push and leaders take, one access to memory after the other, in all orders.
    struct Leading {
        callers: usize,
        most_calls: usize,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct State {
        /// How far each caller is: its call is in the channel, and counted.
        callers: Vec<usize>,
        in_channel: usize,
        waiting: usize,
        /// How many calls each leader has seen to wait, and whether it has taken them.
        leaders: Vec<Option<(usize, bool)>>,
        is_too_few: bool,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    enum Step {
        Caller(usize),
        Leader(usize),
    }

    impl Model for Leading {
        type State = State;
        type Action = Step;

        fn init_states(&self) -> Vec<State> {
            let callers = vec![0; self.callers];
            vec![State { callers, in_channel: 0, waiting: 0, leaders: vec![], is_too_few: false }]
        }

        fn actions(&self, state: &State, steps: &mut Vec<Step>) {
            let callers = state.callers.iter().enumerate().filter(|(_, done)| **done < 2);
            steps.extend(callers.map(|(place, _)| Step::Caller(place)));
            steps.extend((0..state.leaders.len()).map(Step::Leader));
        }

        fn next_state(&self, state: &State, step: Step) -> Option<State> {
            let mut state = state.clone();
            match step {
                Step::Caller(place) => {
                    match state.callers[place] {
                        0 => state.in_channel += 1,
                        _ => {
                            if state.waiting == 0 {
                                state.leaders.push(None);
                            }
                            state.waiting += 1;
                        }
                    }
                    state.callers[place] += 1;
                }
                Step::Leader(place) => match state.leaders[place] {
                    None => {
                        let seen = state.waiting.min(self.most_calls);
                        state.leaders[place] = Some((seen, false));
                    }
                    Some((seen, false)) => {
                        state.is_too_few |= state.in_channel < seen;
                        state.in_channel = state.in_channel.saturating_sub(seen);
                        state.leaders[place] = Some((seen, true));
                    }
                    Some((seen, true)) => {
                        state.waiting -= seen;
                        match state.waiting {
                            0 => drop(state.leaders.remove(place)),
                            _ => state.leaders[place] = None,
                        }
                    }
                },
            }
            Some(state)
        }

        fn properties(&self) -> Vec<Property<Self>> {
            vec![
                Property::always("one leads at most", |_, state: &State| state.leaders.len() <= 1),
                Property::always("what is counted is there", |_, state: &State| !state.is_too_few),
                Property::always("no call is left", |_, state: &State| {
                    let is_over =
                        state.leaders.is_empty() && state.callers.iter().all(|done| *done == 2);
                    !is_over || (state.in_channel, state.waiting) == (0, 0)
                }),
                Property::sometimes("all is over", |_, state: &State| {
                    state.leaders.is_empty() && state.callers.iter().all(|done| *done == 2)
                }),
            ]
        }
    }

    #[test]
    fn one_leads_while_any_call_waits_and_none_is_left() {
        let model = Leading { callers: 5, most_calls: 2 };
        model.checker().spawn_dfs().join().assert_properties();
    }
}
