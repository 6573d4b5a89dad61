//! Responses that wait to be written: a client that does not read them holds memory, of which
//! there is a budget, and for so long as a slow reader needs.

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt, Collected};

use super::activity::{Activity, Guard};
use crate::limit::{Reader, ResponseBudget, ResponsePermit};

/// On HTTP/1, a response of this size costs no more than its connection. On HTTP/2, where clients
/// may have many streams and give none of them room, each costs at least this.
const SMALL_RESPONSE_BYTES: usize = 4096;

/// The bytes of a response. hyper and h2 drop them once they are written.
struct Unwritten {
    data: Bytes,
    _permit: ResponsePermit,
    _guard: Guard,
}

impl AsRef<[u8]> for Unwritten {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// Takes memory for a response until it is written. Where there is none, a small response loses
/// its body, since a head never waits for room on its stream, and a large one is lost: `None`.
pub(super) async fn account(
    response: Response,
    is_http1: bool,
    reader: Reader,
    budget: &ResponseBudget,
    activity: &Activity,
) -> Option<Response> {
    let (mut head, body) = response.into_parts();
    // All of it is there: no handler streams.
    let data = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    if data.is_empty() || is_http1 && data.len() <= SMALL_RESPONSE_BYTES {
        return Some(Response::from_parts(head, Body::from(data)));
    }
    let Some(permit) = budget.take(reader, data.len().max(SMALL_RESPONSE_BYTES)) else {
        let is_small = data.len() <= SMALL_RESPONSE_BYTES;
        head.headers.insert(CONTENT_LENGTH, 0.into());
        return is_small.then(|| Response::from_parts(head, Body::empty()));
    };
    let guard = activity.unwritten(data.len());
    let owner = Unwritten { data, _permit: permit, _guard: guard };
    Some(Response::from_parts(head, Body::from(Bytes::from_owner(owner))))
}
