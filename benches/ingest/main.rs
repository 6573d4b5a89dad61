//! The ingest benchmark: `just bench`, explained in docs/performance.md.
//!
//! It starts a Postgres of its own, runs baselines and the server in turn, several rounds, and
//! prints medians and ratios. Its exit status says whether it could measure, not how fast it
//! was.

#![expect(unreachable_pub, reason = "a program, not a library")]

mod baseline;
mod chart;
mod cluster;
mod database;
mod figures;
mod http;
mod load;
mod measure;
mod options;
mod output;
mod plan;
mod process;
mod reports;
mod server;
mod sql;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use options::Options;
use output::Outcome;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let options = Options::read();
    let outcome = match &options.from {
        Some(file) => read(file)?,
        None => measured(&options).await?,
    };
    print(&outcome.table());
    if let Some(file) = &options.json {
        write(file, &(serde_json::to_string_pretty(&outcome)? + "\n"))?;
    }
    if let Some(file) = &options.chart {
        write(file, &chart::svg(&outcome))?;
    }
    Ok(())
}

fn read(file: &Path) -> Result<Outcome> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut outcome: Outcome = serde_json::from_str(&text)?;
    outcome.settle();
    Ok(outcome)
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Measures until done or interrupted; either way nothing stays behind.
async fn measured(options: &Options) -> Result<Outcome> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = plan::run(options) => outcome,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

/// Says on standard error how far it is.
#[expect(clippy::print_stderr, reason = "progress is for people")]
fn progress(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "the result")]
fn print(text: &str) {
    print!("{text}");
}
