//! The command line.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use ipnet::IpNet;

use crate::address::{parse_address, parse_network};
use crate::config::{Config, ConfigError};
use crate::inspect::Inspect;
use crate::state::{self, StateError};

/// Limits calls per client address and user, and budgets LLM tokens, in front of an API.
///
/// Without --config, it runs three layers of limits in front of a demo API that is built in.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The configuration: upstream, users and rules
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The address to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    listen: Option<SocketAddr>,

    /// A proxy, or a network of them, whose X-Forwarded-For is believed; may be given again
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    trusted_proxy: Vec<IpNet>,

    /// Where to keep what was spent, so that a restart forgets nothing, and several gateways share their
    /// limits [default: a file for each configuration in the user's folder for state]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    /// Keep what was spent in this process only, and forget it at the end
    #[arg(long, conflicts_with = "state")]
    no_state: bool,

    /// Listen on an address that other gateways, started likewise, listen on too
    #[arg(long)]
    reuse_port: bool,

    /// Print the built-in configuration, to start one's own from
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// What to do instead of running the gateway.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Inspect(Inspect),
}

const EXAMPLES: &str = "\
Examples:
  tidegate                                     the demo, on http://127.0.0.1:8080
  tidegate --print-config > tidegate.toml      a configuration to start from
  tidegate --config tidegate.toml --listen 0.0.0.0:8080 --trusted-proxy 10.0.0.0/8
  tidegate --config tidegate.toml --state /var/lib/tidegate/state --reuse-port
  tidegate inspect /var/lib/tidegate/state     who has used how much
";

impl Cli {
    /// The configuration from the file, if there is one, with what the command line says instead.
    pub(crate) fn config(self) -> Result<Config, StartError> {
        let file = self.config.as_deref();
        let text = file.map(Config::read).transpose()?;
        let state = match self.no_state {
            true => None,
            false => Some(state::open(self.state.as_deref(), file)?),
        };
        let mut config = match file.zip(text) {
            None => Config::built_in(state.as_ref())?,
            Some((file, text)) => Config::from_text(file, &text, state.as_ref())?,
        };
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        config.reuse_port = self.reuse_port;
        config.trusted_proxies.extend(self.trusted_proxy);
        Ok(config)
    }
}

/// Why the gateway does not start.
#[derive(Debug)]
pub(crate) enum StartError {
    Config(ConfigError),
    State(StateError),
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<StateError> for StartError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::State(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let cli = Cli::try_parse_from([
            "tidegate",
            "--no-state",
            "--listen",
            "[::1]:9",
            "--trusted-proxy",
            "10.0.0.1",
        ]);
        let config = cli.unwrap().config().unwrap();
        assert_eq!(config.listen.to_string(), "[::1]:9");
        assert_eq!(config.trusted_proxies, ["10.0.0.1/32".parse().unwrap()]);
    }

    #[test]
    fn bad_arguments_are_refused_with_the_remedy() {
        let error = Cli::try_parse_from(["tidegate", "--trusted-proxy", "ten"]).unwrap_err();
        assert!(error.to_string().contains("10.0.0.0/8"), "{error}");
        assert_eq!(error.exit_code(), 2);
        let error = Cli::try_parse_from(["tidegate", "--listen", "8080"]).unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:8080"), "{error}");
    }
}
