//! `media3watch db distribute`

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::json;

use crate::clock::Clock;
use crate::config::Config;
use crate::store::{Distribution, Store};
use crate::telemetry::say;

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Distribute the tables over the nodes of a Citus cluster
    ///
    /// The database of DATABASE_URL is the cluster's coordinator. All rows of a session go to one
    /// shard. Servers may keep running: they notice. While a table is copied, reports wait for up
    /// to 8 seconds; after that, clients are asked to retry. If it fails, run it again: it
    /// continues with the tables that are left. docs/scaling.md shows how to set up a cluster.
    Distribute(DistributeArgs),
}

#[derive(Debug, clap::Args)]
struct DistributeArgs {
    /// Shards of each table [default: 4 for each node, at least 8]
    ///
    /// More shards can be spread over more nodes later; fewer make each batch of reports cheaper.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    shards: Option<u32>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let Action::Distribute(args) = &args.action;
    let work = async |store: &Arc<Store>| {
        let migrated = store.migrate_patiently(&Clock::system(), PATIENCE).await;
        migrated.with_context(|| super::database::trouble(config))?;
        distribute(args, store).await
    };
    super::database::with(config, work).await
}

async fn distribute(args: &DistributeArgs, store: &Store) -> anyhow::Result<ExitCode> {
    let plan = store.distribution().await?;
    let shards = args.shards.unwrap_or_else(|| plan.default_shards());
    let mut tables = Vec::new();
    if !plan.tables.is_empty() && !args.yes {
        confirm(&plan, shards).await?;
    }
    for table in &plan.tables {
        say(&format!("{}: copying about {} rows …", table.name, table.rows));
        let took = store.distribute(table, shards).await.with_context(|| {
            format!(
                "{} could not be distributed and is as it was; run the command again",
                table.name
            )
        })?;
        say(&format!("{}: distributed in {:.1} s", table.name, took.as_secs_f64()));
        tables.push(json!({
            "table": table.name, "rows": table.rows, "bytes": table.bytes,
            "seconds": took.as_secs_f64(),
        }));
    }
    store.free_local_copies().await.context(
        "the tables are distributed, but their old rows still take space on the coordinator; run \
         the command again to free it",
    )?;
    if args.json {
        let result = json!({
            "citus": plan.citus, "nodes": plan.nodes,
            "shards": (!tables.is_empty()).then_some(shards), "tables": tables,
        });
        return super::print(&result.to_string());
    }
    super::print(&match tables.len() {
        0 => "the tables are distributed already".to_owned(),
        _ => format!("distributed over {} nodes in {shards} shards", plan.nodes),
    })
}

/// Asks on a terminal; elsewhere `--yes` is the answer.
async fn confirm(plan: &Distribution, shards: u32) -> anyhow::Result<()> {
    say(&format!("Citus {}, {} nodes for shards. To be distributed:", plan.citus, plan.nodes));
    for table in &plan.tables {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let megabytes = table.bytes as f64 / 1e6;
        say(&format!("  {:<16} about {} rows, {megabytes:.1} MB", table.name, table.rows));
    }
    if !std::io::stdin().is_terminal() {
        bail!("nothing was changed: confirm with --yes where no terminal can be asked");
    }
    say("While a table is copied, reports wait, and after 8 seconds clients must retry.");
    say(&format!("Distribute them in {shards} shards? [y/N]"));
    // On a thread of its own, which nobody waits for when a signal comes instead of a line.
    let (sender, line) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = sender.send(std::io::stdin().read_line(&mut line).map(|_| line));
    });
    let line = line.await.context("no answer")??;
    if !matches!(line.trim(), "y" | "Y" | "yes") {
        bail!("nothing was changed");
    }
    Ok(())
}
