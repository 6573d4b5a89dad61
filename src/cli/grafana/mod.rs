//! `media3watch grafana export`

mod files;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::config::{DatabaseUrl, Environment, alerting, ssl_mode_name};
use crate::grafana::{self, Database, Options, Tls};
use crate::telemetry::say;
use files::Written;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Export(Export),
}

/// Write files from which Grafana provisions itself
///
/// Writes DIR/provisioning (data source, dashboards, alert rules) and DIR/dashboards, and prints
/// what to do next. Nothing is connected to, and no other file is touched. A file that was changed
/// since it was exported, or is not from an export, is kept, named, and the exit status is 1;
/// --force replaces it. DIR/.exported.sha256 says what was exported.
///
/// Export again after an upgrade: the files belong to the version that wrote them. Grafana 11 or
/// newer reads them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  For a Grafana on this machine, installed as a package:
      media3watch grafana export /etc/media3watch/grafana \\
          --db postgresql://grafana@db.example.com:5432/media3watch?sslmode=require
      cp -r /etc/media3watch/grafana/provisioning/. /etc/grafana/provisioning/
      systemctl restart grafana-server   # with GRAFANA_DB_PASSWORD in its environment

  With the panels that ask Prometheus:
      media3watch grafana export DIR --db URL --prometheus http://localhost:9090

The compose file in the repository has all this in place already.

Alerts are told to the channels whose variables are set, in the environment of this command and
in that of Grafana: SLACK_WEBHOOK_URL, PAGERDUTY_INTEGRATION_KEY, ALERT_EMAIL_ADDRESSES,
DISCORD_WEBHOOK_URL, TELEGRAM_BOT_TOKEN with TELEGRAM_CHAT_ID, ALERT_WEBHOOK_URL, NTFY_URL. Other
thresholds: ALERT_ERROR_RATE_PERCENT, ALERT_STARTUP_P95_MS, ALERT_REBUFFERING_PERCENT.

Exit status: 0 done, 1 failed or files were kept, 2 wrong usage or a wrong variable.")]
struct Export {
    /// Where to write; made if it is not there
    dir: PathBuf,

    /// How Grafana reaches the database, with the role that it logs in as
    ///
    /// postgresql://grafana@host:5432/media3watch?sslmode=require, or the same with jdbc:
    /// before it. The backend makes a role that may only read, named grafana, when it is
    /// started with GRAFANA_DB_PASSWORD. Better leave the password out: then the file says
    /// $GRAFANA_DB_PASSWORD, and Grafana takes it from its own environment. A password given
    /// here is written into the file, which only its owner may read then.
    ///
    /// sslmode is disable, require, verify-ca or verify-full; without it, disable on this
    /// machine and require elsewhere. sslrootcert, sslcert and sslkey name files on Grafana's
    /// machine.
    ///
    /// [default: that of the compose file]
    // Read in `run`: clap would print what it refuses, with the password in it.
    #[arg(long, value_name = "URL")]
    db: Option<SecretString>,

    /// Refuse a password in --db: the files are to be read by others than their owner
    #[arg(long)]
    no_password: bool,

    /// Make it the data source that Grafana suggests
    ///
    /// A Grafana in which another one is set as that does not start. [default: only without --db]
    #[arg(long)]
    default: bool,

    /// A Prometheus that scrapes the backend's /metrics; adds its data source and panels
    #[arg(long, value_name = "URL", value_parser = parse_prometheus)]
    prometheus: Option<String>,

    /// The directory of the dashboards as Grafana sees it [default: DIR/dashboards, absolute]
    ///
    /// When Grafana runs in a container, the path at which DIR/dashboards is mounted.
    #[arg(long, value_name = "PATH", value_parser = parse_dashboards_path)]
    dashboards_path: Option<String>,

    /// Replace files that were changed since they were exported, or are not from an export
    #[arg(long)]
    force: bool,
}

/// What is expected, on a mistake; nothing of the URL, which may hold a password.
fn parse_database(text: &str) -> Result<Database, String> {
    let url = DatabaseUrl::parse(text)?;
    let options = url.options();
    let name = options.get_database().ok_or("the name of a database after the host")?;
    let (address, is_here) = if let Some(socket) = options.get_socket() {
        (socket.display().to_string(), true)
    } else {
        let host = options.get_host();
        let is_here = matches!(host, "localhost" | "127.0.0.1" | "::1");
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        (format!("{host}:{}", options.get_port()), is_here)
    };
    let mode = match url.ssl_mode()? {
        Some(mode) => ssl_mode_name(mode),
        None if is_here => "disable",
        None => "require",
    };
    if matches!(mode, "allow" | "prefer") {
        let known = "sslmode disable, require, verify-ca or verify-full, as Grafana knows them";
        return Err(known.to_owned());
    }
    let tls = Tls {
        mode,
        root_certificate: url.parameter("sslrootcert"),
        certificate: url.parameter("sslcert"),
        key: url.parameter("sslkey"),
    };
    Ok(Database {
        address,
        user: url.user().unwrap_or_else(|| "grafana".to_owned()),
        password: url.password().filter(|password| !password.is_empty()).map(Into::into),
        name: name.to_owned(),
        tls,
        is_default: false,
    })
}

fn parse_prometheus(text: &str) -> Result<String, String> {
    let usage = || "write its address, as in http://localhost:9090".to_owned();
    let url: Url = text.parse().map_err(|_| usage())?;
    // A login would be readable for everybody who may look at data sources.
    let is_plain = url.username().is_empty() && url.password().is_none();
    let is_address = matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain;
    if is_address { Ok(text.trim_end_matches('/').to_owned()) } else { Err(usage()) }
}

fn parse_dashboards_path(text: &str) -> Result<String, String> {
    let is_absolute = text.starts_with('/');
    if is_absolute { Ok(text.to_owned()) } else { Err("write an absolute path".to_owned()) }
}

pub(super) fn run(args: Args, environment: &Environment<'_>) -> anyhow::Result<ExitCode> {
    let Action::Export(export) = args.action;
    let alerting = match alerting(environment) {
        Ok(alerting) => alerting,
        Err(error) => {
            super::complain(&error.to_string());
            return Ok(ExitCode::from(2));
        }
    };
    let mut database = match export.db.map(|url| parse_database(url.expose_secret())).transpose() {
        Ok(database) => database.unwrap_or_else(Database::compose),
        Err(expected) => {
            super::complain(&format!("--db: expected {expected}"));
            return Ok(ExitCode::from(2));
        }
    };
    if export.no_password && database.password.is_some() {
        let instead = "leave the password out, and give it to Grafana as GRAFANA_DB_PASSWORD";
        super::complain(&format!("--db: expected a URL without a password: {instead}"));
        return Ok(ExitCode::from(2));
    }
    let dir = &export.dir;
    let absolute = std::path::absolute(dir).with_context(|| dir.display().to_string())?;
    let own_path = absolute.join("dashboards").display().to_string();
    database.is_default |= export.default;
    let options = Options {
        database,
        prometheus: export.prometheus,
        dashboards_path: export.dashboards_path.unwrap_or(own_path),
        alerting,
    };
    let files = grafana::files(&options);
    let Written { written, kept } = files::write(dir, &files, export.force)?;
    for path in &written {
        super::print(&path.display().to_string())?;
    }
    say_what_is_next(&absolute, &options);
    for path in &kept {
        super::complain(&format!("kept {}: it was changed since it was exported", path.display()));
    }
    if kept.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    bail!("the export is incomplete: --force replaces what was kept");
}

fn say_what_is_next(dir: &Path, options: &Options) {
    let Database { address, user, password, name, tls, .. } = &options.database;
    let dir = dir.display();
    say(&format!(
        "
The data source is the database {name} at {address}, as {user}, with sslmode={}.
Grafana looks for the dashboards in {}.

Next:
  1. Put {dir}/provisioning where Grafana looks for provisioning:
         cp -r {dir}/provisioning/. /etc/grafana/provisioning/",
        tls.mode, options.dashboards_path
    ));
    if password.is_some() {
        say(
            "  2. The password is in provisioning/datasources/media3watch.yaml, which only its owner
     may read. Make the user that Grafana runs as its owner, and keep it so:
         chown grafana: /etc/grafana/provisioning/datasources/media3watch.yaml
         chmod 600 /etc/grafana/provisioning/datasources/media3watch.yaml",
        );
    } else {
        say(&format!(
            "  2. Give Grafana the password of {user} in its environment, GRAFANA_DB_PASSWORD. The
     backend makes the role when it is started with the same variable."
        ));
    }
    say_channels(options);
    say("  3. Restart Grafana, and open the folder Media3Watch.

Nothing to see? docs/grafana.md, Troubleshooting.");
}

fn say_channels(options: &Options) {
    let channels = &options.alerting.channels.channels;
    let variables: Vec<_> =
        channels.iter().flat_map(|channel| channel.variables()).copied().collect();
    if !variables.is_empty() {
        say(&format!(
            "     It also needs, or it does not start:
         {}",
            variables.join(" ")
        ));
    }
}
