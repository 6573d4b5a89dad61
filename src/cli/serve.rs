//! `media3watch serve`: the server, and the lines that greet its user.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::VERSION;
use crate::clock::Clock;
use crate::config::{Config, Database, MetricsAt, Source};
use crate::ingest::Bounds;
use crate::lifecycle::{self, Ground};
use crate::limit::Limits;
use crate::managed_pg::{ManagedPostgres, shell_quote};
use crate::signals::stop_on_signals;

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    // Ports first: a port in use is the commonest mistake, and quickly said.
    let listener = bind(config.listen, "PORT").await?;
    let address = listener.local_addr()?;
    let metrics_listener = match config.metrics {
        MetricsAt::Own(address) => Some(bind(address, "METRICS_ADDR").await?),
        MetricsAt::Off | MetricsAt::Main => None,
    };
    let stopping = CancellationToken::new();
    stop_on_signals(stopping.clone())?;
    warn(&config);

    let opening = super::database::open(&config);
    let Some(database) = stopping.run_until_cancelled(opening).await else {
        return Ok(ExitCode::SUCCESS);
    };
    let database = database?;
    if let Some(postgres) = &database.built_in {
        let (gave_up, stopping) = (postgres.gave_up(), stopping.clone());
        tokio::spawn(async move {
            gave_up.cancelled().await;
            stopping.cancel();
        });
    }
    let clock = Clock::system();
    let ground = Ground {
        listener,
        metrics_listener,
        database: database.target.clone(),
        outage: database.built_in.as_ref().map(ManagedPostgres::outage).unwrap_or_default(),
        clock: clock.clone(),
        limits: limits(),
        bounds: Bounds::default(),
    };
    let greet = || {
        tracing::info!(%address, version = VERSION, "listening");
        if database.built_in.is_some() || std::io::stdout().is_terminal() {
            let text = greeting(&config, address, database.built_in.as_ref(), clock.now().0);
            // A standard output that nobody reads must not stop the server.
            std::thread::spawn(move || super::print(&text));
        }
    };
    let served = lifecycle::run(&config, ground, stopping, |_| greet()).await;
    database.close().await?;
    served.with_context(|| super::database::trouble(&config))?;
    Ok(ExitCode::SUCCESS)
}

async fn bind(address: SocketAddr, variable: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address} (set {variable} to change it)"))
}

fn warn(config: &Config) {
    if config.has_default_key() && !config.listen.ip().is_loopback() {
        tracing::warn!(
            address = %config.listen,
            "M3W_API_KEY is the default key, which everybody knows, and the server listens beyond \
             this machine: set M3W_API_KEY, or HOST=127.0.0.1"
        );
    }
    if config.redis_url.is_some() {
        tracing::warn!("REDIS_URL is set, but this version counts limits per instance");
    }
}

/// The limits that the number of file descriptors permits, once its soft limit is raised to the
/// hard one.
fn limits() -> Limits {
    let limits = Limits::default();
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return limits;
    };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    limits.within_files(if raised { hard } else { soft })
}

fn greeting(
    config: &Config,
    address: SocketAddr,
    built_in: Option<&ManagedPostgres>,
    now_ms: i64,
) -> String {
    let url = format!("http://{}", super::local(address));
    let (key, shell_key) = match config.api_key_source() {
        _ if config.has_default_key() => {
            ("dev-key (set M3W_API_KEY to change it)".to_owned(), "dev-key".to_owned())
        }
        Source::File(file) => {
            (format!("the one in {}", file.display()), format!("$(cat {})", shell_quote(file)))
        }
        _ => ("the one in M3W_API_KEY".to_owned(), "$M3W_API_KEY".to_owned()),
    };
    let (data, psql) = match (built_in, &config.database) {
        (Some(postgres), _) => (
            format!(
                "{} (built-in PostgreSQL, port {})",
                postgres.data_dir().display(),
                postgres.port()
            ),
            postgres.psql_hint(),
        ),
        (None, Database::Url(url)) => (url.to_string(), format!("psql '{url}'")),
        (None, Database::BuiltIn(_)) => (String::new(), String::new()),
    };
    format!(
        "
Media3Watch {VERSION} is ready.

  address  {url} (listening on {address})
  key      {key}
  data     {data}
  psql     {psql}

Try it:
  curl -H \"X-API-Key: {shell_key}\" -H 'Content-Type: application/json' {url}/v1/sessions \\
    -d '{{\"sessionId\":\"hello-{now_ms}\",\"timestamp\":{now_ms},\"contentId\":\"my-first-video\",\"startupTimeMs\":850,\"playTimeMs\":60000}}'
  curl -H \"X-API-Key: {shell_key}\" {url}/v1/sessions/hello-{now_ms}

Ctrl-C stops it; the data stays.
"
    )
}
