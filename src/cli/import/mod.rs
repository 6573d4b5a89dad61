//! `media3watch import`: sessions from elsewhere into the configured database.
//!
//! Each session becomes a report as an SDK would have sent it, and takes the path of an HTTP
//! report: `report::parse`, then the ingest queue. A second run therefore changes nothing.

mod copy;
mod row;
mod tally;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;

use crate::auth::Tenant;
use crate::clock::Clock;
use crate::config::{self, Config, DatabaseUrl, Environment};
use crate::store::{Error, Original, Store};
use copy::Copy;
use tally::Tally;

/// How long to wait for a database that is still starting.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  Copy the sessions of the original Media3Watch backend into a database of their own:
      createdb media3watch_new
      export DATABASE_URL=postgresql://m3w:m3w@127.0.0.1:5433/media3watch_new
      media3watch import --from-media3watch postgresql://m3w:m3w@127.0.0.1:5433/media3watch

The source is only read. The target's schema is brought up to date first. Sessions that were
copied before count as duplicates: run the command again after an interruption. Sessions older
than RETENTION_DAYS are left out. docs/import.md says more.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration.";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "--help shows an example.")]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// Tenant that the sessions belong to
    #[arg(long, value_name = "TENANT", default_value = "default", value_parser = tenant)]
    tenant: Tenant,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Where sessions come from: exactly one of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The database of the original Media3Watch backend, as DATABASE_URL takes it
    // Parsed later: clap would repeat a wrong value, and with it the password.
    #[arg(long, value_name = "URL")]
    from_media3watch: Option<SecretString>,
}

fn tenant(name: &str) -> Result<Tenant, String> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=63).contains(&name.len()) && name.bytes().all(is_inner) && !name.starts_with('-') {
        return Ok(Tenant::new(name));
    }
    Err("up to 63 lower-case letters, digits and hyphens, no hyphen first".to_owned())
}

pub(super) async fn run(
    args: &Args,
    config: &Config,
    environment: &Environment<'_>,
) -> anyhow::Result<ExitCode> {
    let url = args.source.from_media3watch.as_ref().map_or("", |url| url.expose_secret());
    let source = match config::other_database(url, environment) {
        Ok(source) => source,
        Err(expected) => {
            return Ok(super::refuse(&format!(
                "--from-media3watch is [hidden], expected {expected}"
            )));
        }
    };
    let work = async |store: &Arc<Store>| import(args, config, &source, store).await;
    let tally = super::database::with(config, work).await?;
    tally.explain(config);
    super::print(&if args.json { tally.json().to_string() } else { tally.to_string() })
}

async fn import(
    args: &Args,
    config: &Config,
    url: &DatabaseUrl,
    store: &Arc<Store>,
) -> anyhow::Result<Tally> {
    let unreadable = || format!("the database {url} cannot be read (from --from-media3watch)");
    let source = patiently(async || Original::connect(url.target()).await).await;
    let mut source = source.with_context(unreadable)?;
    let place = source.place().await.with_context(unreadable)?;
    let target = patiently(async || store.place().await).await;
    if target.with_context(|| super::database::trouble(config))? == place {
        bail!(
            "the database to import from ({url}) is the one to import into, in the same schema; \
             nothing was changed. Set DATABASE_URL to another database (CREATE DATABASE …), or to \
             another schema of this one (CREATE SCHEMA … and ?currentSchema=…)"
        );
    }
    // A wrong source must be noticed before the target is changed.
    let expected = source.begin().await.with_context(unreadable)?;
    let clock = Clock::system();
    let migrated = store.migrate_patiently(&clock, PATIENCE).await;
    migrated.with_context(|| super::database::trouble(config))?;
    let tally = Tally::new(expected);
    Copy::new(store, &args.tenant, config, clock.now()).run(&mut source, tally).await
}

/// Retries temporary errors for [`PATIENCE`].
async fn patiently<T>(call: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Err(error)
                if error.is_temporary() && !error.is_permanent() && Instant::now() < deadline =>
            {
                tracing::debug!(%error, "waiting for the database");
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}
