//! One connection: hyper, the socket under it, and what ends it.

use std::convert::Infallible;
use std::io::{ErrorKind, IoSlice, Result as IoResult};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Version};
use bytes::BufMut;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use super::leftover;
use super::observe::observe;
use crate::app::App;
use crate::limit::Place;

/// What a closed connection may still bring: a body of the largest size, and as much again.
const CLOSING_BYTES: usize = 16 * 1024 * 1024;
const SCRATCH_BYTES: usize = 8 * 1024;
/// How long a client may go on sending on a connection that the server has closed for its part, and
/// how long it may pause.
const CLOSING: Duration = Duration::from_secs(10);
const CLOSING_PAUSE: Duration = Duration::from_secs(2);
/// A connection keeps what it took to read a head. One with a larger head than this is closed after
/// the response, so that idle ones hold little.
const LARGE_HEAD_BYTES: usize = 3 * 1024;
/// Up to this size an answer, with its head, is written in one piece.
const SMALL_ANSWER_BYTES: usize = 2048;

/// Serves one connection to its end. `stopping` is cancelled when it shall take no more requests.
pub(super) async fn serve(
    http: &Builder<TokioExecutor>,
    stream: TcpStream,
    app: Arc<App>,
    router: Router,
    place: Place,
    stopping: CancellationToken,
) {
    let activity = Activity::new(place, app.limits);
    let closing = Arc::new(OnceLock::new());
    let watched = Watched {
        stream,
        activity: activity.clone(),
        is_ended: false,
        closing: Arc::clone(&closing),
    };
    drive(http, watched, &app, &router, &activity, &stopping).await;
    if let Some(stream) = Arc::into_inner(closing).and_then(OnceLock::into_inner) {
        tokio::select! {
            () = throw_away(stream) => {}
            () = activity.evicted() => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// Until the connection has ended, or the server has closed its half of it.
async fn drive(
    http: &Builder<TokioExecutor>,
    watched: Watched,
    app: &Arc<App>,
    router: &Router,
    activity: &Activity,
    stopping: &CancellationToken,
) {
    let (seen, app, router) = (activity.clone(), Arc::clone(app), router.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let guard = seen.request(request.version());
        let has_large_head =
            request.version() <= Version::HTTP_11 && head_bytes(&request) > LARGE_HEAD_BYTES;
        let (request, leftover) = leftover::watch(request, &seen, app.limits.still);
        let response = observe(Arc::clone(&app), router.clone(), request, seen.clone());
        // hyper keeps room for this future as long as the connection lives: a box is small.
        Box::pin(async move {
            let mut response = response.await;
            if leftover.costs_the_connection() || has_large_head {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            drop(guard);
            Ok::<_, Infallible>(response)
        })
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(watched), service).into_owned());
    let mut stopping = pin!(stopping.cancelled());
    let mut is_stopping = false;
    loop {
        let deadline = activity.deadline();
        tokio::select! {
            biased;
            // Broken connections are the clients' affair.
            _ = &mut connection => return,
            () = &mut stopping, if !is_stopping => {
                is_stopping = true;
                activity.stop();
                connection.as_mut().graceful_shutdown();
            }
            () = activity.evicted() => return,
            // Less time is left than when we went to sleep.
            () = activity.sooner() => {}
            () = tokio::time::sleep_until(deadline) => {
                if activity.deadline() <= Instant::now() {
                    return;
                }
            }
        }
    }
}

/// Reads on until the client closes its half of the connection, or pauses: if the socket went away
/// with bytes unread, the client could lose the response, or could not even finish sending and look
/// at it. hyper and its buffers are gone by then.
async fn throw_away(stream: TcpStream) {
    let read = async {
        let mut thrown_away = 0;
        while thrown_away < CLOSING_BYTES {
            let readable = tokio::time::timeout(CLOSING_PAUSE, stream.readable()).await;
            let Ok(Ok(())) = readable else { return };
            let mut bytes = [0; SCRATCH_BYTES];
            match stream.try_read(&mut bytes) {
                Ok(0) => return,
                Ok(length) => thrown_away += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    // Whether it ended or not: the response was written.
    let _ = tokio::time::timeout(CLOSING, read).await;
}

/// About how long the head of a request is.
fn head_bytes(request: &Request<Incoming>) -> usize {
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    fields.sum::<usize>() + request.uri().path().len() + request.uri().query().map_or(0, str::len)
}

/// A socket that tells when something comes in.
struct Watched {
    stream: TcpStream,
    activity: Activity,
    /// The client has closed its half.
    is_ended: bool,
    /// The socket, once more, for what the client still sends after our half is closed.
    closing: Arc<OnceLock<TcpStream>>,
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
        } else if matches!(poll, Poll::Ready(Ok(()))) && buffer.remaining() > 0 {
            self.is_ended = true;
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
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        if !self.is_ended {
            let again = SockRef::from(&self.stream).try_clone().map(std::net::TcpStream::from);
            // Out of file descriptors: the client may lose the response.
            if let Ok(stream) = again.and_then(TcpStream::from_std) {
                let _ = self.closing.set(stream);
            }
        }
        Poll::Ready(Ok(()))
    }
}
