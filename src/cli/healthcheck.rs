//! `media3watch healthcheck`: for containers, which have no shell and no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::Config;

const TIMEOUT: Duration = Duration::from_secs(4);

pub(super) async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let address = local(config.listen);
    let asked = tokio::time::timeout(TIMEOUT, ask(address)).await;
    asked.with_context(|| format!("no answer from {address} in time"))??;
    Ok(ExitCode::SUCCESS)
}

/// Where a server that listens on `address` is reached from its own machine.
fn local(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
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
