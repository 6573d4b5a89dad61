//! HTTP as cheap as it gets: prepared requests on a keep-alive connection, and of the answer
//! only what must be looked at.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection that is kept.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 64 * 1024] })
    }

    /// Sends a request and returns the body of its answer, which must be 200.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<&[u8]> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let (start, end) = loop {
            if filled == self.buffer.len() {
                self.buffer.resize(filled * 2, 0);
            }
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the server closed the connection");
            filled += read;
            if let Some(bounds) = body(&self.buffer[..filled])? {
                break bounds;
            }
        };
        while filled < end {
            self.buffer.resize(self.buffer.len().max(end), 0);
            let read = self.stream.read(&mut self.buffer[filled..end]).await?;
            ensure!(read > 0, "the server closed the connection");
            filled += read;
        }
        ensure!(filled == end, "more than one answer");
        if self.buffer.get(9..12) != Some(b"200") {
            bail!("not 200 but {}", String::from_utf8_lossy(&self.buffer[..end]));
        }
        Ok(&self.buffer[start..end])
    }
}

/// Where the body begins and ends, once the head is there.
fn body(answer: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let start = head + 4;
    let lines = answer[..head].split(|byte| *byte == b'\n');
    let length = lines.filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':')).find_map(
        |(name, value)| name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse()),
    );
    let length: usize = length.context("no Content-Length")??;
    Ok(Some((start, start + length)))
}
