//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use ipnet::IpNet;

use crate::address::{parse_address, parse_network};
use crate::config::{Config, ConfigError};

/// Limits calls per client address and user, and budgets LLM tokens, in front of an API.
///
/// Without --config, it runs three layers of limits in front of a demo API that is built in.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// The configuration: upstream, users and rules
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The address to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    listen: Option<SocketAddr>,

    /// A proxy, or a network of them, whose X-Forwarded-For is believed; may be given again
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    trusted_proxy: Vec<IpNet>,

    /// Print the built-in configuration, to start one's own from
    #[arg(long)]
    pub(crate) print_config: bool,
}

const EXAMPLES: &str = "\
Examples:
  tidegate                                     the demo, on http://127.0.0.1:8080
  tidegate --print-config > tidegate.toml      a configuration to start from
  tidegate --config tidegate.toml --listen 0.0.0.0:8080 --trusted-proxy 10.0.0.0/8
";

impl Cli {
    /// The configuration from the file, if there is one, with what the command line says instead.
    pub(crate) fn config(self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            None => Config::built_in()?,
            Some(file) => Config::from_file(file)?,
        };
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        config.trusted_proxies.extend(self.trusted_proxy);
        Ok(config)
    }
}

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
        let cli =
            Cli::try_parse_from(["tidegate", "--listen", "[::1]:9", "--trusted-proxy", "10.0.0.1"]);
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
