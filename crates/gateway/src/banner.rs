//! What a person sees first: what runs, and what to type next.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

use tidegate::policy::Policy;

use crate::admin::Served;

/// Where the gateway runs, and in front of what.
pub(crate) struct Banner<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) upstream: Option<String>,
    pub(crate) policy: &'a Policy,
    /// The namespace of the rules that are on a server.
    pub(crate) redis: Option<&'a str>,
    pub(crate) state: Option<&'a Path>,
    pub(crate) served: Served,
    /// The token of operators, where it was made for this run.
    pub(crate) token: Option<&'a str>,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = format!("http://{}", self.address);
        let behind = self.upstream.as_deref().unwrap_or("the built-in demo API");
        writeln!(
            f,
            "tidegate {} listens on {url}, in front of {behind}\n",
            env!("CARGO_PKG_VERSION")
        )?;
        self.write_rules(f)?;
        if let Some(namespace) = self.redis {
            writeln!(
                f,
                "\nOn the server that is set by [redis], all gateways of the namespace `{namespace}` share them."
            )?;
        }
        match self.state {
            _ if self.redis.is_some() => {}
            Some(file) => {
                writeln!(f, "\nWhat was spent outlives a restart, in {}", file.display())?;
            }
            None => {
                writeln!(f, "\nWhat was spent is kept in this process, and forgotten at its end.")?
            }
        }
        self.write_served(f)?;
        if self.upstream.is_some() {
            return writeln!(f, "\nTry it: curl -i {url}/    Stop it: Ctrl-C");
        }
        write!(
            f,
            "
Try it, in another terminal:

  1. what this is
     curl {url}/

  2. a chat that uses 51 tokens of Alice's budget; look at RateLimit in the answer
     curl -i {url}/v1/chat/completions -H 'Authorization: Bearer demo-alice' \\
       -H 'Content-Type: application/json' \\
       -d '{{\"model\": \"demo\", \"max_tokens\": 50, \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'

  3. the limit of a user at work: 20 of these pass, then Bob is told to wait (Alice is not)
     for i in $(seq 25); do
       curl -s -o /dev/null -w '%{{http_code}} ' -H 'Authorization: Bearer demo-bob' {url}/v1/models
     done; echo

Stop it: Ctrl-C. Put it in front of your own API: tidegate --print-config > tidegate.toml
"
        )
    }
}

impl Banner<'_> {
    fn write_served(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.served.admin {
            write!(f, "\nPage for operators: http://{address}/")?;
            match self.token {
                Some(token) => writeln!(f, "#token={token} (a token for this run only)")?,
                None => writeln!(f, " (with the token that you set)")?,
            }
        }
        if let Some(address) = self.served.metrics {
            writeln!(f, "Metrics: http://{address}/metrics; health: /live and /ready there")?;
        }
        Ok(())
    }

    fn write_rules(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; 4]> = self
            .policy
            .rules()
            .iter()
            .map(|rule| {
                let limit = rule.limit_text();
                let dry_run = if rule.is_dry_run() { " (dry run)" } else { "" };
                [
                    rule.name().to_owned(),
                    limit,
                    rule.limit().algorithm().to_string(),
                    dry_run.to_owned(),
                ]
            })
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let (name, limit) = (width(0), width(1));
        for row in &rows {
            let mut line = format!("  {:name$}  {:limit$}  {}{}", row[0], row[1], row[2], row[3]);
            line.truncate(line.trim_end().len());
            f.write_str(&line)?;
            f.write_char('\n')?;
        }
        Ok(())
    }
}
