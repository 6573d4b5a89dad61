//! The command line: one file per subcommand.

mod config;
mod database;
mod db;
mod grafana;
mod healthcheck;
mod import;
mod migrate;
mod moment;
mod rollups;
mod serve;
pub mod simulate;
mod version;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, Environment};
use crate::{causes, telemetry};

/// Playback quality backend for Android Media3: takes session reports, keeps them in PostgreSQL.
///
/// Apps with the Media3Watch SDK post reports of their playback sessions to it over HTTP; it
/// keeps one row per session, for you to query with SQL.
///
/// Without a command it serves. Without DATABASE_URL it brings a PostgreSQL of its own. All
/// settings are environment variables: `media3watch config show --help` explains each of them.
#[derive(Debug, Parser)]
#[command(name = "media3watch", version, max_term_width = 100)]
#[command(after_help = "\
Examples:
  Start on this machine, with the built-in PostgreSQL:
      media3watch

  Watch it take reports, from a second terminal:
      media3watch simulate

  Start on a PostgreSQL of your own, with a key of your own:
      export DATABASE_URL=postgresql://m3w@db.example.com/media3watch
      export DATABASE_PASSWORD_FILE=/etc/media3watch/database-password
      export M3W_API_KEY_FILE=/etc/media3watch/api-key
      media3watch

  See what it is set to, and find every mistake before a deployment:
      media3watch config show
      media3watch config check

Exit status: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take reports and store them (the default)
    ///
    /// Brings the database schema up to date, listens on HOST and PORT, and, with the built-in
    /// PostgreSQL or on a terminal, prints how to try it. Logs go to standard error.
    ///
    /// Ctrl-C or SIGTERM stops it: requests under way are answered, and what was taken is
    /// committed. A second one ends it at once.
    #[command(after_help = "\
Most used variables: M3W_API_KEY, DATABASE_URL, PORT, HOST, RATE_LIMIT_REQUESTS, RETENTION_DAYS.
`media3watch config show --help` explains all of them.")]
    Serve,
    /// Bring the database schema up to date and exit
    ///
    /// The server does the same at its start: this is for those who want it as a step of its own.
    /// It waits some seconds for a database that is still starting.
    Migrate(migrate::Args),
    /// Copy sessions from another database into this one
    ///
    /// Reads the database of the original Media3Watch backend and stores its sessions, with their
    /// timelines, in the database of DATABASE_URL (or the built-in one). A server may be running
    /// on it.
    Import(import::Args),
    /// Show how far the rollups are, or make them anew
    ///
    /// Rollups are sums of sessions by time and dimension, which dashboards read for ranges over a
    /// few hours. The server keeps them up to date.
    Rollups(rollups::Args),
    /// Change how the database is laid out
    Db(db::Args),
    /// Check or show the configuration
    Config(config::Args),
    /// Play viewers against a server, or fill its past
    Simulate(simulate::Args),
    /// Write dashboards, data source and alerts for Grafana
    Grafana(grafana::Args),
    /// Print the OpenAPI 3.1 description of the HTTP interface
    Openapi,
    /// Ask the server on this machine whether it takes traffic: exit status 0 or 1
    ///
    /// For container health checks. Uses HOST and PORT like the server itself.
    Healthcheck,
    /// Print version and revision
    Version(version::Args),
}

impl Cli {
    /// Runs the command and says how it went.
    pub async fn run(self) -> ExitCode {
        let environment = Environment::of_process();
        let done = match self.command.unwrap_or(Command::Serve) {
            Command::Config(args) => config::run(&args, &environment),
            Command::Simulate(args) => simulate::run(args).await,
            Command::Grafana(args) => grafana::run(args, &environment),
            Command::Openapi => print(crate::http::openapi_document().trim_end()),
            Command::Version(args) => version::run(&args),
            command => match Config::load(&environment) {
                Ok(config) => run_configured(command, config, &environment).await,
                Err(error) => return refuse(&error.to_string()),
            },
        };
        match done {
            Ok(code) => code,
            Err(error) => {
                complain(&causes::chain(&*error));
                ExitCode::FAILURE
            }
        }
    }
}

/// Says what is wrong with the configuration: exit status 2.
pub fn refuse(error: &str) -> ExitCode {
    complain(error);
    ExitCode::from(2)
}

async fn run_configured(
    command: Command,
    config: Config,
    environment: &Environment<'_>,
) -> anyhow::Result<ExitCode> {
    telemetry::init_logging(config.log.format, config.log.filter());
    match command {
        Command::Migrate(args) => migrate::run(&args, &config).await,
        Command::Import(args) => import::run(&args, &config, environment).await,
        Command::Rollups(args) => rollups::run(&args, &config).await,
        Command::Db(args) => db::run(&args, &config).await,
        Command::Healthcheck => healthcheck::run(&config).await,
        _ => serve::run(config).await,
    }
}

/// Where a server that listens on `address` is reached from its own machine.
fn local(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Prints a result: the only way to standard output.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    use std::io::Write;
    // A reader that has seen enough, such as `head`, is not a failure.
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn complain(text: &str) {
    telemetry::say(&format!("media3watch: {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
