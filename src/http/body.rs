//! Reading a body: type, size, time, and decompression, each with a limit.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use super::error::Error;
use crate::app::App;
use crate::limit::Room;
use crate::report::Rejection;

/// What is read and thrown away of a body that is too large, so that the client, still
/// sending, gets to see the answer.
const DISCARD_BYTES: usize = 16 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(2);

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

/// A body in memory, and the room it takes up there.
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) room: Room,
}

/// The body as sent, of at most `most` bytes. One of more than `limit` bytes is read to be kept.
pub(super) async fn read(
    request: Request,
    limit: usize,
    most: usize,
    app: &App,
) -> Result<Held, Error> {
    let headers = request.headers();
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or(0);
    // A client that waits to be asked for the body is not asked.
    let waits = headers.contains_key(EXPECT);
    let mut body = request.into_body();
    if announced > most {
        if !waits {
            discard(body).await;
        }
        return Err(Error::TooLarge(limit));
    }
    let mut room = app.rooms.open();
    let collected = collect(&mut body, most, app.limits.still, &mut room);
    match tokio::time::timeout(app.limits.body, collected).await {
        Ok(Ok(Some(bytes))) => Ok(Held { bytes, room }),
        Ok(Ok(None)) => {
            discard(body).await;
            Err(Error::TooLarge(limit))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::Timeout),
    }
}

/// `None` when the body is larger than `limit`.
async fn collect(
    body: &mut Body,
    limit: usize,
    still: Duration,
    room: &mut Room,
) -> Result<Option<Bytes>, Error> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut length = 0;
    loop {
        let frame = match tokio::time::timeout(still, body.frame()).await {
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
        if !room.take(chunk.len()) {
            return Err(Error::Overloaded);
        }
        // Most reports come in one piece, which need not be copied.
        if first.is_empty() && all.is_empty() {
            first = chunk;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&chunk);
        }
    }
    Ok(Some(if all.is_empty() { first } else { all.freeze() }))
}

/// Reads on for a moment, so that a client that is still sending gets to see the answer.
async fn discard(mut body: Body) {
    let discard = async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await {
            discarded += frame.data_ref().map_or(0, Bytes::len);
            if discarded > DISCARD_BYTES {
                break;
            }
        }
    };
    // Whether it ended or not: the answer is the same.
    let _ = tokio::time::timeout(DISCARD_TIME, discard).await;
}
