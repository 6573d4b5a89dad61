//! Watches the server and starts it again when it dies: what the system kills for want of memory
//! must not stay away until somebody looks.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::statvfs::statvfs;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::outage::Outage;
use super::paths::Layout;
use super::postmaster::{kill_orphans, signal};
use super::server::{Port, Server};
use super::{Settings, launch};
use crate::telemetry::OnceAMinute;

/// So many crashes in a row are a loop that nothing here ends.
const MAX_CRASHES: u32 = 5;
/// A server that ran for so long is none of a row.
const STEADY: Duration = Duration::from_secs(10);
/// Between attempts to start while the processes of the dead server are still going.
const PAUSE: Duration = Duration::from_millis(250);
/// Between attempts to start on a full disk.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(3);
/// A segment of the write-ahead log, without which the server ends.
const FULL_DISK_BYTES: u128 = 16 * 1024 * 1024;

/// A server that is started again when it dies. Dropped without [`Supervisor::stop`], the server
/// is told to shut down and not waited for.
#[derive(Debug)]
pub(super) struct Supervisor {
    port: u16,
    pid: Arc<AtomicI32>,
    stop: CancellationToken,
    gave_up: CancellationToken,
    outage: Outage,
    task: Option<JoinHandle<Result<(), Error>>>,
}

impl Supervisor {
    pub(super) fn watch(server: Server, settings: Settings, layout: Layout) -> Self {
        let port = server.port();
        let pid = Arc::new(AtomicI32::new(server.pid()));
        let (stop, gave_up) = (CancellationToken::new(), CancellationToken::new());
        let outage = Outage::default();
        let watch =
            Watch { settings, layout, pid: Arc::clone(&pid), outage: outage.clone(), crashes: 0 };
        let (stopping, given_up) = (stop.clone(), gave_up.clone());
        let task = tokio::spawn(async move {
            let ended = watch.run(server, stopping).await;
            given_up.cancel();
            ended
        });
        Self { port, pid, stop, gave_up, outage, task: Some(task) }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The server's process; 0 while it is being started again.
    pub(super) fn pid(&self) -> i32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// Cancelled when the server is not started again any more. [`Supervisor::stop`] says why.
    pub(super) fn gave_up(&self) -> CancellationToken {
        self.gave_up.clone()
    }

    /// Whether the server is down, being started again.
    pub(super) fn outage(&self) -> Outage {
        self.outage.clone()
    }

    /// Shuts the server down and waits for it.
    pub(super) async fn stop(mut self) -> Result<(), Error> {
        self.stop.cancel();
        let Some(task) = self.task.take() else { return Ok(()) };
        match task.await {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down, and the server with it.
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.cancel();
        // The task may not get to run again.
        if self.task.as_ref().is_some_and(|task| !task.is_finished()) && self.pid() > 1 {
            signal(self.pid(), Signal::SIGINT);
        }
    }
}

struct Watch {
    settings: Settings,
    layout: Layout,
    pid: Arc<AtomicI32>,
    outage: Outage,
    /// In a row.
    crashes: u32,
}

impl Watch {
    async fn run(mut self, mut server: Server, stop: CancellationToken) -> Result<(), Error> {
        loop {
            let started_at = Instant::now();
            let Some(status) = stop.run_until_cancelled(server.ended()).await else {
                return server.stop().await;
            };
            let (pid, port) = (server.pid(), server.port());
            // It may belong to another process soon.
            self.pid.store(0, Ordering::Relaxed);
            self.outage.begins();
            tracing::error!(pid, %status, "postgres ended unexpectedly; starting it again");
            if started_at.elapsed() >= STEADY {
                self.crashes = 0;
            }
            if self.is_disk_full() {
                // It would end in the same way at once.
                stop.run_until_cancelled(tokio::time::sleep(FULL_DISK_PAUSE)).await;
            } else {
                self.crashed(status)?;
            }
            let since = Instant::now();
            let Some(started) = stop.run_until_cancelled(self.start(port)).await else {
                // It may be half up, and was told to stop.
                return match Server::adopt(&self.layout).await? {
                    Some(server) => server.stop().await,
                    None => Ok(()),
                };
            };
            server = started?;
            self.pid.store(server.pid(), Ordering::Relaxed);
            self.outage.ends();
            let took_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(pid = server.pid(), port, took_ms, "postgres is running again");
        }
    }

    /// Starts the server on the port that connections know, however long that takes.
    async fn start(&mut self, port: u16) -> Result<Server, Error> {
        let mut full = OnceAMinute::default();
        loop {
            kill_orphans(&self.layout.pgdata());
            let error = match launch(&self.settings, &self.layout, Port::Only(port), &|_| ()).await
            {
                Ok(server) if server.port() == port => return Ok(server),
                // Somebody else started it, where nobody connects to.
                Ok(server) => {
                    server.stop().await?;
                    continue;
                }
                Err(error) => error,
            };
            if says_disk_full(&error) || self.is_disk_full() {
                if full.count().is_some() {
                    let data_dir = self.layout.root.display();
                    tracing::error!(%data_dir, "the disk is full: postgres cannot start, trying again every few seconds");
                }
                tokio::time::sleep(FULL_DISK_PAUSE).await;
            } else {
                tracing::warn!(%error, "postgres could not be started again; retrying");
                self.crashed(error.to_string())?;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Counts a crash, or a start that failed; too many in a row are an error.
    fn crashed(&mut self, last: String) -> Result<(), Error> {
        self.crashes += 1;
        if self.crashes < MAX_CRASHES {
            return Ok(());
        }
        let (crashes, seconds) = (self.crashes, STEADY.as_secs());
        Err(Error::CrashLoop { crashes, seconds, log: self.layout.log(), last })
    }

    /// Whether there is no space to write to. The server's log may be on the same disk, and hold
    /// nothing of it.
    fn is_disk_full(&self) -> bool {
        statvfs(&self.layout.pgdata()).is_ok_and(|disk| {
            u128::from(disk.blocks_available()) * u128::from(disk.fragment_size()) < FULL_DISK_BYTES
        })
    }
}

/// Whether a start failed for want of space on a disk. Shared memory and semaphores can be used up
/// too, in the same words.
fn says_disk_full(error: &Error) -> bool {
    match error {
        Error::Io { source, .. } => {
            matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        }
        Error::Start { tail, .. } => tail.lines().any(|line| {
            (line.contains("No space left on device") || line.contains("Disk quota exceeded"))
                && !line.contains("shared memory")
                && !line.contains("semaphore")
        }),
        _ => false,
    }
}
