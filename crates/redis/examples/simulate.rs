//! `cargo xtask simulate`: what leases are worth to a thousand nodes and a million keys.
//!
//! Every node is a real [`RemoteLimiter`], with its own demand, leases, renewals and returns. Only the
//! server is a function of this process (a token bucket for each key, as its script has it), and time is
//! tokio's paused clock, so a run with one seed is the same each time.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use plotters::prelude::*;
use redis::Value;
use tidegate::{Clock, Cost, Timestamp};
use tidegate_redis::{
    Ask, LeaseRules, Namespace, Operation, RemoteLimit, RemoteLimiter, Running, Server,
    ServerConfig, SimulatedServer,
};

const KEYS: usize = 1_000_000;
/// Of each key: so many per second, and as many at once.
const LIMIT: u64 = 2_000;
/// How long a round trip takes.
const ROUND_TRIP: Duration = Duration::from_micros(500);
/// When a tenth of the nodes die, and when it all ends: in ms.
const DEATH_MS: u64 = 2_500;
const END_MS: u64 = 4_000;
/// Every so many ms, the state of things is noted.
const SAMPLE_MS: u64 = 50;
/// How long leases last; 0 for none.
const LEASES_MS: [u64; 4] = [0, 50, 200, 500];

fn main() -> ExitCode {
    let mut options = Options { nodes: 1_000, per_s: 400_000, seed: 1, most_s: 1_800, plot: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        let number = value.parse::<u64>().ok().filter(|number| *number > 0);
        match (name.as_str(), number) {
            ("--nodes", Some(nodes)) if nodes <= 100_000 => options.nodes = nodes as usize,
            ("--calls", Some(per_s)) if per_s >= 1_000 => options.per_s = per_s,
            ("--seed", Some(seed)) => options.seed = seed,
            ("--seconds", Some(seconds)) => options.most_s = seconds,
            ("--plot", _) if !value.is_empty() => options.plot = Some(value.into()),
            _ => {
                eprintln!(
                    "error: `{name} {value}` is not known; usage: cargo xtask simulate [--nodes 1000] \
                     [--calls 400000] [--seed 1] [--seconds 1800] [--plot FILE.svg]"
                );
                return ExitCode::from(2);
            }
        }
    }
    println!(
        "{} nodes, {KEYS} keys, {} calls/s, each key {LIMIT} per second; a tenth of the nodes dies after {} s; seed {}\n",
        options.nodes,
        options.per_s,
        DEATH_MS as f64 / 1e3,
        options.seed
    );
    println!(
        "{:<10} {:>6} {:>12} {:>10} {:>10} {:>12} {:>12} {:>10} {:>9}",
        "lease",
        "zipf",
        "round trips",
        "of hottest",
        "stranded",
        "by the dead",
        "over limit",
        "used",
        "fairness"
    );
    let (start, mut runs) = (Instant::now(), Vec::new());
    let all = [1.0, 1.3].into_iter().flat_map(|zipf| LEASES_MS.map(|lease_ms| (zipf, lease_ms)));
    for (zipf, lease_ms) in all {
        match simulate(&options, zipf, lease_ms, start) {
            Some(run) => {
                run.print();
                runs.push(run);
            }
            None => {
                eprintln!(
                    "error: not done after {} s; give it longer (--seconds), or fewer --nodes or --calls",
                    options.most_s
                );
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "\nround trips: of each decision. of hottest: the same of the hottest key. stranded: the most units \
         that nodes\nhold unspent at once, of what all nodes are admitted in a second. by the dead: what died with their \
         nodes, of the same.\nover limit: units of the hottest key that were admitted above burst and rate, in any span. \
         used: of what its limit and\ndemand allow. fairness: Jain's index of what nodes were admitted of it, of what they \
         asked for; 1 is all alike."
    );
    match &options.plot {
        Some(file) => match draw(&runs, options.nodes, file) {
            Ok(()) => println!("\ndrawn in {}", file.display()),
            Err(error) => {
                eprintln!("error: cannot draw {}: {error}", file.display());
                return ExitCode::FAILURE;
            }
        },
        None => println!("\n--plot FILE.svg draws it"),
    }
    ExitCode::SUCCESS
}

struct Options {
    nodes: usize,
    per_s: u64,
    seed: u64,
    /// How long all of it may take, in real time.
    most_s: u64,
    plot: Option<PathBuf>,
}

/// Random numbers by SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Keys by Zipf's law: the rank of the key of each call, by its cumulative weight.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(exponent: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=KEYS).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Self(weights.collect())
    }

    fn rank(&self, random: &mut Random) -> usize {
        let total = self.0[KEYS - 1];
        let at = (random.next() >> 11) as f64 / (1_u64 << 53) as f64 * total;
        self.0.partition_point(|weight| *weight <= at).min(KEYS - 1)
    }
}

/// The clock of everybody: tokio's, which is paused and goes on when all wait.
#[derive(Debug, Clone, Copy)]
struct Paused {
    start: tokio::time::Instant,
    origin_s: u64,
}

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(self.origin_s) + self.start.elapsed()
    }
}

/// A server that has a token bucket for each key, and the names of holds.
#[derive(Debug)]
struct Buckets {
    clock: Paused,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When a bucket is full again, in microseconds and parts of one.
    full: HashMap<String, (f64, f64)>,
    holds: HashMap<String, f64>,
}

/// The numbers of an argument, as a script unpacks them.
fn numbers(argument: &[u8], from: usize) -> Vec<f64> {
    let bytes = argument[from..].chunks_exact(8);
    bytes.map(|bytes| f64::from_le_bytes(bytes.try_into().expect("8 bytes"))).collect()
}

fn sum((full, part): (f64, f64), inc: f64, inc_part: f64, units: f64) -> (f64, f64) {
    let (full, part) = (full + inc, part + inc_part);
    if part >= units { (full + 1.0, part - units) } else { (full, part) }
}

fn packed((full, part): (f64, f64)) -> Value {
    Value::BulkString([full.to_le_bytes(), part.to_le_bytes()].concat())
}

impl State {
    /// What `ask.lua` and `charge.lua` do with buckets, and `lease.lua`.
    fn ask(&mut self, operation: Operation, keys: &[&str], arguments: &[&[u8]], now: f64) -> Value {
        let key = keys[0].to_owned();
        let numbers = numbers(arguments[0], 3);
        let [units, inc, inc_part, room, room_part] = numbers[..5] else { unreachable!() };
        let (full, part) = self.full.get(&key).copied().unwrap_or((0.0, 0.0));
        let told = |denied: i64, state: (f64, f64)| {
            vec![Value::Int(denied), Value::Int(now as i64), packed(state)]
        };
        if full > now + room || (full == now + room && part > room_part) {
            return Value::Array(told(1, (full, part)));
        }
        let start = if full < now { (now, 0.0) } else { (full, part) };
        let mut next = sum(start, inc, inc_part, units);
        let mut answer = told(0, next);
        if operation == Operation::Lease && arguments[0][2] > 1 {
            let [lead, parts, most] = numbers[5..8] else { unreachable!() };
            let from = if next.0 < now + lead { (now + lead, 0.0) } else { next };
            let sizes = numbers[8..].chunks_exact(3);
            let fits =
                |size: &&[f64]| size[0] > 0.0 && from.0 + (size[1] + 1.0) * parts < now + most;
            if let Some(size) = { sizes }.find(|size| fits(size)) {
                next = sum(from, size[1], size[2], units);
                self.holds.insert(keys[1].to_owned(), size[0]);
                answer.extend([1, size[0] as i64, lead as i64].map(Value::Int));
            }
        }
        self.full.insert(key, next);
        Value::Array(answer)
    }

    /// What `book.lua` does with a bucket whose lease comes back.
    fn book(&mut self, keys: &[&str], arguments: &[&[u8]], now: f64) -> Value {
        let answer = |booked| Value::Array(vec![Value::Int(booked), Value::Int(now as i64)]);
        if keys.len() > arguments.len() && self.holds.remove(keys[keys.len() - 1]).is_none() {
            return answer(0);
        }
        for (key, argument) in keys.iter().zip(arguments) {
            let numbers = numbers(argument, 3);
            let [units, inc, inc_part, since, lead, _] = numbers[..6] else { unreachable!() };
            let inc = inc - (now + lead - since).max(0.0);
            let Some((full, part)) = self.full.get_mut(*key).filter(|_| inc >= 0.0) else {
                continue;
            };
            (*full, *part) = (*full - inc, *part - inc_part);
            if *part < 0.0 {
                (*full, *part) = (*full - 1.0, *part + units);
            }
        }
        answer(1)
    }
}

/// The server as each node has it.
#[derive(Debug, Clone)]
struct Shared(Arc<Buckets>);

impl SimulatedServer for Shared {
    fn run(&self, operation: Operation, keys: &[&str], arguments: &[&[u8]]) -> Running {
        let server = self.0.clone();
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let arguments: Vec<Vec<u8>> = arguments.iter().map(|bytes| bytes.to_vec()).collect();
        Box::pin(async move {
            tokio::time::sleep(ROUND_TRIP / 2).await;
            let answer = {
                let now = (server.clock.now().as_nanos() / 1_000) as f64;
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
                let mut state = server.state.lock().expect("nobody panics with it");
                match operation {
                    Operation::Book => state.book(&keys, &arguments, now),
                    _ => state.ask(operation, &keys, &arguments, now),
                }
            };
            tokio::time::sleep(ROUND_TRIP / 2).await;
            answer
        })
    }
}

/// What came of a run.
struct Run {
    zipf: f64,
    lease_ms: u64,
    round_trips: f64,
    of_hottest: f64,
    /// Over time: seconds, and the units that nodes hold, of those admitted in a second.
    stranded: Vec<(f64, f64)>,
    by_the_dead: f64,
    over: f64,
    used: f64,
    fairness: f64,
    /// Over ranks: round trips of each decision.
    by_rank: Vec<(f64, f64)>,
}

/// What happened to the calls of a key.
#[derive(Default)]
struct Calls {
    decisions: AtomicU64,
    admitted: AtomicU64,
    asked: AtomicU64,
}

/// Ranks are counted together in groups of like size on a logarithmic scale.
const GROUPS: usize = 25;

fn group(rank: usize) -> usize {
    (((rank + 1) as f64).log10() * 4.0) as usize
}

/// Admissions of the hottest key, held against its limit in all spans that end with one of them.
#[derive(Default)]
struct Watched {
    /// The bucket that is exact, and so never over: how far calls went beyond it.
    level: f64,
    at_us: u64,
    over: f64,
    admitted: Vec<u64>,
    asked: Vec<u64>,
    total: u64,
}

impl Watched {
    fn admit(&mut self, node: usize, now_us: u64) {
        let since = now_us.saturating_sub(self.at_us) as f64 / 1e6;
        self.level = (self.level - since * LIMIT as f64).max(0.0) + 1.0;
        self.at_us = now_us;
        self.over = self.over.max(self.level - LIMIT as f64);
        self.admitted[node] += 1;
        self.total += 1;
    }
}

/// A run; none, if the time for all of them is over.
fn simulate(options: &Options, exponent: f64, lease_ms: u64, start: Instant) -> Option<Run> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(run(options, exponent, lease_ms, start))
}

async fn run(options: &Options, exponent: f64, lease_ms: u64, start: Instant) -> Option<Run> {
    let clock = Paused { start: tokio::time::Instant::now(), origin_s: 1_700_000_000 };
    // A node's clock for leases begins when its machine does.
    let node_clock = Paused { origin_s: 1_000, ..clock };
    let server = Shared(Arc::new(Buckets { clock, state: Mutex::default() }));
    let node = || {
        let config = ServerConfig::single("redis://127.0.0.1").with_timeout(Duration::from_secs(1));
        let real = Server::new(&config).expect("an address").with_clock(clock);
        let real = Arc::new(real.simulated(Arc::new(server.clone())));
        let space = Namespace::new("simulated").expect("a name");
        let limit = format!("token-bucket, {LIMIT} per second, burst {LIMIT}");
        let limit =
            RemoteLimit::new(&space, "key", limit.parse().expect("a limit")).expect("a name");
        let limit = match lease_ms {
            0 => limit,
            _ => {
                limit.with_leases(LeaseRules::new(Duration::from_millis(lease_ms))).expect("leases")
            }
        };
        let limiter = RemoteLimiter::new(real, [limit]).expect("a limiter").with_clock(node_clock);
        Some(Arc::new(limiter))
    };
    let mut nodes: Vec<Option<Arc<RemoteLimiter>>> = (0..options.nodes).map(|_| node()).collect();
    let id = nodes[0].as_ref().and_then(|node| node.limit("key")).expect("it was given");
    let (zipf, mut random) = (Zipf::new(exponent), Random(options.seed));
    let calls: Arc<Vec<Calls>> = Arc::new((0..GROUPS).map(|_| Calls::default()).collect());
    let hottest = Arc::new(Mutex::new(Watched {
        admitted: vec![0; options.nodes],
        asked: vec![0; options.nodes],
        ..Watched::default()
    }));
    let (mut stranded, mut by_the_dead) = (Vec::new(), 0.0);
    let per_ms = options.per_s / 1_000;
    // Of use to somebody who waits for it.
    let is_watched = std::io::stderr().is_terminal();
    for ms in 0..END_MS {
        if ms % (END_MS / 40) == 0 {
            let seconds = start.elapsed().as_secs();
            let percent = 100 * ms / END_MS;
            if is_watched {
                eprint!("\rZipf {exponent}, leases of {lease_ms} ms: {percent}%, {seconds} s ");
            }
            if seconds >= options.most_s {
                if is_watched {
                    eprintln!();
                }
                return None;
            }
        }
        if ms == DEATH_MS {
            let dying = nodes.iter_mut().step_by(10);
            let dead: u64 = dying.filter_map(Option::take).map(|node| node.leased_units()).sum();
            by_the_dead = dead as f64;
        }
        for _ in 0..per_ms {
            let at = random.below(options.nodes as u64) as usize;
            let rank = zipf.rank(&mut random);
            let Some(node) = &nodes[at] else { continue };
            call(node, id, (at, rank), clock, &calls, &hottest);
        }
        if ms % SAMPLE_MS == 0 {
            let held: u64 = nodes.iter().flatten().map(|node| node.leased_units()).sum();
            stranded.push((ms as f64 / 1e3, held as f64));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    let by_rank = calls.iter().enumerate().filter_map(|(group, calls)| {
        let (decisions, asked) =
            (calls.decisions.load(Ordering::Relaxed), calls.asked.load(Ordering::Relaxed));
        let rank = 10_f64.powf((group as f64 + 0.5) / 4.0);
        (decisions > 0).then(|| (rank, asked as f64 / decisions as f64))
    });
    let by_rank: Vec<(f64, f64)> = by_rank.collect();
    let sum = |of: fn(&Calls) -> &AtomicU64| -> f64 {
        calls.iter().map(|calls| of(calls).load(Ordering::Relaxed)).sum::<u64>() as f64
    };
    // Units that were admitted in a second.
    let per_s = sum(|calls| &calls.admitted) / (END_MS as f64 / 1e3);
    let watched = hottest.lock().expect("nobody panics with it");
    let shares = watched.asked.iter().zip(&watched.admitted).filter(|(asked, _)| **asked > 0);
    let shares: Vec<f64> =
        shares.map(|(asked, admitted)| *admitted as f64 / *asked as f64).collect();
    let total: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if is_watched {
        // What is printed on stdout takes its line.
        eprint!("\r{:60}\r", "");
    }
    Some(Run {
        zipf: exponent,
        lease_ms,
        round_trips: sum(|calls| &calls.asked) / sum(|calls| &calls.decisions),
        of_hottest: by_rank.first().map_or(0.0, |(_, asked)| *asked),
        stranded: stranded.into_iter().map(|(at, held)| (at, held / per_s)).collect(),
        by_the_dead: by_the_dead / per_s,
        over: watched.over.max(0.0),
        used: watched.total as f64
            / (LIMIT as f64 * (1.0 + END_MS as f64 / 1e3))
                .min(watched.asked.iter().sum::<u64>() as f64),
        fairness: total * total / (shares.len() as f64 * squares),
        by_rank,
    })
}

/// One call, by the node and the key of these numbers.
fn call(
    node: &Arc<RemoteLimiter>,
    id: tidegate_redis::LimitId,
    (at, rank): (usize, usize),
    clock: Paused,
    calls: &Arc<Vec<Calls>>,
    hottest: &Arc<Mutex<Watched>>,
) {
    let caller = rank.to_string();
    let counted = &calls[group(rank)];
    counted.decisions.fetch_add(1, Ordering::Relaxed); // a lone count, as the others
    let now_us = move || clock.now().as_nanos() / 1_000;
    if rank == 0 {
        hottest.lock().expect("nobody panics with it").asked[at] += 1;
    }
    if let Some(answer) = node.decide_here(&[Ask::new(id, &caller, Cost::ONE)]) {
        if answer.is_allow() {
            counted.admitted.fetch_add(1, Ordering::Relaxed);
            if rank == 0 {
                hottest.lock().expect("nobody panics with it").admit(at, now_us());
            }
        }
        return;
    }
    counted.asked.fetch_add(1, Ordering::Relaxed);
    let (node, hottest, calls) = (node.clone(), hottest.clone(), calls.clone());
    tokio::spawn(async move {
        let answer = node.decide(&[Ask::new(id, &caller, Cost::ONE)]).await.expect("one layer");
        if answer.is_allow() {
            calls[group(rank)].admitted.fetch_add(1, Ordering::Relaxed);
            if rank == 0 {
                hottest.lock().expect("nobody panics with it").admit(at, now_us());
            }
        }
    });
}

impl Run {
    fn lease(&self) -> String {
        if self.lease_ms == 0 { "none".to_owned() } else { format!("{} ms", self.lease_ms) }
    }

    fn most_stranded(&self) -> f64 {
        self.stranded.iter().map(|(_, share)| *share).fold(0.0, f64::max)
    }

    fn print(&self) {
        println!(
            "{:<10} {:>6.1} {:>12.3} {:>10.3} {:>9.1}% {:>11.1}% {:>12.0} {:>9.1}% {:>9.3}",
            self.lease(),
            self.zipf,
            self.round_trips,
            self.of_hottest,
            100.0 * self.most_stranded(),
            100.0 * self.by_the_dead,
            self.over,
            100.0 * self.used,
            self.fairness,
        );
    }
}

const COLORS: [RGBColor; 4] =
    [RGBColor(150, 150, 150), RGBColor(0, 110, 190), RGBColor(215, 120, 0), RGBColor(170, 60, 60)];

/// Draws round trips by the keys' ranks, units that are stranded over time, and fairness.
fn draw(
    runs: &[Run],
    nodes: usize,
    file: &std::path::Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(file, (1_200, 900)).into_drawing_area();
    root.fill(&WHITE)?;
    for (row, zipf) in root.split_evenly((2, 1)).iter().zip([1.0, 1.3]) {
        let of: Vec<&Run> = runs.iter().filter(|run| run.zipf == zipf).collect();
        let (left, right) = row.split_horizontally(600);
        let mut chart = ChartBuilder::on(&left)
            .caption(
                format!("{nodes} nodes, round trips per decision, Zipf {zipf}"),
                ("sans-serif", 18),
            )
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(52)
            .build_cartesian_2d((1.0..1e6).log_scale(), 0.0..1.35)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("rank of the key")
            .x_label_formatter(&|rank| format!("{rank:.0}"))
            .draw()?;
        for (run, color) in of.iter().zip(COLORS) {
            let fairness = format!("lease {}, fairness {:.3}", run.lease(), run.fairness);
            let points = LineSeries::new(run.by_rank.iter().copied(), color.stroke_width(2));
            chart.draw_series(points.point_size(3))?.label(fairness).legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2))
            });
        }
        labels(&mut chart)?;
        let most = of.iter().map(|run| run.most_stranded()).fold(0.01, f64::max) * 100.0;
        let mut chart = ChartBuilder::on(&right)
            .caption(
                format!("units held unspent, % of those admitted in 1 s, Zipf {zipf}"),
                ("sans-serif", 18),
            )
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..END_MS as f64 / 1e3, 0.0..most * 1.5)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc(format!(
                "seconds; after {} s a tenth of the nodes is dead",
                DEATH_MS as f64 / 1e3
            ))
            .draw()?;
        for (run, color) in of.iter().zip(COLORS).skip(1) {
            let points = run.stranded.iter().map(|(at, share)| (*at, 100.0 * share));
            let line = LineSeries::new(points, color.stroke_width(2));
            let name = format!("lease {}", run.lease());
            chart.draw_series(line)?.label(name).legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2))
            });
        }
        labels(&mut chart)?;
    }
    root.present()?;
    Ok(())
}

fn labels<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
) -> Result<(), Box<dyn std::error::Error>>
where
    X: plotters::coord::ranged1d::Ranged<ValueType = f64>,
    Y: plotters::coord::ranged1d::Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
