//! One connection, and the clock that ends it when the client dawdles.
//!
//! hyper's own header timeout also ends idle keep-alive connections, and the detection of
//! HTTP/2 has no timeout at all, so the clock is ours: it sees bytes coming in and requests
//! beginning and ending.

use std::convert::Infallible;
use std::io::{IoSlice, Result as IoResult};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Version;
use bytes::BufMut;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::observe::observe;
use crate::app::App;
use crate::limit::Limits;

/// Up to this size an answer, with its head, is written in one piece.
const SMALL_ANSWER_BYTES: usize = 2048;

/// Serves one connection to its end.
pub(super) async fn serve(
    http: &Builder<TokioExecutor>,
    stream: TcpStream,
    app: Arc<App>,
    router: Router,
    watcher: Watcher,
) {
    let limits = app.limits;
    let activity = Activity::new(limits);
    let io = TokioIo::new(Watched { stream, activity: activity.clone() });
    let seen = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let guard = seen.begin(request.version());
        let answer = observe(Arc::clone(&app), router.clone(), request.map(Body::new));
        async move {
            let _guard = guard;
            Ok::<_, Infallible>(answer.await)
        }
    });
    let connection = http.serve_connection(io, service).into_owned();
    let mut connection = pin!(watcher.watch(connection));
    loop {
        let deadline = activity.arm(limits);
        tokio::select! {
            // Broken connections are the clients' affair.
            _ = &mut connection => return,
            // Less time is left than when we went to sleep.
            () = activity.0.sooner.notified() => {}
            () = tokio::time::sleep_until(deadline) => {
                if activity.arm(limits) <= Instant::now() {
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
    sooner: Notify,
    head: Duration,
}

struct State {
    requests: usize,
    /// When the head that is being read began.
    head_since: Option<Instant>,
    idle_since: Instant,
    is_http2: bool,
    /// When the clock will look again.
    armed: Instant,
}

impl Activity {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        let state = State {
            requests: 0,
            // A new connection owes us a request.
            head_since: Some(now),
            idle_since: now,
            is_http2: false,
            armed: now,
        };
        let (sooner, head) = (Notify::new(), limits.head);
        Self(Arc::new(Shared { state: Mutex::new(state), sooner, head }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes_read(&self) {
        let mut state = self.state();
        // On HTTP/2 bytes may be pings: there, only idleness counts.
        if state.requests == 0 && !state.is_http2 && state.head_since.is_none() {
            let now = Instant::now();
            state.head_since = Some(now);
            // On a busy connection the clock looks soon enough, and is let sleep.
            if state.armed > now + self.0.head {
                self.0.sooner.notify_one();
            }
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

    /// When the clock has to look again: the connection is to be ended then if nothing has
    /// happened. Bodies and handlers have deadlines of their own.
    fn arm(&self, limits: Limits) -> Instant {
        let mut state = self.state();
        state.armed = match state.head_since {
            _ if state.requests > 0 => Instant::now() + limits.head,
            Some(since) => since + limits.head,
            None => state.idle_since + limits.idle,
        };
        state.armed
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

    /// An answer of a few hundred bytes leaves in one piece, since `send` costs less than
    /// `writev`. To say that there is no vectored writing would do that too, but then hyper
    /// copies each body into a buffer that its connection keeps, however large the body was.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<IoResult<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut whole = [0; SMALL_ANSWER_BYTES];
        let Some(mut free) = whole.get_mut(..length) else {
            return Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        };
        for slice in slices {
            free.put_slice(slice);
        }
        Pin::new(&mut self.stream).poll_write(context, &whole[..length])
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
