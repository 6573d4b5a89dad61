//! Reading a body: type, size, time, and decompression, each with a limit.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::error::Error;
use crate::app::App;
use crate::auth::KeyId;
use crate::limit::{BodyPermit, Limits};
use crate::report::Rejection;

/// Most memory that is set aside for what a client announces and has not sent.
const RESERVED_BYTES: usize = 256 * 1024;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Ndjson,
}

impl Format {
    /// From the content type; a body without one is taken for JSON. So is `text/plain`, as which
    /// browsers send beacons.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Rejection> {
        let Some(value) = headers.get(CONTENT_TYPE) else {
            return Ok(Self::Json);
        };
        let value = value.to_str().unwrap_or("?");
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" | "text/plain" => Ok(Self::Json),
            "application/x-ndjson" | "application/ndjson" => Ok(Self::Ndjson),
            _ if essence.starts_with("application/") && essence.ends_with("+json") => {
                Ok(Self::Json)
            }
            _ => {
                let detail = "expected application/json, text/plain, or none; application/x-ndjson for a batch";
                Err(Rejection::unsupported("Content-Type", detail))
            }
        }
    }
}

/// A body in memory, and the permit for that memory.
pub(super) struct BufferedBody {
    pub(super) bytes: Bytes,
    pub(super) permit: BodyPermit,
}

/// The body as sent, of at most `most` bytes. One of more than `limit` bytes is read to be kept.
pub(super) async fn read(
    request: Request,
    limit: usize,
    most: usize,
    app: &App,
    key: &KeyId,
) -> Result<BufferedBody, Error> {
    let announced = request.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let announced = announced.unwrap_or(0);
    if announced > most {
        return Err(Error::TooLarge(limit));
    }
    let mut permit = app.bodies.permit(key, announced);
    let collected = collect(request.into_body(), most, announced, app.limits.still, &mut permit);
    match tokio::time::timeout(app.limits.body, collected).await {
        Ok(Ok(Some(bytes))) => Ok(BufferedBody { bytes, permit }),
        Ok(Ok(None)) => Err(Error::TooLarge(limit)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::Timeout),
    }
}

/// `None` when the body is larger than `limit`.
async fn collect(
    mut body: Body,
    limit: usize,
    announced: usize,
    still: Duration,
    permit: &mut BodyPermit,
) -> Result<Option<Bytes>, Error> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut length = 0;
    let mut deadline = Instant::now() + still;
    loop {
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            // Standing still, gone, or talking nonsense: cut off all the same.
            Ok(Some(Err(_))) | Err(_) => return Err(Error::Timeout),
        };
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        length += chunk.len();
        if length > limit {
            return Ok(None);
        }
        if !permit.take(chunk.len()) {
            return Err(Error::Overloaded);
        }
        let latest = Instant::now() + still;
        // A large body holds memory that others need, so each piece extends its deadline only by
        // what it is worth.
        deadline = if permit.is_large() {
            latest.min(deadline + Limits::bought_by(chunk.len()))
        } else {
            latest
        };
        // Most reports come in one piece, which need not be copied.
        if first.is_empty() && all.is_empty() {
            first = chunk;
        } else {
            if all.is_empty() {
                all.reserve(announced.clamp(first.len() + chunk.len(), RESERVED_BYTES));
            }
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&chunk);
        }
    }
    Ok(Some(if all.is_empty() { first } else { all.freeze() }))
}
