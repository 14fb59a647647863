//! The command line.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use ipnet::IpNet;
use tidegate::SharedFile;

use crate::address::{parse_address, parse_network};
use crate::admin::{Admin, TokenError};
use crate::check::Check;
use crate::config::{Config, ConfigError};
use crate::gateway::Gateway;
use crate::inspect::Inspect;
use crate::keys::KeysCommand;
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

    /// The address of the page and the API for operators, whose token is in TIDEGATE_ADMIN_TOKEN; without
    /// one, a token is made for this run, and shown [default: none]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    admin: Option<SocketAddr>,

    /// The address of metrics and health, which need no token [default: none]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    metrics: Option<SocketAddr>,

    /// Print the built-in configuration, to start one's own from
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// What to do instead of running the gateway.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Check(Check),
    Inspect(Inspect),
    Keys(KeysCommand),
}

const EXAMPLES: &str = "\
Examples:
  tidegate                                     the demo, on http://127.0.0.1:8080
  tidegate --print-config > tidegate.toml      a configuration to start from
  tidegate --config tidegate.toml --listen 0.0.0.0:8080 --trusted-proxy 10.0.0.0/8
  tidegate --config tidegate.toml --state /var/lib/tidegate/state --reuse-port
  tidegate --admin 127.0.0.1:9090              with the page for operators
  tidegate check tidegate.toml                 all that is wrong with it, or what its rules mean
  tidegate keys add alice --team research      a key for a user, which is shown once
  tidegate inspect /var/lib/tidegate/state     who has used how much
";

impl Cli {
    /// Where the configuration comes from, with what the command line says instead of the file.
    pub(crate) fn origin(self) -> Result<Origin, StartError> {
        let admin = self.admin.map(Admin::from_environment).transpose()?;
        let state = match self.no_state {
            true => None,
            false => Some(state::open(self.state.as_deref(), self.config.as_deref())?),
        };
        Ok(Origin {
            file: self.config,
            state,
            listen: self.listen,
            trusted_proxies: self.trusted_proxy,
            reuse_port: self.reuse_port,
            admin,
            metrics: self.metrics,
        })
    }
}

/// Where the configuration comes from: a file, and what the command line says instead of it.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) file: Option<PathBuf>,
    state: Option<SharedFile>,
    listen: Option<SocketAddr>,
    trusted_proxies: Vec<IpNet>,
    reuse_port: bool,
    admin: Option<Admin>,
    metrics: Option<SocketAddr>,
}

impl Origin {
    /// The configuration, after a former one, if there is one.
    pub(crate) fn config(&self, former: Option<&Gateway>) -> Result<Config, ConfigError> {
        let state = self.state.as_ref();
        let mut config = match &self.file {
            None => Config::built_in(state, former)?,
            Some(file) => Config::from_text(file, &Config::read(file)?, state, former)?,
        };
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        config.reuse_port = self.reuse_port;
        config.trusted_proxies.extend(&self.trusted_proxies);
        let operation = &mut config.operation;
        operation.admin = self.admin.clone().or(operation.admin.take());
        operation.metrics = self.metrics.or(operation.metrics);
        Ok(config)
    }

    /// The file of state, if there is one.
    pub(crate) fn state(&self) -> Option<&Path> {
        self.state.as_ref().map(SharedFile::path)
    }
}

/// Why the gateway does not start.
#[derive(Debug)]
pub(crate) enum StartError {
    Config(ConfigError),
    State(StateError),
    Token(TokenError),
}

impl From<TokenError> for StartError {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
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
            Self::Token(error) => error.fmt(f),
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
        let config = cli.unwrap().origin().unwrap().config(None).unwrap();
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
