//! What becomes of a body that nobody reads to its end: the client, still sending, must get to
//! see the response, and not a broken pipe, which it would take for a reason to retry.
//!
//! On HTTP/2 a stream is reset without harm to the others. On HTTP/1 the rest of a small body is
//! thrown away, and the connection stays. A larger rest costs the connection: the response says
//! so, and the socket goes on reading for a while after it is written (`connection::throw_away`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::http::{Method, Version};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};

use super::activity::Activity;

/// A rest of this size is thrown away.
const SMALL_REST_BYTES: u64 = 64 * 1024;

/// Says whether the connection has to be closed because a body was left unread.
pub(super) struct Leftover(Option<Arc<AtomicBool>>);

impl Leftover {
    /// Whether the connection has to be closed, once the handler is done.
    pub(super) fn costs_the_connection(&self) -> bool {
        self.0.as_ref().is_some_and(|costs| costs.load(Ordering::Relaxed))
    }
}

/// Takes care of what a handler leaves of the request's body.
pub(super) fn watch(
    request: Request<Incoming>,
    activity: &Activity,
    patience: Duration,
) -> (Request, Leftover) {
    if request.body().is_end_stream() {
        return (request.map(|_| Body::empty()), Leftover(None));
    }
    // Only POST has a use for a body; a handler of another method may keep its request for long.
    let is_wanted = request.method() == Method::POST;
    if request.version() == Version::HTTP_2 {
        let kept = |body| if is_wanted { Body::new(body) } else { Body::empty() };
        return (request.map(kept), Leftover(None));
    }
    let costs = Arc::new(AtomicBool::new(false));
    let waits = request.headers().contains_key(EXPECT);
    let body = |incoming| WatchedBody {
        incoming: Some(incoming),
        is_ended: false,
        is_sent: !waits,
        costs_the_connection: Arc::clone(&costs),
        activity: activity.clone(),
        patience,
    };
    let request = request.map(|incoming| {
        let body = body(incoming);
        if is_wanted { Body::new(body) } else { Body::empty() }
    });
    (request, Leftover(Some(costs)))
}

struct WatchedBody {
    /// `None` on drop only.
    incoming: Option<Incoming>,
    is_ended: bool,
    /// False while the client waits to be asked for the body, which the first read does.
    is_sent: bool,
    costs_the_connection: Arc<AtomicBool>,
    activity: Activity,
    patience: Duration,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_sent = true;
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = Pin::new(incoming).poll_frame(context);
        self.is_ended = matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        let Some(mut incoming) = self.incoming.take() else { return };
        if self.is_ended || incoming.is_end_stream() {
            return;
        }
        let is_small = incoming.size_hint().upper().is_some_and(|rest| rest <= SMALL_REST_BYTES);
        if !self.is_sent || !is_small {
            self.costs_the_connection.store(true, Ordering::Relaxed);
            return;
        }
        let (guard, patience) = (self.activity.leftover(), self.patience);
        tokio::spawn(async move {
            let rest = async { while let Some(Ok(_)) = incoming.frame().await {} };
            // hyper closes the connection of a body that has not ended by then.
            let _ = tokio::time::timeout(patience, rest).await;
            drop(guard);
        });
    }
}
