//! One connection: hyper, the socket under it, and what ends it.

use std::convert::Infallible;
use std::io::{IoSlice, Result as IoResult};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use bytes::BufMut;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
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
    let io = TokioIo::new(Watched { stream, activity: activity.clone(), thrown_away: 0 });
    let seen = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let guard = seen.request(request.version());
        let (request, leftover) = leftover::watch(request, &seen, app.limits.still);
        let response = observe(Arc::clone(&app), router.clone(), request, seen.clone());
        // hyper keeps room for this future as long as the connection lives: a box is small.
        Box::pin(async move {
            let mut response = response.await;
            if leftover.costs_the_connection() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            drop(guard);
            Ok::<_, Infallible>(response)
        })
    });
    let mut connection = pin!(http.serve_connection(io, service).into_owned());
    let mut stopping = pin!(stopping.cancelled_owned());
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

/// A socket that tells when something comes in.
struct Watched {
    stream: TcpStream,
    activity: Activity,
    thrown_away: usize,
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

    /// Closes our half of the connection, then reads on until the client closes the other: if the
    /// socket went away with bytes unread, the client could lose the response, or could not even
    /// finish sending and look at it. The connection's clock bounds the time.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        self.activity.closing();
        let mut bytes = [0; SCRATCH_BYTES];
        while self.thrown_away < CLOSING_BYTES {
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            match buffer.filled().len() {
                0 => break,
                length => self.thrown_away += length,
            }
        }
        Poll::Ready(Ok(()))
    }
}
