//! The accept loop: a cap on connections, and a stop that lets requests finish.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::connection;
use crate::app::App;
use crate::limit::Limits;
use crate::telemetry::{Metrics, OnceAMinute};

const H2_PING_EVERY: Duration = Duration::from_secs(20);
const H2_STREAMS: u32 = 128;
const H1_BUFFER_BYTES: usize = 64 * 1024;

const EMFILE: i32 = Errno::EMFILE as i32;
const ENFILE: i32 = Errno::ENFILE as i32;

/// Serves until the app is stopping; then lingers, takes no more connections, finishes the
/// requests under way, and returns.
pub async fn serve(listener: TcpListener, router: Router, app: &Arc<App>) {
    let limits = app.limits;
    let mut http = Builder::new(TokioExecutor::new());
    // A client that hangs up right after sending, as an app does that is closed, may never
    // send again: its report is stored all the same.
    http.http1().half_close(true).timer(TokioTimer::new()).max_buf_size(H1_BUFFER_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(H2_PING_EVERY)
        .max_concurrent_streams(H2_STREAMS);
    let http = Arc::new(http);
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut failures = OnceAMinute::default();
    let mut closing = pin!(async {
        app.stopping.cancelled().await;
        tokio::time::sleep(limits.linger).await;
    });
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("never closed");
            (slot, accept(&listener, &mut failures).await)
        };
        let (slot, stream) = tokio::select! {
            next = next => next,
            () = &mut closing => break,
        };
        let (http, router, app) = (Arc::clone(&http), router.clone(), Arc::clone(app));
        let (open, watcher) = (Open::new(&app.metrics), graceful.watcher());
        tokio::spawn(async move {
            connection::serve(&http, stream, app, router, watcher).await;
            drop((open, slot));
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
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

async fn accept(listener: &TcpListener, failures: &mut OnceAMinute) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small and wait for nothing.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                // Out of file descriptors, or a client gone before we looked: go on, but
                // do not spin.
                log_failure(&error, failures);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn log_failure(error: &std::io::Error, failures: &mut OnceAMinute) {
    let Some(attempts) = failures.count() else { return };
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
