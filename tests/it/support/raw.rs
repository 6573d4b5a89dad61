//! A connection on which bytes are written by hand.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(10);

pub struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, read: Vec::new() }
    }

    /// Connects from another address of this machine. On Linux all of 127.0.0.0/8 is.
    pub async fn connect_from(from: [u8; 4], address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((IpAddr::from(from), 0).into()).expect("an address of this machine");
        let stream = socket.connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, read: Vec::new() }
    }

    /// The connection itself, for another protocol on it.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Writes; `false` when the server has closed.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Reads up to and with a text.
    pub async fn read_until(&mut self, end: &str) -> String {
        let find = |read: &[u8]| {
            let mut windows = read.windows(end.len());
            windows.position(|window| window == end.as_bytes())
        };
        loop {
            if let Some(at) = find(&self.read) {
                let rest = self.read.split_off(at + end.len());
                let text = std::mem::replace(&mut self.read, rest);
                return String::from_utf8(text).expect("text");
            }
            let more = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
            let more = more.unwrap_or_else(|_| panic!("no {end:?} in time"));
            assert_ne!(more.unwrap_or(0), 0, "closed before {end:?}");
        }
    }

    /// Reads an answer with a `Content-Length`: its head and its body.
    pub async fn answer(&mut self) -> (String, String) {
        let head = self.read_until("\r\n\r\n").await;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse().expect("a length"))
        });
        let length: usize = length.expect("a length");
        while self.read.len() < length {
            let more = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
            assert_ne!(more.expect("in time").expect("a body"), 0, "closed early");
        }
        let rest = self.read.split_off(length);
        let body = std::mem::replace(&mut self.read, rest);
        (head, String::from_utf8(body).expect("text"))
    }

    /// How long until the server closes, all that it says until then thrown away.
    pub async fn closed_after(&mut self, limit: Duration) -> Duration {
        let since = Instant::now();
        let mut bytes = [0; 1024];
        let closed = async {
            // An end or a reset: closed is closed.
            while self.stream.read(&mut bytes).await.unwrap_or(0) > 0 {}
        };
        timeout(limit, closed).await.expect("still open");
        since.elapsed()
    }
}
