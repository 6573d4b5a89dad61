//! `media3watch rollups`

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use super::moment::Moment;
use crate::clock::Clock;
use crate::config::Config;
use crate::store::{RolledUp, RollupStatus, Store};
use crate::telemetry::say;

const PATIENCE: Duration = Duration::from_secs(10);
/// A server may be making the same rollups; then its work is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const SAY_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show how far the rollups are
    Status(StatusArgs),
    /// Make the rollups anew from the sessions
    ///
    /// Needed after sessions were changed by SQL, which nothing else notices. Dashboards show the
    /// old numbers of an hour until its new ones are there, and a server may be running meanwhile.
    /// What retention has taken sessions from is left alone. If it is interrupted, the server
    /// goes on with what is left.
    Rebuild(RebuildArgs),
}

#[derive(Debug, clap::Args)]
struct StatusArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct RebuildArgs {
    /// Sessions that began at this time or later [default: all]
    ///
    /// RFC 3339, a date (midnight UTC), or a span back from now, such as 24h or 30d.
    #[arg(long, value_name = "T")]
    from: Option<Moment>,
    /// Sessions that began before this time [default: all]
    #[arg(long, value_name = "T")]
    to: Option<Moment>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let work = async |store: &Arc<Store>| {
        let migrated = store.migrate_patiently(&Clock::system(), PATIENCE).await;
        migrated.with_context(|| super::database::trouble(config))?;
        match &args.action {
            Action::Status(args) => status(args, store).await,
            Action::Rebuild(args) => rebuild(args, store).await,
        }
    };
    super::database::with(config, work).await
}

async fn status(args: &StatusArgs, store: &Store) -> anyhow::Result<ExitCode> {
    let RollupStatus {
        lag_seconds,
        waiting_hours,
        waiting_blocks,
        sealed_hours,
        rows,
        bytes,
        first_hour,
        last_hour,
    } = store.rollup_status().await?;
    let moment = |at: Option<_>| at.map(|at| Moment::at(at).to_string());
    if args.json {
        let status = json!({
            "lag_seconds": lag_seconds, "waiting_hours": waiting_hours,
            "waiting_blocks": waiting_blocks, "sealed_hours": sealed_hours, "rows": rows,
            "bytes": bytes, "first_hour": moment(first_hour), "last_hour": moment(last_hour),
        });
        return super::print(&status.to_string());
    }
    let range = match (moment(first_hour), moment(last_hour)) {
        (Some(first), Some(last)) => format!("{first} to {last}"),
        _ => "none yet".to_owned(),
    };
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let megabytes = bytes as f64 / 1e6;
    super::print(&format!(
        "lag             {lag_seconds:.1} s: age of the oldest report that is not in them yet
waiting         {waiting_hours} hours to be made anew, {waiting_blocks} longer buckets to be added up
hours           {range}
sealed          {sealed_hours} hours that retention has taken sessions from
size            about {rows} rows, {megabytes:.1} MB"
    ))
}

async fn rebuild(args: &RebuildArgs, store: &Store) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let (from, to) = (args.from.map(Moment::unix_ms), args.to.map(Moment::unix_ms));
    if let (Some(from), Some(to)) = (from, to) {
        anyhow::ensure!(from < to, "--from must be before --to");
    }
    let rebuild = store.touch_rollups(from, to).await?;
    let hours = rebuild.hours;
    let mut done = RolledUp::default();
    let mut said_at = Instant::now();
    loop {
        let before = done;
        let run = store.roll_up(|so_far| {
            if said_at.elapsed() >= SAY_EVERY {
                let made = before.hours + so_far.hours;
                let sessions = before.sessions + so_far.sessions;
                say(&format!("{made} of {hours} hours made, of {sessions} sessions …"));
                said_at = Instant::now();
            }
        });
        done += run.await?;
        let waiting = store.rebuilding_hours(&rebuild).await?;
        if waiting == 0 {
            break;
        }
        if said_at.elapsed() >= SAY_EVERY {
            say(&format!("{waiting} of {hours} hours are left …"));
            said_at = Instant::now();
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    if args.json {
        let result = json!({"hours": hours, "sessions": done.sessions, "seconds": seconds});
        return super::print(&result.to_string());
    }
    super::print(&format!("the rollups of {hours} hours are made anew, in {seconds:.1} s"))
}
