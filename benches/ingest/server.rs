//! The server under measurement: the real program, in a process of its own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::process::{Child, Command};

use super::cluster::unused_port;

const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; killed on drop.
pub struct Server {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Starts a server on a database.
    pub fn spawn(binary: &Path, database_url: &str, log: &Path) -> Result<Self> {
        let port = unused_port()?;
        let output = File::create(log)?;
        let child = Command::new(binary)
            .arg("serve")
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("DATABASE_URL", database_url)
            .env("HOST", "127.0.0.1")
            .env("PORT", port.to_string())
            .env("RATE_LIMIT_REQUESTS", u32::MAX.to_string())
            .env("LOG_LEVEL", "WARN")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} does not start", binary.display()))?;
        Ok(Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)), log: log.to_owned() })
    }

    /// Starts a server and waits until it takes traffic.
    pub async fn start(binary: &Path, database_url: &str, log: &Path) -> Result<Self> {
        let mut server = Self::spawn(binary, database_url, log)?;
        server.until_healthy("/health/ready").await?;
        Ok(server)
    }

    /// Waits until a path is answered with 200, and returns how long that took.
    pub async fn until_healthy(&mut self, path: &str) -> Result<Duration> {
        let started = Instant::now();
        while !is_200(self.address, path) {
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none() && started.elapsed() < PATIENCE, "{}", self.trouble());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(started.elapsed())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn pid(&self) -> Result<i32> {
        Ok(self.child.id().context("the server has ended")?.try_into()?)
    }

    /// Kills it: everything is acknowledged by then, so there is nothing to wait for.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await?;
        Ok(())
    }

    /// What it said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn trouble(&self) -> String {
        format!("the server does not answer; it said:\n{}", self.said())
    }
}

/// Whether a GET is answered with 200; blocks for a second at most.
fn is_200(address: SocketAddr, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.get(9..12) == Some(b"200"))
    };
    ask().unwrap_or(false)
}
