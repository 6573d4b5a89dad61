//! Responses that wait to be written: a client that does not read them holds memory, of which
//! there is a budget, and for so long as a slow reader needs.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as _;

use super::activity::{Activity, Guard};
use super::error::Error;
use crate::limit::{Reader, ResponseBudget, ResponsePermit};

/// Up to this size a response costs no more than its connection or stream does.
const SMALL_RESPONSE_BYTES: u64 = 4096;

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

/// Takes memory for a response until it is written.
pub(super) async fn account(
    response: Response,
    reader: Reader,
    budget: &ResponseBudget,
    activity: &Activity,
) -> Result<Response, Error> {
    if response.body().size_hint().upper().is_some_and(|bytes| bytes <= SMALL_RESPONSE_BYTES) {
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    // All of it is there: no handler streams.
    let data = body.collect().await.map_err(|_| Error::Internal)?.to_bytes();
    let permit = budget.take(reader, data.len()).ok_or(Error::Overloaded)?;
    let guard = activity.unwritten(data.len());
    let owner = Unwritten { data, _permit: permit, _guard: guard };
    Ok(Response::from_parts(head, Body::from(Bytes::from_owner(owner))))
}
