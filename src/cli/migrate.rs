//! `media3watch migrate`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use crate::clock::Clock;
use crate::config::Config;

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let migrated = super::database::with(config, async |store| {
        let migrated = store.migrate_patiently(&Clock::system(), PATIENCE).await;
        if let (Ok(_), Some(reader)) = (&migrated, &config.reader) {
            store.grant_reader(reader).await;
        }
        migrated.with_context(|| super::database::trouble(config))
    });
    let migrated = migrated.await?;
    if args.json {
        let (version, applied) = (migrated.version, migrated.applied);
        return super::print(&json!({"version": version, "applied": applied}).to_string());
    }
    super::print(&match migrated.applied {
        0 => format!("the schema is up to date (version {})", migrated.version),
        1 => format!("1 migration applied, the schema is at version {}", migrated.version),
        n => format!("{n} migrations applied, the schema is at version {}", migrated.version),
    })
}
