//! Other processes: this test's own program, started again to do one job on a file.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tidegate::{Clock, Cost, FakeClock, KeyedLimiter, Limit, SharedFile, Timestamp};

/// What a worker does when it is told to go.
#[derive(Debug, Clone, Copy)]
pub enum Job {
    /// So many decisions on one key at a time that stands still; tells how many were admitted.
    Decide(u32),
    /// Decides on one key without end, at a time that stands still, and acknowledges each unit.
    Spend,
    /// Reserves ten and settles three, without end, and acknowledges each settlement.
    Settle,
    /// The same, with reservations that expire after [`LIFETIME`].
    Hold,
    /// Decides, charges and refunds on new keys and old ones in real time, and acknowledges each round.
    Churn,
}

/// The time that stands still.
pub const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
pub const TABLE: &str = "users";
pub const KEY: &str = "alice";
pub const KEYS: usize = 64;
pub const LIFETIME: Duration = Duration::from_secs(3_600);

/// A byte that the test harness does not print.
const ACKNOWLEDGED: u8 = 1;
const JOB: &str = "TIDEGATE_TEST_JOB";

pub fn limit(text: &str) -> Limit {
    let (algorithm, rate) = text.split_once(' ').expect("an algorithm and a rate");
    let rate = rate.parse().expect("a rate");
    match algorithm {
        "token-bucket" => Limit::token_bucket(rate, None),
        "fixed-window" => Limit::fixed_window(rate, None),
        "sliding-window-counter" => Limit::sliding_window_counter(rate, 6),
        _ => Limit::sliding_window_log(rate),
    }
    .expect("a limit")
}

pub fn users<C: Clock>(path: &Path, text: &str, clock: C) -> KeyedLimiter<str, Limit, C> {
    let file = SharedFile::open(path).expect("the file");
    file.limiter(TABLE, limit(text), KEYS).expect("the table").with_clock(clock)
}

pub struct Worker {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// A worker that has opened the file and waits.
    pub fn start(path: &Path, limit: &str, job: Job) -> Self {
        let job = match job {
            Job::Decide(times) => format!("decide {times}"),
            other => format!("{other:?}").to_lowercase(),
        };
        let program = std::env::current_exe().expect("this program");
        let mut process = Command::new(program)
            .args(["--exact", "worker::works_when_it_is_told", "--nocapture"])
            .env(JOB, format!("{job}|{limit}|{}", path.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a worker");
        let mut output = BufReader::new(process.stdout.take().expect("its output"));
        let mut line = String::new();
        while !line.ends_with("ready\n") {
            line.clear();
            assert!(output.read_line(&mut line).expect("a line") > 0, "the worker failed");
        }
        Self { process, output }
    }

    pub fn go(&mut self) {
        self.process.stdin.take().expect("told once").write_all(b"go\n").expect("it listens");
    }

    /// Waits until it has acknowledged something.
    pub fn wait_for_a_sign(&mut self) -> u64 {
        loop {
            let bytes = self.output.fill_buf().expect("its output");
            assert!(!bytes.is_empty(), "the worker failed");
            let signs = count(bytes);
            let length = bytes.len();
            self.output.consume(length);
            if signs > 0 {
                return signs;
            }
        }
    }

    /// Stops it wherever it is, and tells how often it had acknowledged since.
    pub fn kill(mut self) -> u64 {
        self.process.kill().expect("SIGKILL");
        self.process.wait().expect("its end");
        let mut rest = Vec::new();
        self.output.read_to_end(&mut rest).expect("its output");
        count(&rest)
    }

    /// Waits for its end, and tells how often it acknowledged.
    pub fn finish(mut self) -> u64 {
        let mut output = Vec::new();
        self.output.read_to_end(&mut output).expect("its output");
        assert!(self.process.wait().expect("its end").success());
        count(&output)
    }
}

fn count(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == ACKNOWLEDGED).count() as u64
}

fn acknowledge() {
    // Straight to the pipe, with nothing kept back.
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&[ACKNOWLEDGED]).and_then(|()| stdout.flush()).expect("somebody reads");
}

#[test]
fn works_when_it_is_told() {
    let Ok(told) = std::env::var(JOB) else { return }; // not a worker, but the test itself
    let mut told = told.splitn(3, '|');
    let mut next = || told.next().expect("three parts");
    let (job, text, path) = (next(), next(), next());
    let clock = FakeClock::at(NOW);
    let still = users(Path::new(path), text, &clock);
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).expect("a word");
    match job.split_once(' ') {
        Some((_, times)) => {
            let times: u32 = times.parse().expect("a number");
            (0..times)
                .filter(|_| still.decide(KEY, Cost::ONE).is_allow())
                .for_each(|_| acknowledge());
        }
        None if job == "spend" => {
            while still.decide(KEY, Cost::ONE).is_allow() {
                acknowledge();
            }
        }
        None if job == "settle" => {
            while let Ok(reservation) = still.reserve(KEY, Cost::new(10)) {
                reservation.settle(Cost::new(3));
                acknowledge();
            }
        }
        None if job == "hold" => {
            let file = SharedFile::open(path).expect("the file");
            let holds = file.holds::<str>(TABLE, limit(text), KEYS).expect("the table");
            let holds = holds.with_clock(&clock);
            while let Ok(reservation) = holds.reserve(KEY, Cost::new(10), LIFETIME) {
                reservation.settle(Cost::new(3));
                acknowledge();
            }
        }
        None => churn(Path::new(path), text),
    }
}

fn churn(path: &Path, text: &str) {
    let file = SharedFile::open(path).expect("the file");
    let limiter = file.limiter::<u32>(TABLE, limit(text), KEYS).expect("the table");
    for round in 0_u32.. {
        for key in 0..64 {
            // Some keys of all, some that come and go.
            let key = if key % 2 == 0 { key } else { round.wrapping_mul(64) + key };
            let reservation = limiter.reserve(&key, Cost::new(2));
            if let Ok(reservation) = reservation {
                reservation.settle(Cost::new(u64::from(key % 4)));
            }
            let _ = limiter.decide(&key, Cost::ONE);
        }
        acknowledge();
    }
}
