//! What was measured, as a table for people or as JSON.

use serde::Serialize;

use super::servers::{LITELLM, NGINX, TIDEGATE};
use crate::run::Failure;

/// One server.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) server: String,
    /// As many as it can serve.
    pub(super) requests_per_s: f64,
    /// What it was loaded with when latency was measured.
    pub(super) load_per_s: f64,
    /// Of half the calls no more, and of 99 in 100.
    pub(super) latency_us: [f64; 2],
    /// The same, less that of the API itself.
    pub(super) added_us: [f64; 2],
}

pub(super) fn show(rows: &[Row], as_json: bool) -> Result<(), Failure> {
    if as_json {
        let text = serde_json::to_string_pretty(rows);
        println!("{}", text.map_err(|error| Failure::new(error.to_string()))?);
        return Ok(());
    }
    let of = |name: &str| rows.iter().find(|row| row.server == name);
    let nginx = of(NGINX).map_or(f64::NAN, |row| row.requests_per_s);
    println!(
        "server                          requests/s  of nginx   at load  p50 us  p99 us  added p50  added p99"
    );
    println!(
        "------------------------------  ----------  --------   -------  ------  ------  ---------  ---------"
    );
    for row in rows {
        println!(
            "{:<30}  {:>10.0}  {:>8.3}  {:>8.0}  {:>6.0}  {:>6.0}  {:>9.0}  {:>9.0}",
            row.server,
            row.requests_per_s,
            row.requests_per_s / nginx,
            row.load_per_s,
            row.latency_us[0],
            row.latency_us[1],
            row.added_us[0],
            row.added_us[1]
        );
    }
    println!();
    let Some(ours) = of(TIDEGATE) else { return Ok(()) };
    let mut targets = vec![
        (
            "of nginx's requests/s",
            ours.requests_per_s / nginx,
            ">= 0.8",
            ours.requests_per_s >= 0.8 * nginx,
        ),
        ("p99 added at half load, ms", ours.added_us[1] / 1e3, "< 1", ours.added_us[1] < 1e3),
    ];
    if let Some(theirs) = of(LITELLM) {
        let ratio = ours.requests_per_s / theirs.requests_per_s;
        targets.push(("times LiteLLM's requests/s", ratio, ">= 30", ratio >= 30.0));
    }
    for (what, value, target, is_met) in targets {
        println!("{what:<28} {value:>8.2}   {target}{}", if is_met { "" } else { "  MISSED" });
    }
    Ok(())
}
