//! The command line: one file per subcommand.

mod config;
mod database;
mod healthcheck;
mod migrate;
mod serve;
pub mod simulate;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, Environment};
use crate::telemetry;

/// Playback quality backend for Android Media3: session reports in, PostgreSQL and Grafana out.
///
/// Without a command it serves, with a PostgreSQL of its own unless DATABASE_URL is set.
/// Configuration comes from environment variables: see `media3watch config show`.
#[derive(Debug, Parser)]
#[command(name = "media3watch", version, max_term_width = 100)]
#[command(after_help = "\
Examples:
  media3watch                                start, with the built-in PostgreSQL
  DATABASE_URL=postgresql://m3w:m3w@db/media3watch media3watch serve
  media3watch simulate --viewers 20 --for 2m watch it live
  media3watch config check                   before a deployment

Exit status: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take reports and store them (the default)
    Serve,
    /// Bring the database schema up to date and exit
    Migrate(migrate::Args),
    /// Check or show the configuration
    Config(config::Args),
    /// Play viewers against a server, or fill its past
    Simulate(simulate::Args),
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
            Command::Openapi => print(crate::http::openapi_document().trim_end()),
            Command::Version(args) => version::run(&args),
            command => match Config::load(&environment) {
                Ok(config) => run_configured(command, config).await,
                Err(error) => {
                    complain(&error.to_string());
                    return ExitCode::from(2);
                }
            },
        };
        match done {
            Ok(code) => code,
            Err(error) => {
                complain(&format!("{error:#}"));
                ExitCode::FAILURE
            }
        }
    }
}

async fn run_configured(command: Command, config: Config) -> anyhow::Result<ExitCode> {
    telemetry::init_logging(config.log.format, config.log.filter());
    match command {
        Command::Migrate(args) => migrate::run(&args, &config).await,
        Command::Healthcheck => healthcheck::run(&config).await,
        _ => serve::run(config).await,
    }
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

#[expect(clippy::print_stderr, reason = "errors of commands are for people")]
fn complain(text: &str) {
    eprintln!("media3watch: {text}");
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
