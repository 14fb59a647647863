//! [`Load`]: calls of many clients at once, by wrk.

use std::fs;

use super::servers::{BODY, Server, folder};
use crate::run::{Failure, command};

/// How a server is loaded.
pub(super) struct Load {
    pub(super) seconds: u32,
    pub(super) realtime: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// Clients that each send a call as soon as they have the answer to the one before.
const CLIENTS: u32 = 64;

/// Clients that each wait for a while before a call.
const PACED_CLIENTS: u32 = 128;

impl Load {
    /// As much as the server can take.
    pub(super) fn whole(&self, server: &Server) -> Result<Measured, Failure> {
        self.load(server, CLIENTS, "")
    }

    /// So many calls per second, at times that are not regular.
    pub(super) fn paced(&self, server: &Server, per_second: f64) -> Result<Measured, Failure> {
        let mean_ms = f64::from(PACED_CLIENTS) / per_second * 1e3;
        let longest = (2.0 * mean_ms).round();
        self.load(
            server,
            PACED_CLIENTS,
            &format!("function delay() return math.random(0, {longest}) end\n"),
        )
    }

    fn load(&self, server: &Server, clients: u32, script: &str) -> Result<Measured, Failure> {
        let path = folder().join("load.lua");
        let script = format!(
            "wrk.method = 'POST'\nwrk.body = '{BODY}'\n\
             wrk.headers['Content-Type'] = 'application/json'\n\
             wrk.headers['Authorization'] = 'Bearer {}'\n{script}\
             function done(summary, latency, requests)\n\
             local errors = summary.errors\n\
             io.write(string.format('\\nmeasured %d %d %f %f %d\\n', summary.requests, summary.duration,\n\
             latency:percentile(50), latency:percentile(99), errors.connect + errors.read + errors.write\n\
             + errors.status + errors.timeout))\nend\n",
            server.key()
        );
        fs::write(&path, script)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        let chrt = if self.realtime { "chrt -f 50 " } else { "" };
        let line = format!(
            "{chrt}wrk -t 2 -c {clients} -d {} --timeout 20s -s {}",
            self.seconds,
            path.display()
        );
        let output = command(&line).arg(server.url()).output();
        let output = output.map_err(|error| Failure::new(format!("`{line}`: {error}")))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers = text.lines().find_map(|line| line.strip_prefix("measured "));
        let numbers: Vec<f64> = numbers
            .into_iter()
            .flat_map(str::split_whitespace)
            .filter_map(|number| number.parse().ok())
            .collect();
        let [calls, us, p50_us, p99_us, failed] = numbers.as_slice() else {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(format!(
                "wrk did not measure {}: {text}{said}",
                server.name()
            )));
        };
        if *failed > 0.0 {
            return Err(Failure::new(format!(
                "{failed} of {calls} calls to {} failed",
                server.name()
            )));
        }
        Ok(Measured { per_second: calls / us * 1e6, p50_us: *p50_us, p99_us: *p99_us })
    }
}
