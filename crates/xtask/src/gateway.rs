//! `cargo xtask bench gateway`: the gateway beside nginx as a plain proxy and beside LiteLLM's proxy.

mod load;
mod memory;
mod report;
mod servers;

use clap::Parser;

use crate::run::{Failure, run, succeeds};
use load::{Load, Measured};
use report::Row;
use servers::{Place, Server};

/// Compares the gateway with nginx as a plain proxy with `limit_req`, and with LiteLLM's proxy with a
/// budget, in front of the same API: small calls that do not stream.
///
/// All run on this machine and share its processors with the load. Rounds go from one to the next in
/// turns; figures are medians. Added latency is what a call takes more than one to the API itself, in the
/// same round, at half the requests per second that the gateway can serve (for LiteLLM, half of its own).
#[derive(Parser)]
#[command(
    name = "cargo xtask bench gateway",
    after_help = "Examples:\n  \
    cargo xtask bench gateway                 needs nginx and wrk: `apt-get install nginx-light wrk`\n  \
    cargo xtask bench gateway --litellm       installs LiteLLM by pip, below target/bench-gateway\n  \
    cargo xtask bench gateway --realtime      as root, where other programs are running\n  \
    cargo xtask bench gateway --memory        memory instead: with 1,000 open streams, and over a long run"
)]
struct Cli {
    /// With LiteLLM's proxy, which is installed by pip if it is not there
    #[arg(long)]
    litellm: bool,
    /// All processes at real-time priority (`chrt -f 50`), before all others on this machine
    #[arg(long)]
    realtime: bool,
    /// How many rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each server is loaded in a round
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// A list of objects instead of a table
    #[arg(long)]
    json: bool,
    /// Memory instead of speed
    #[arg(long)]
    memory: bool,
    /// A gateway that is built already
    #[arg(long, value_name = "FILE")]
    binary: Option<String>,
}

/// Compares, or shows what memory is used.
pub(crate) fn bench(arguments: &[String]) -> Result<(), Failure> {
    let name = "cargo xtask bench gateway".to_owned();
    let cli = Cli::parse_from(std::iter::once(&name).chain(arguments));
    need("wrk", "-v")?;
    let binary = match &cli.binary {
        Some(binary) => binary.clone(),
        None => {
            run("cargo build --release --package tidegate-gateway")?;
            "target/release/tidegate".to_owned()
        }
    };
    let place = Place::new(binary, cli.realtime)?;
    if cli.memory {
        return memory::show(&place, cli.json);
    }
    need("nginx", "-v")?;
    let upstream = place.upstream()?;
    let mut servers = vec![place.nginx(upstream.port())?, place.tidegate(upstream.port())?];
    if cli.litellm {
        servers.push(place.litellm(upstream.port())?);
    }
    servers.insert(0, upstream);
    servers.iter().try_for_each(Server::wait_until_ready)?;
    let rows = compare(&servers, &cli)?;
    report::show(&rows, cli.json)
}

/// Loads all servers in turns: as much as they can take, and then half of that.
fn compare(servers: &[Server], cli: &Cli) -> Result<Vec<Row>, Failure> {
    let load = Load { seconds: cli.seconds, realtime: cli.realtime };
    // One that is not counted, since caches and pools are filled.
    for server in servers {
        load.whole(server)?;
    }
    let mut whole = vec![Vec::new(); servers.len()];
    for _ in 0..cli.rounds {
        for (server, measured) in servers.iter().zip(&mut whole) {
            measured.push(load.whole(server)?.per_second);
        }
    }
    let whole: Vec<f64> = whole.into_iter().map(median).collect();
    let mut rows = Vec::new();
    let half =
        |name| servers.iter().position(|server| server.name() == name).map(|at| whole[at] / 2.0);
    for rate in [half(servers::TIDEGATE), half(servers::LITELLM)].into_iter().flatten() {
        let is_slow = Some(rate) == half(servers::LITELLM);
        // Those that this rate is for, and the API itself beside them.
        let loaded: Vec<_> = (0..servers.len())
            .filter(|at| *at == 0 || (servers[*at].name() == servers::LITELLM) == is_slow)
            .collect();
        let mut rounds = vec![Vec::new(); loaded.len()];
        for _ in 0..cli.rounds {
            for (at, measured) in loaded.iter().zip(&mut rounds) {
                measured.push(load.paced(&servers[*at], rate)?);
            }
        }
        for (at, measured) in loaded.iter().zip(&rounds) {
            if *at == 0 && is_slow {
                continue;
            }
            let of = |part: fn(&Measured) -> f64| median(measured.iter().map(part).collect());
            let added = |part: fn(&Measured) -> f64| {
                let pairs = measured.iter().zip(&rounds[0]);
                median(pairs.map(|(through, direct)| part(through) - part(direct)).collect())
            };
            rows.push(Row {
                server: servers[*at].name().to_owned(),
                requests_per_s: whole[*at],
                load_per_s: of(|one| one.per_second),
                latency_us: [of(|one| one.p50_us), of(|one| one.p99_us)],
                added_us: [added(|one| one.p50_us), added(|one| one.p99_us)],
            });
        }
    }
    Ok(rows)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn need(program: &str, version: &str) -> Result<(), Failure> {
    let found = std::process::Command::new(program).arg(version).output();
    if found.is_ok() || succeeds(&format!("apt-get install --yes {program}")) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "`{program}` is needed; install it, such as with `apt-get install {program}`"
    )))
}
