//! Timing several ways to do one thing, in turns.

use std::time::{Duration, Instant};

/// A way to do it: runs so many times.
pub type Entrant<'a> = Box<dyn FnMut(u64) + 'a>;

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How often each entrant has its turn.
    pub rounds: usize,
    /// How long a turn lasts, about.
    pub turn: Duration,
}

impl Effort {
    /// Medians that hold still.
    pub const FULL: Self = Self { rounds: 21, turn: Duration::from_millis(20) };
    /// A quick look.
    pub const QUICK: Self = Self { rounds: 7, turn: Duration::from_millis(5) };
}

/// The median time of one run of each entrant, in nanoseconds.
///
/// The entrants take turns, so that whatever else the machine does meets them all.
pub fn medians(entrants: &mut [Entrant<'_>], effort: Effort) -> Vec<f64> {
    let counts: Vec<u64> =
        entrants.iter_mut().map(|entrant| runs_in(entrant, effort.turn)).collect();
    let mut times = vec![Vec::with_capacity(effort.rounds); entrants.len()];
    for _ in 0..effort.rounds {
        for ((entrant, count), times) in entrants.iter_mut().zip(&counts).zip(&mut times) {
            let start = Instant::now();
            entrant(*count);
            times.push(start.elapsed().as_nanos() as f64 / *count as f64);
        }
    }
    times.into_iter().map(median).collect()
}

/// How many runs take about so long.
fn runs_in(entrant: &mut Entrant<'_>, turn: Duration) -> u64 {
    let mut count = 64;
    loop {
        // The quicker of two: what else the machine does must not end the search early.
        let took = (0..2).map(|_| {
            let start = Instant::now();
            entrant(count);
            start.elapsed()
        });
        let took = took.min().expect("two");
        if took * 4 > turn {
            let share = turn.as_nanos() as f64 / took.as_nanos() as f64;
            return (count as f64 * share).max(1.0) as u64;
        }
        count *= 2;
    }
}

/// The one in the middle.
pub(crate) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The same on so many threads at once; a run is one run of one of them.
pub fn on_threads<'a>(threads: u64, run: impl Fn(u64, u64) + Sync + 'a) -> Entrant<'a> {
    Box::new(move |count| {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let run = &run;
                scope.spawn(move || run(thread, count.div_ceil(threads)));
            }
        });
    })
}
