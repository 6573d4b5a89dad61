//! `media3watch healthcheck`: for containers, which have no shell and no curl.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::Config;

const TIMEOUT: Duration = Duration::from_secs(4);

pub(super) async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let address = super::local(config.listen);
    let asked = tokio::time::timeout(TIMEOUT, ask(address)).await;
    asked.with_context(|| format!("no answer from {address} in time"))??;
    Ok(ExitCode::SUCCESS)
}

async fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let connected = TcpStream::connect(address).await;
    let mut stream = connected.with_context(|| format!("nothing listens on {address}"))?;
    let request =
        format!("GET /health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer).await?;
    let status = answer.split_whitespace().nth(1).unwrap_or("nothing");
    ensure!(status == "200", "{address} answers {status}: not ready");
    Ok(())
}
