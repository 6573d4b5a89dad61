//! The accept loop: limits on connections, and a stop that lets requests finish.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection;
use crate::app::App;
use crate::limit::{Connections, Eviction, Limits, Place};
use crate::telemetry::{Metrics, OnceAMinute};

/// What a connection reads ahead, and so the largest head. hyper takes no less.
const H1_BUFFER_BYTES: usize = 8 * 1024;
const H2_HEADER_BYTES: u32 = 8 * 1024;
const H2_STREAMS: u32 = 32;
/// What a client may send ahead: of a body that is read, which then arrives as fast over a long
/// way. What is sent to a handler that does not read it is dropped, and never waits in memory.
const H2_WINDOW: u32 = 1024 * 1024;
const H2_PING_EVERY: Duration = Duration::from_secs(20);

const EMFILE: i32 = Errno::EMFILE as i32;
const ENFILE: i32 = Errno::ENFILE as i32;

/// Serves until the app is stopping; then lingers, takes no more connections, finishes the
/// requests under way, and returns.
pub async fn serve(listener: TcpListener, router: Router, app: &Arc<App>) {
    let limits = app.limits;
    let http = Arc::new(protocols());
    let connections = Connections::new(&limits, app.trusted_proxies.clone());
    let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
    let mut accepting = Accepting { listener, connections, log: Log::default(), app };
    let mut lingering = pin!(async {
        app.stopping.cancelled().await;
        tokio::time::sleep(limits.linger).await;
    });
    loop {
        let (stream, place) = tokio::select! {
            next = accepting.next() => next,
            () = &mut lingering => break,
        };
        let (http, router, app) = (Arc::clone(&http), router.clone(), Arc::clone(app));
        let (open, stopping) = (Open::new(&app.metrics), stopping.clone());
        tasks.spawn(async move {
            connection::serve(&http, stream, app, router, place, stopping).await;
            drop(open);
        });
    }
    drop(accepting);
    stopping.cancel();
    tasks.close();
    if tokio::time::timeout(limits.drain, tasks.wait()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
}

/// HTTP/1 and HTTP/2 as they are spoken here: a client without a key gets no more memory than a
/// few buffers of a few kilobytes.
fn protocols() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    // A client that hangs up right after sending, as an app does that is closed, may never
    // send again: its report is stored all the same.
    http.http1().half_close(true).timer(TokioTimer::new()).max_buf_size(H1_BUFFER_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(H2_PING_EVERY)
        .max_concurrent_streams(H2_STREAMS)
        .max_header_list_size(H2_HEADER_BYTES)
        .initial_stream_window_size(H2_WINDOW)
        .initial_connection_window_size(H2_WINDOW);
    http
}

/// Counts a connection for as long as it is open, however that ends.
struct Open(Arc<Metrics>);

impl Open {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

struct Accepting<'a> {
    listener: TcpListener,
    connections: Arc<Connections>,
    log: Log,
    app: &'a App,
}

impl Accepting<'_> {
    /// The next connection, and its place among the others.
    async fn next(&mut self) -> (TcpStream, Place) {
        let (stream, peer) = self.accept().await;
        let (place, limit) = self.connections.admit(peer);
        if let Some(limit) = limit {
            if !place.is_spare() {
                self.app.metrics.connection_evicted(limit);
            }
            self.log.limit(limit);
        }
        (stream, place)
    }

    async fn accept(&mut self) -> (TcpStream, IpAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Answers are small and wait for nothing.
                    let _ = stream.set_nodelay(true);
                    return (stream, peer.ip());
                }
                Err(error) => {
                    // Out of file descriptors, or a client gone before we looked: go on, but
                    // do not spin.
                    self.log.failure(&error);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

/// What may happen all the time.
#[derive(Default)]
struct Log {
    failures: OnceAMinute,
    full: OnceAMinute,
    address: OnceAMinute,
}

impl Log {
    fn limit(&mut self, limit: Eviction) {
        match limit {
            Eviction::Full => {
                let Some(connections) = self.full.count() else { return };
                tracing::warn!(
                    connections,
                    "every connection is taken: idle ones give way to new ones, and where none is \
                     idle, only probes are answered"
                );
            }
            Eviction::Address => {
                let Some(connections) = self.address.count() else { return };
                tracing::warn!(
                    connections,
                    "one address has its share of the connections: its idle ones give way to its \
                     new ones, and where none is idle, only probes are answered; if it is a proxy, \
                     name it in TRUSTED_PROXIES"
                );
            }
        }
    }

    fn failure(&mut self, error: &std::io::Error) {
        let Some(attempts) = self.failures.count() else { return };
        if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) {
            let wanted = Limits::default().files();
            tracing::warn!(
                %error,
                attempts,
                wanted,
                "out of file descriptors: new clients wait until others leave; allow {wanted} \
                 (ulimit -n {wanted}, or LimitNOFILE={wanted} in the systemd unit)"
            );
        } else {
            tracing::warn!(%error, attempts, "connections could not be accepted");
        }
    }
}
