//! One connection, and the clock that ends it when the client dawdles.
//!
//! hyper's own header timeout also ends idle keep-alive connections, and the detection of
//! HTTP/2 has no timeout at all, so the clock is ours: it sees bytes coming in and requests
//! beginning and ending.

use std::io::Result as IoResult;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::http::Version;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::Watcher;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tower::{ServiceExt, service_fn};

use crate::limit::Limits;

/// Serves one connection to its end.
pub(super) async fn serve(
    http: &Builder<TokioExecutor>,
    stream: TcpStream,
    router: Router,
    limits: Limits,
    watcher: Watcher,
) {
    let activity = Activity::default();
    let io = TokioIo::new(Watched { stream, activity: activity.clone() });
    let seen = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let guard = seen.begin(request.version());
        let answer = router.clone().oneshot(request);
        async move {
            let _guard = guard;
            answer.await
        }
    });
    let connection = http.serve_connection(io, TowerToHyperService::new(service)).into_owned();
    let mut connection = pin!(watcher.watch(connection));
    loop {
        let deadline = activity.deadline(limits);
        tokio::select! {
            // Broken connections are the clients' affair.
            _ = &mut connection => return,
            // Less time is left than when we went to sleep.
            () = activity.0.head_begun.notified() => {}
            () = tokio::time::sleep_until(deadline) => {
                if activity.deadline(limits) <= Instant::now() {
                    return;
                }
            }
        }
    }
}

/// What a connection is doing. Shared by its socket, its requests and its clock.
#[derive(Clone)]
struct Activity(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    head_begun: Notify,
}

struct State {
    requests: usize,
    /// When the head that is being read began.
    head_since: Option<Instant>,
    idle_since: Instant,
    is_http2: bool,
}

impl Default for Activity {
    fn default() -> Self {
        let now = Instant::now();
        // A new connection owes us a request.
        let state = State { requests: 0, head_since: Some(now), idle_since: now, is_http2: false };
        Self(Arc::new(Shared { state: Mutex::new(state), head_begun: Notify::new() }))
    }
}

impl Activity {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes_read(&self) {
        let mut state = self.state();
        // On HTTP/2 bytes may be pings: there, only idleness counts.
        if state.requests == 0 && !state.is_http2 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
            self.0.head_begun.notify_one();
        }
    }

    fn begin(&self, version: Version) -> Ending {
        let mut state = self.state();
        state.requests += 1;
        state.head_since = None;
        state.is_http2 = version == Version::HTTP_2;
        drop(state);
        Ending(self.clone())
    }

    /// When the connection is to be ended if nothing happens. Bodies and handlers have
    /// deadlines of their own.
    fn deadline(&self, limits: Limits) -> Instant {
        let state = self.state();
        match state.head_since {
            _ if state.requests > 0 => Instant::now() + limits.head,
            Some(since) => since + limits.head,
            None => state.idle_since + limits.idle,
        }
    }
}

/// Marks the end of a request.
struct Ending(Activity);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.requests -= 1;
        state.idle_since = Instant::now();
    }
}

/// A socket that tells when something comes in.
struct Watched {
    stream: TcpStream,
    activity: Activity,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<IoResult<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.bytes_read();
        }
        poll
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
