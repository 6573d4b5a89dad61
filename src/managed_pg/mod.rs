//! The built-in PostgreSQL, for a first evening and for tests: no database to set up.
//!
//! [`ManagedPostgres::start`] takes the lock on the data directory, adopts the server that a
//! killed owner has left behind, or else finds or downloads the binaries, makes the cluster,
//! starts the server, and makes the application's role and database. Every step can be cut off
//! at any point, by a kill or a power cut, and the next start carries on from there.
//!
//! In the data directory:
//!
//! ```text
//! lock                 held by the running program, with its pid
//! postgresql/18.x.0/   the binaries
//! pgdata/              the cluster
//! port                 the port of last time
//! postgres.log         the server's log
//! media3watch.pgpass   the application's password, mode 0600
//! postgres.pgpass      the superuser's password, mode 0600
//! ```

mod account;
mod cluster;
mod database;
mod error;
mod files;
mod install;
mod local;
mod lock;
mod outage;
mod paths;
mod postmaster;
mod progress;
mod server;
mod supervisor;
mod unpack;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;

pub use self::error::Error;
pub use self::install::{MAVEN_CENTRAL, install};
pub use self::local::installed_bin_dirs;
pub use self::outage::Outage;
pub use self::paths::default_data_dir;
pub(crate) use self::paths::shell_quote;
pub use self::progress::{OnProgress, Progress, Reporter};

use self::account::Account;
use self::database::APP;
use self::lock::Lock;
use self::paths::Layout;
use self::postmaster::Postmaster;
use self::server::{Port, Server};
use self::supervisor::Supervisor;

/// Where the data lies and where the binaries come from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Holds everything; created if it is not there.
    pub data_dir: PathBuf,
    /// Holds the downloaded binaries. May be shared by several data directories.
    pub cache_dir: PathBuf,
    /// The Maven repository to download from, [`MAVEN_CENTRAL`] or a mirror.
    pub repository: String,
    /// Directories of servers on this machine, which serve when the download cannot be had.
    pub installed: Vec<PathBuf>,
}

impl Settings {
    /// The usual settings. `path` is the value of `PATH`, to find a PostgreSQL of this machine.
    pub fn new(data_dir: impl Into<PathBuf>, path: Option<&OsStr>) -> Self {
        let data_dir = data_dir.into();
        Self {
            cache_dir: data_dir.join("postgresql"),
            repository: MAVEN_CENTRAL.to_owned(),
            installed: installed_bin_dirs(path),
            data_dir,
        }
    }
}

/// A running server of our own, started again when it dies.
///
/// Dropped without [`stop`](Self::stop), it is told to shut down, and nobody waits for it.
#[derive(Debug)]
pub struct ManagedPostgres {
    // Fields drop in this order: the server is told to stop before the lock goes.
    server: Supervisor,
    layout: Layout,
    password: SecretString,
    psql: String,
    _lock: Lock,
}

impl ManagedPostgres {
    /// Starts the server on `settings.data_dir`; on the first start downloads and sets it up.
    ///
    /// Cancelling is safe at any point.
    pub async fn start(settings: Settings, on: OnProgress<'_>) -> Result<Self, Error> {
        let layout = prepare(&settings)?;
        let lock = Lock::take(&layout)?;
        let server = launch(&settings, &layout, Port::AsBefore, on).await?;
        let password = database::ensure(&layout, server.port()).await?;
        let psql = psql(&settings.installed);
        let server = Supervisor::watch(server, settings, layout.clone());
        Ok(Self { server, layout, password, psql, _lock: lock })
    }

    /// What a client connects with while another process of this program runs the server; `None`
    /// if none is up, or its password file is not ours to read.
    pub fn running_url(settings: &Settings) -> Option<SecretString> {
        let layout = Layout { root: absolute(&settings.data_dir).ok()? };
        let running = Postmaster::running(&layout.pgdata()).filter(|found| found.ready)?;
        // Reading makes a missing one.
        let file = layout.app_password();
        let password = file.is_file().then(|| cluster::password(&file, APP).ok()).flatten()?;
        Some(url(&password, running.port))
    }

    /// What a client connects with, as the role `media3watch`, which owns the database.
    pub fn url(&self) -> SecretString {
        url(&self.password, self.port())
    }

    /// A command line to paste into a shell. It names the password file and no password.
    pub fn psql_hint(&self) -> String {
        let file = shell_quote(&self.layout.app_password());
        let (psql, port) = (&self.psql, self.port());
        format!("PGPASSFILE={file} {psql} -h 127.0.0.1 -p {port} -U {APP} {APP}")
    }

    /// The data directory, absolute.
    pub fn data_dir(&self) -> &Path {
        &self.layout.root
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The server's process.
    pub fn pid(&self) -> i32 {
        self.server.pid()
    }

    /// Whether the server is down, being started again.
    pub fn outage(&self) -> Outage {
        self.server.outage()
    }

    /// Cancelled when the server has died too often to be started again; [`stop`](Self::stop)
    /// then says why.
    pub fn gave_up(&self) -> CancellationToken {
        self.server.gave_up()
    }

    /// Shuts the server down and waits for it. Connections still open are cut.
    pub async fn stop(self) -> Result<(), Error> {
        self.server.stop().await
    }
}

fn url(password: &SecretString, port: impl std::fmt::Display) -> SecretString {
    let password = password.expose_secret();
    SecretString::from(format!("postgresql://{APP}:{password}@127.0.0.1:{port}/{APP}"))
}

/// Adopts the server that runs on the data directory, or starts one. The lock must be held.
async fn launch(
    settings: &Settings,
    layout: &Layout,
    port: Port,
    on: OnProgress<'_>,
) -> Result<Server, Error> {
    let pgdata = layout.pgdata();
    files::refuse_link(&pgdata)?;
    let major = cluster::major(layout)?;
    if major.is_some()
        && let Some(server) = Server::adopt(layout).await?
    {
        return Ok(server);
    }
    let account = Account::choose(layout)?;
    if let Some(account) = &account {
        account.check_reach(&layout.root)?;
    }
    let bin = local::binaries(settings, layout, major, on).await?;
    if let Some(account) = &account {
        account.check_reach(&absolute(&bin)?)?;
        tracing::debug!(user = account.name(), "postgres does not run as root");
    }
    if major.is_none() {
        on(Progress::Initialising);
        cluster::create(layout, &bin, account.as_ref()).await?;
    } else if let Some(account) = &account
        && is_roots(&pgdata)
    {
        account.own_tree(&pgdata)?;
    }
    on(Progress::Starting);
    Server::start(layout, &bin, account.as_ref(), port).await
}

/// Creates the data directory, closed to others; under root they may pass through, since
/// PostgreSQL does not run as root. Mends the modes that an earlier start under another umask has
/// left behind.
fn prepare(settings: &Settings) -> Result<Layout, Error> {
    let data_dir = &settings.data_dir;
    let mode = if nix::unistd::Uid::effective().is_root() { 0o711 } else { 0o700 };
    files::make_dirs(data_dir, mode)?;
    files::close_to_others(data_dir)?;
    files::mend_dir(&settings.cache_dir, install::DIR_MODE)?;
    Ok(Layout { root: absolute(data_dir)? })
}

/// Without links, as the kernel names it in /proc.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize().map_err(Error::io("find", path))
}

fn is_roots(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).is_ok_and(|meta| meta.uid() == 0)
}

/// The downloaded archive has no psql. One beside a server of this machine, or the one on PATH.
fn psql(installed: &[PathBuf]) -> String {
    installed
        .iter()
        .map(|bin| bin.join("psql"))
        .find(|psql| psql.is_file())
        .map_or_else(|| "psql".to_owned(), |psql| shell_quote(&psql))
}
