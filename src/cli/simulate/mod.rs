//! `media3watch simulate`: viewers that are not there.
//!
//! It plays SDK clients against any server, over HTTP and nothing else. The session model is one
//! for both kinds of run: `script` draws what a player will go through, `session` plays it on
//! a virtual clock, `wire` writes the reports as each SDK generation does. `live` sleeps
//! between the reports; `history` sends them in batches.

mod chance;
mod client;
mod history;
mod live;
mod model;
mod outbox;
mod progress;
mod rhythm;
mod script;
mod session;
mod span;
mod stop;
mod summary;
mod tally;
mod wire;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::Url;

use crate::auth::PlainKey;
use client::Client;
use history::{History, Past, Reports};
use live::Live;
pub use model::Incident;
use span::{Moment, parse_duration, parse_moment};
use stop::Stop;
use summary::{Mode, Run, Summary};
use tally::Tally;

const EXAMPLES: &str = "\
Examples:
  Ten viewers for a minute, against the server on this machine:
      media3watch simulate

  Fifty viewers for ten minutes, with errors from the fifth minute on:
      media3watch simulate --viewers 50 --for 10m --incident error-spike

  A month of past sessions, to have something in the dashboards:
      media3watch simulate --history 30d --sessions 100000

  A thousand sessions with every report, for the disk usage of real viewers:
      media3watch simulate --history 60d --sessions 1000 --every-report

  The same sessions once more, to the millisecond:
      media3watch simulate --history 30d --seed 7 --until 2026-02-14T10:30:00Z

A viewer of SDK 1.x posts at least four reports a minute. The server's default rate limit, 100
requests in 60 s for each key, is good for about 25 viewers: start it with a higher
RATE_LIMIT_REQUESTS for more.

Exit status: 0 when the server accepted something, 1 when it accepted nothing, could not be
reached or did not know the key, 2 for wrong usage.";

/// Play viewers against a server: now, or in the past
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "--help shows examples.")]
pub struct Args {
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:8080", value_parser = parse_url)]
    url: Url,

    /// API key with the scope ingest
    #[arg(long, default_value = "dev-key")]
    // Checked in `run`: clap would print what it refuses.
    key: PlainKey,

    /// Viewers at the same time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=100_000),
        conflicts_with_all = ["history", "sessions"]
    )]
    viewers: u32,

    /// How long they watch, for example 60s, 10m or 2h
    #[arg(
        long = "for",
        value_name = "DURATION",
        default_value = "60s",
        value_parser = parse_duration,
        conflicts_with_all = ["history", "sessions"]
    )]
    length: Duration,

    /// Fill the past instead: finished sessions of so long before now, for example 30d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    history: Option<Duration>,

    /// Sessions in the past
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000_000),
        requires = "history"
    )]
    sessions: u64,

    /// End of the history: RFC 3339, a date, or a span back from now [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_moment, requires = "history")]
    until: Option<Moment>,

    /// Batches in flight while filling the past
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u8).range(1..=64),
        requires = "history"
    )]
    concurrency: u8,

    /// Send every report of the past: slower, and disk usage is that of real viewers
    ///
    /// SDK 1.x sends about 80 reports per session, nearly all with the one timeline entry captured
    /// since the report before. By default a history sends the last report of each session as it is,
    /// and joins those before it into one report, or a few in a long session. Timelines and final
    /// values are the same, but report counts, disk usage and the rate of requests are lower than
    /// those of real viewers. With this option nothing is joined. Sending takes about five times as
    /// long, in many more requests: start the server with a higher RATE_LIMIT_REQUESTS.
    #[arg(long, requires = "history")]
    every_report: bool,

    /// Makes a run repeatable: the same seed draws the same sessions [default: random]
    ///
    /// With the same --history, --sessions and --until the same session ids and values are sent,
    /// which a server that has them already acknowledges as duplicates.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Trouble, from the middle of the run on, or in the last two hours of the history
    ///
    /// Sessions that begin before it stay as they are. Of a history shorter than four hours it is
    /// the second half.
    #[arg(long, value_name = "KIND", value_enum)]
    incident: Option<Incident>,

    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
}

fn parse_url(text: &str) -> Result<Url, String> {
    let usage = "write the server's address, as in http://127.0.0.1:8080";
    let url: Url = text.parse().map_err(|_| usage.to_owned())?;
    let is_address = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.query().is_none()
        && url.fragment().is_none()
        // The summary prints the address.
        && url.username().is_empty()
        && url.password().is_none();
    if is_address { Ok(url) } else { Err(usage.to_owned()) }
}

/// Runs the simulation and prints its summary on standard output.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if !args.key.is_sendable() {
        super::complain(&format!("--key: expected {}", PlainKey::EXPECTED));
        return Ok(ExitCode::from(2));
    }
    let seed = args.seed.unwrap_or_else(rand::random);
    let client = Client::new(args.url.clone(), args.key)?;
    client.probe().await?;

    let tally = Arc::new(Tally::default());
    let stop = Stop::on_ctrl_c();
    let began = Instant::now();
    let until = args.history.map(|_| args.until.unwrap_or_else(Moment::now));
    if let (Some(span), Some(until)) = (args.history, until) {
        let span_ms = u64::try_from(span.as_millis()).context("the history is too long")?;
        let past = Past::new(seed, args.sessions, span_ms, until.unix_ms, args.incident);
        let history = History {
            client,
            tally: Arc::clone(&tally),
            stop: stop.clone(),
            past,
            reports: if args.every_report { Reports::Every } else { Reports::Joined },
            concurrency: usize::from(args.concurrency),
        };
        history.run().await?;
    } else {
        let live = Live {
            client,
            tally: Arc::clone(&tally),
            stop: stop.clone(),
            seed,
            viewers: args.viewers,
            length: args.length,
            incident: args.incident,
        };
        live.run().await;
    }

    let error = stop.take_error();
    let counts = tally.take();
    if counts.accepted == 0
        && let Some(error) = error
    {
        return Err(error);
    }
    let run = Run {
        mode: if until.is_some() { Mode::History } else { Mode::Live },
        url: args.url.to_string(),
        seed,
        until: until.map(Moment::rfc3339),
        incident: args.incident,
    };
    let summary = Summary::new(run, counts, began.elapsed());
    let text = if args.json { serde_json::to_string(&summary)? } else { summary.to_string() };
    super::print(&text)?;
    // A run that was given up half-way has a summary, and did not complete.
    if let Some(error) = error {
        return Err(error);
    }
    Ok(if summary.accepted_any() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
