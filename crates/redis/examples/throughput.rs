//! `cargo xtask bench redis`: decisions per second on a real server, beside plain scripts.
//!
//! Everything runs on one machine, one thing after the other, several times; the median counts. Beside
//! each rate stands the time that the server itself takes for a call, by its own count, which other programs
//! on the machine disturb less.

use std::io::{IsTerminal, Read};
use std::net::TcpListener;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tidegate::Cost;
use tidegate_redis::{
    Ask, Layer, LeaseRules, Namespace, RemoteLimit, RemoteLimiter, Server, ServerConfig,
};

/// The generic cell rate algorithm as it is mostly written: the time comes from the server, one number is
/// kept. It answers whether there is room, and when the key is idle again: what is left follows from that.
const GCRA: &str = "\
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local full = tonumber(redis.call('GET', KEYS[1]) or now)
local next = math.max(full, now) + tonumber(ARGV[1])
if next - now > tonumber(ARGV[2]) then return { 0, full - now } end
redis.call('SET', KEYS[1], next, 'PX', math.ceil((next - now) / 1000))
return { 1, next - now }";

/// The same, as quick as we can write it: by all means that our own scripts have, for whole microseconds.
const TUNED_GCRA: &str = "\
local call, pack = redis.call, struct.pack
local t = call('TIME')
local now = t[1] * 1000000 + t[2]
local state, full, till = call('GET', KEYS[1]), 0, 0
if state then full, till = struct.unpack('<dd', state) end
if full < now then full = now end
local next = full + ARGV[1]
if next - now > ARGV[2] + 0 then return pack('<dd', 0, full - now) end
if next <= till then
  call('SETRANGE', KEYS[1], '0', pack('<d', next))
else
  local ms = 2 * next - now + 1000000
  ms = (ms - ms % 1000) / 1000
  call('SET', KEYS[1], pack('<dd', next, ms * 1000), 'PXAT', ms)
end
return pack('<dd', 1, next - now)";

/// Calls that are under way at the same time, over one connection.
const CALLERS: u64 = 64;
const KEYS: u64 = 1_000;
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seconds = match arguments.next().map(|text| text.parse::<f64>()) {
        None => 2.0,
        Some(Ok(seconds)) if seconds > 0.0 && seconds <= 60.0 => seconds,
        Some(_) => {
            eprintln!("error: give the seconds that each thing runs, up to 60 [default: 2]");
            return ExitCode::from(2);
        }
    };
    let Some(redis) = RedisServer::start() else {
        eprintln!(
            "error: there is no redis-server; install one, such as with `apt-get install redis-server`, or \
             give the path of a redis-server or valkey-server in TIDEGATE_REDIS_SERVER"
        );
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(compare(&redis, Duration::from_secs_f64(seconds)));
    ExitCode::SUCCESS
}

/// A server on loopback, which ends with this process.
struct RedisServer {
    child: Child,
    url: String,
}

impl RedisServer {
    fn start() -> Option<Self> {
        let program = std::env::var_os("TIDEGATE_REDIS_SERVER");
        let program = program.unwrap_or_else(|| "redis-server".into());
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let mut child = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        // It says so when it is ready.
        let (mut said, mut part) = (String::new(), [0; 512]);
        let mut stdout = child.stdout.take()?;
        while !said.contains("eady to accept connections") {
            let read = stdout.read(&mut part).ok().filter(|read| *read > 0)?;
            said.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Some(Self { child, url: format!("redis://127.0.0.1:{port}") })
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was measured.
#[derive(Clone, Copy)]
struct Measured {
    per_s: f64,
    /// In the server, for a call, by its own count of what scripts take.
    server_us: f64,
}

struct Bench {
    connection: MultiplexedConnection,
    time: Duration,
}

impl Bench {
    /// Runs calls side by side for a while: `call` is given a key's number.
    async fn measure<F>(&self, call: impl Fn(u64) -> F) -> Measured
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.ask("CONFIG RESETSTAT").await;
        let done = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let mut callers = tokio::task::JoinSet::new();
        let mut next = 0;
        while start.elapsed() < self.time {
            while callers.len() < CALLERS as usize {
                let (future, done) = (call(next % KEYS), done.clone());
                callers.spawn(async move {
                    future.await;
                    done.fetch_add(1, Ordering::Relaxed); // a lone count
                });
                next += 1;
            }
            callers.join_next().await;
        }
        while callers.join_next().await.is_some() {}
        let done = done.load(Ordering::Relaxed) as f64;
        let per_s = done / start.elapsed().as_secs_f64();
        let stats = self.ask("INFO commandstats").await;
        let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:"));
        let server_us = line.and_then(|line| line.split("usec=").nth(1));
        let server_us: Option<f64> =
            server_us.and_then(|text| text.split(',').next()?.parse().ok());
        Measured { per_s, server_us: server_us.map_or(0.0, |all| all / done) }
    }

    async fn ask(&self, line: &str) -> String {
        let mut command = redis::Cmd::new();
        for word in line.split(' ') {
            command.arg(word);
        }
        let answer: redis::Value =
            command.query_async(&mut self.connection.clone()).await.expect("an answer");
        redis::from_redis_value(answer).unwrap_or_default()
    }
}

async fn compare(redis: &RedisServer, time: Duration) {
    let client = redis::Client::open(redis.url.as_str()).expect("an address");
    let connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let bench = Bench { connection, time };
    let load = async |script: &str| -> String {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(script);
        command.query_async(&mut bench.connection.clone()).await.expect("a script")
    };
    let (gcra, tuned) = (load(GCRA).await, load(TUNED_GCRA).await);
    let config = ServerConfig::single(&redis.url).with_timeout(Duration::from_secs(10));
    let server = Arc::new(Server::new(&config).expect("a server"));
    let mut rounds: [Vec<Measured>; 7] = Default::default();
    // Of use to somebody who waits for it.
    let is_watched = std::io::stderr().is_terminal();
    for round in 1..=ROUNDS {
        if is_watched {
            eprint!("\rround {round} of {ROUNDS}");
        }
        rounds[0].push(plain(&bench, &gcra, 1).await);
        rounds[1].push(plain(&bench, &tuned, 1).await);
        rounds[2].push(layers(&bench, &server, 1).await);
        rounds[3].push(plain(&bench, &gcra, 3).await);
        rounds[4].push(plain(&bench, &tuned, 3).await);
        rounds[5].push(layers(&bench, &server, 3).await);
        rounds[6].push(leased(&server, time).await);
    }
    if is_watched {
        eprintln!();
    }
    let [one, tuned_one, layer, three, tuned_three, layers, leased] = rounds.map(median);
    println!(
        "{:46} {:>10} {:>12} {:>9} {:>9}",
        "", "calls/s", "us in server", "to plain", "to tuned"
    );
    let row = |name: &str, measured: Measured, beside: [Measured; 2], target: &str| {
        let Measured { per_s, server_us } = measured;
        let [plain, tuned] = beside.map(|beside| per_s / beside.per_s);
        println!("{name:46} {per_s:>10.0} {server_us:>12.2} {plain:>9.2} {tuned:>9.2} {target}");
    };
    row("plain GCRA, one limit", one, [one, tuned_one], "");
    row("tuned GCRA, one limit", tuned_one, [one, tuned_one], "");
    row("tidegate, one layer", layer, [one, tuned_one], "(1.0)");
    row("plain GCRA, three limits one after the other", three, [three, tuned_three], "");
    row("tuned GCRA, three limits one after the other", tuned_three, [three, tuned_three], "");
    row("tidegate, three layers at once", layers, [three, tuned_three], "(2.5)");
    row("tidegate, one leased key", leased, [one, tuned_one], "(50)");
}

fn median(mut rounds: Vec<Measured>) -> Measured {
    rounds.sort_by(|one, other| one.per_s.total_cmp(&other.per_s));
    rounds[rounds.len() / 2]
}

/// So many plain scripts for each call, one after the other: each must know that the one before allowed.
async fn plain(bench: &Bench, gcra: &str, limits: u64) -> Measured {
    let measured = bench.measure(|key| {
        let (mut connection, gcra) = (bench.connection.clone(), gcra.to_owned());
        async move {
            for limit in 0..limits {
                let mut command = redis::cmd("EVALSHA");
                command
                    .arg(&gcra)
                    .arg(1)
                    .arg(format!("{}:{limit}:{key}", &gcra[..4]))
                    .arg(10)
                    .arg(1_000_000);
                let answer = command.query_async(&mut connection).await.expect("an answer");
                assert!(allows(&answer), "{answer:?}");
            }
        }
    });
    measured.await
}

/// Whether a plain script, or a tuned one, allows.
fn allows(answer: &redis::Value) -> bool {
    match answer {
        redis::Value::Array(numbers) => numbers.first() == Some(&redis::Value::Int(1)),
        redis::Value::BulkString(bytes) => bytes.starts_with(&1_f64.to_le_bytes()),
        _ => false,
    }
}

/// Layers of a call, in one round trip.
async fn layers(bench: &Bench, server: &Arc<Server>, layers: usize) -> Measured {
    let space = Namespace::new("bench").expect("a name");
    let limit = |place: usize| {
        let limit = "token-bucket, 100000 per second, burst 100000".parse().expect("a limit");
        RemoteLimit::new(&space, &format!("limit{place}"), limit).expect("a limit")
    };
    let limits: Arc<[RemoteLimit]> = (0..layers).map(limit).collect();
    let measured = bench.measure(|key| {
        let (server, limits) = (server.clone(), limits.clone());
        async move {
            let caller = key.to_string();
            let layer = |limit| Layer::new(limit, RemoteLimit::key(limit, &caller), Cost::ONE);
            let layers: Vec<_> = limits.iter().map(layer).collect();
            assert!(server.decide(&layers).await.expect("an answer").is_allow());
        }
    });
    measured.await
}

/// One hot key, by two threads.
async fn leased(server: &Arc<Server>, time: Duration) -> Measured {
    let space = Namespace::new("bench").expect("a name");
    let limit = "token-bucket, 100000000 per second, burst 200000000".parse().expect("a limit");
    let limit = RemoteLimit::new(&space, "hot", limit).expect("a limit");
    let limit = limit.with_leases(LeaseRules::new(Duration::from_millis(500))).expect("leases");
    let limiter = Arc::new(RemoteLimiter::new(server.clone(), [limit]).expect("a limiter"));
    let (id, start) = (limiter.limit("hot").expect("it was given"), Instant::now());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let limiter = limiter.clone();
        callers.spawn(async move {
            let (asks, mut calls) = ([Ask::new(id, "everybody", Cost::ONE)], 0_u64);
            while calls % 1_024 != 0 || start.elapsed() < time {
                assert!(limiter.decide(&asks).await.expect("an answer").is_allow());
                calls += 1;
            }
            calls
        });
    }
    let calls: u64 = callers.join_all().await.into_iter().sum();
    let per_s = calls as f64 / start.elapsed().as_secs_f64();
    limiter.give_back().await;
    Measured { per_s, server_us: 0.0 }
}
