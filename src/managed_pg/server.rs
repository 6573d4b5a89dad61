use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use super::account::{Account, command};
use super::error::Error;
use super::files;
use super::paths::Layout;
use super::postmaster::{Postmaster, signal};

const POLL: Duration = Duration::from_millis(10);
/// An adopted server is no child, so nothing tells us of its end.
const ADOPTED_POLL: Duration = Duration::from_millis(100);
/// Recovery after a crash replays the log, which takes as long as it takes.
const START_WITHIN: Duration = Duration::from_mins(5);
const STOP_WITHIN: Duration = Duration::from_mins(1);
/// The log is set aside at a start once it is larger than this.
const LOG_MAX_BYTES: u64 = 10 * 1024 * 1024;
/// Below the ranges from which systems take the ports of outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Which port a server is to have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Port {
    /// The one of last time if it is free, or a new one.
    AsBefore,
    /// This one: somebody connects to it.
    Only(u16),
}

/// A running server. Dropped without [`Server::stop`], it is told to shut down and not waited for.
#[derive(Debug)]
pub(super) struct Server {
    pgdata: PathBuf,
    pid: i32,
    port: u16,
    /// Nothing for an adopted server: it is not our child.
    child: Option<Child>,
    stopped: bool,
}

impl Server {
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Takes over the server that an earlier owner has left running. Waits while it starts or
    /// stops; nothing comes back when there is none, or none any more.
    pub(super) async fn adopt(layout: &Layout) -> Result<Option<Self>, Error> {
        let pgdata = layout.pgdata();
        let deadline = Instant::now() + START_WITHIN;
        while let Some(found) = Postmaster::running(&pgdata) {
            if found.ready {
                let Postmaster { pid, port, .. } = found;
                tracing::info!(pid, port, "adopted a running postgres");
                return Ok(Some(Self { pgdata, pid, port, child: None, stopped: false }));
            }
            if Instant::now() >= deadline {
                return Err(start_failed(layout, 0, "a running one is neither up nor down"));
            }
            sleep(POLL).await;
        }
        Postmaster::clear_stale(&pgdata);
        Ok(None)
    }

    /// Starts the server and waits until it takes connections.
    pub(super) async fn start(
        layout: &Layout,
        bin: &Path,
        account: Option<&Account>,
        port: Port,
    ) -> Result<Self, Error> {
        let mut attempts_left = 3;
        loop {
            attempts_left -= 1;
            match Self::start_once(layout, bin, account, port).await {
                // The port went to somebody else meanwhile, or the last processes of a killed
                // server still hold its memory: both pass.
                Err(Error::Start { tail, .. })
                    if attempts_left > 0
                        && (tail.contains("could not bind")
                            || tail.contains("shared memory block")) =>
                {
                    tracing::warn!("postgres did not start, trying again");
                    sleep(Duration::from_millis(500)).await;
                }
                done => return done,
            }
        }
    }

    async fn start_once(
        layout: &Layout,
        bin: &Path,
        account: Option<&Account>,
        port: Port,
    ) -> Result<Self, Error> {
        let port = match port {
            Port::AsBefore => choose_port(layout)?,
            Port::Only(port) => port,
        };
        let (log, log_start) = open_log(layout)?;
        let log_too = log.try_clone().map_err(Error::io("open", &layout.log()))?;
        let pgdata = layout.pgdata();
        let mut child = command(bin, "postgres", account)
            .arg("-D")
            .arg(&pgdata)
            // Loopback only, and no socket: its path may be at most 107 bytes long.
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", &format!("port={port}"), "-c", "logging_collector=off"])
            .stdout(log)
            .stderr(log_too)
            // Ctrl-C at the terminal reaches our group, and the server must outlive our drain.
            .process_group(0)
            .spawn()
            .map_err(Error::io("run", &bin.join("postgres")))?;
        let deadline = Instant::now() + START_WITHIN;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        let gone = child.try_wait();
        let mut server = Self { pgdata, pid, port, child: Some(child), stopped: false };
        if let Ok(Some(status)) = gone {
            server.stopped = true;
            return Err(start_failed(layout, log_start, &status.to_string()));
        }
        loop {
            if let Some(Ok(Some(status))) = server.child.as_mut().map(Child::try_wait) {
                server.stopped = true;
                return Err(start_failed(layout, log_start, &status.to_string()));
            }
            if Postmaster::running(&server.pgdata).is_some_and(|it| it.pid == pid && it.ready) {
                tracing::info!(pid, port, "postgres started");
                return Ok(server);
            }
            if Instant::now() >= deadline {
                let reason = format!("not ready after {} s", START_WITHIN.as_secs());
                return Err(start_failed(layout, log_start, &reason));
            }
            sleep(POLL).await;
        }
    }

    /// Waits until the server is gone without having been told to: how it ended.
    pub(super) async fn ended(&mut self) -> String {
        let status = if let Some(child) = &mut self.child {
            child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string())
        } else {
            // A file that cannot be read for a moment is no death.
            let mut missed = 0;
            while missed < 3 {
                let found = Postmaster::running(&self.pgdata);
                missed = if found.is_some_and(|it| it.pid == self.pid) { 0 } else { missed + 1 };
                sleep(ADOPTED_POLL).await;
            }
            "gone".to_owned()
        };
        self.stopped = true;
        status
    }

    /// Shuts down in the fast way, which rolls back what is open and writes everything to disk;
    /// when that takes too long, at once: the next start then recovers from the log.
    pub(super) async fn stop(mut self) -> Result<(), Error> {
        self.stopped = true;
        for (how, within) in
            [(Signal::SIGINT, STOP_WITHIN), (Signal::SIGQUIT, Duration::from_secs(10))]
        {
            signal(self.pid, how);
            if tokio::time::timeout(within, self.gone()).await.is_ok() {
                tracing::info!(pid = self.pid, "postgres stopped");
                return Ok(());
            }
            tracing::warn!(pid = self.pid, signal = %how, "postgres did not stop in time");
        }
        Err(Error::Stop { pid: self.pid, seconds: STOP_WITHIN.as_secs() })
    }

    async fn gone(&mut self) {
        if let Some(child) = &mut self.child {
            // An error means there is no such child any more.
            let _ = child.wait().await;
            return;
        }
        while Postmaster::still_there(&self.pgdata, self.pid) {
            sleep(POLL).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.stopped && self.pid > 1 {
            signal(self.pid, Signal::SIGINT);
        }
    }
}

/// The port of last time if it is free, or a new one, which is remembered.
fn choose_port(layout: &Layout) -> Result<u16, Error> {
    let path = layout.port();
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
    // A link is replaced below.
    let before = files::read(&path).ok().flatten();
    let before: Option<u16> = before.and_then(|text| text.trim().parse().ok());
    if let Some(port) = before.filter(|port| free(*port).is_some()) {
        return Ok(port);
    }
    let port = (0..100)
        .map(|_| rand::random_range(PORTS))
        .find(|port| free(*port).is_some())
        .or_else(|| Some(free(0)?.local_addr().ok()?.port()))
        .unwrap_or(PORTS.start);
    if let Some(before) = before {
        tracing::warn!(before, port, "the port of last time is taken, using another");
    }
    files::replace(&path, &format!("{port}\n"), 0o644)?;
    Ok(port)
}

/// Opens the log for appending and tells where the new part begins.
fn open_log(layout: &Layout) -> Result<(File, u64), Error> {
    let path = layout.log();
    let len = fs::metadata(&path).map_or(0, |meta| meta.len());
    if len > LOG_MAX_BYTES {
        fs::rename(&path, path.with_extension("log.1")).map_err(Error::io("rename", &path))?;
    }
    let file = files::open(&path, 0o600, OpenOptions::new().append(true))?;
    let start = file.metadata().map_err(Error::io("look at", &path))?.len();
    Ok((file, start))
}

fn start_failed(layout: &Layout, log_start: u64, reason: &str) -> Error {
    let log = layout.log();
    let tail = tail(&log, log_start).unwrap_or_else(|error| format!("(unreadable: {error})"));
    Error::Start { reason: reason.to_owned(), log, tail }
}

/// The last lines after `from`, at most 20 of them and 8 KiB.
fn tail(log: &Path, from: u64) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(len.saturating_sub(8192)).min(len)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(20)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_kept_while_it_is_free() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout { root: dir.path().to_owned() };
        let first = choose_port(&layout).expect("a port");
        assert_eq!(choose_port(&layout).expect("a port"), first);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).expect("free");
        let second = choose_port(&layout).expect("a port");
        assert_ne!(second, first);
        assert_eq!(choose_port(&layout).expect("a port"), second);
    }

    #[test]
    fn the_tail_begins_with_this_start() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = dir.path().join("log");
        fs::write(&log, "old\nnew 1\nnew 2\n").expect("written");
        assert_eq!(tail(&log, 4).expect("read"), "new 1\nnew 2");
        assert_eq!(tail(&log, 400).expect("read"), "");
    }
}
