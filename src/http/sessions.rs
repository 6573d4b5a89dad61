//! The endpoints that take reports: one, or many.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::admit::admit;
use super::body::{BufferedBody, Format, read};
use super::decode::{Encoding, decode};
use super::error::Error;
use super::observe::OutcomeName;
use super::openapi::{ErrorBody, ReportBody};
use super::{MAX_BATCH_BYTES, MAX_BATCH_REPORTS, run_to_completion};
use crate::app::App;
use crate::auth::{Caller, Scope};
use crate::ingest::{Answer, Outcome};
use crate::limit::BodyPermit;
use crate::report::{self, Rejection};

/// Answer to a report that is committed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Success {
    #[schema(example = "success")]
    status: &'static str,
    #[serde(rename = "sessionId")]
    #[schema(example = "7b0c2e0e-5d0f-4b5e-9b43-0d5ce3a6c001")]
    session_id: String,
}

/// Answer to a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchResult {
    /// Reports committed now or before.
    accepted: usize,
    /// Reports refused; all others are committed.
    rejected: usize,
    /// One for each report, in order.
    results: Vec<ItemResult>,
}

/// What became of one report of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ItemResult {
    /// Position in the request, from 0; blank lines of NDJSON are not counted.
    index: usize,
    /// As far as it could be read.
    session_id: Option<String>,
    /// `stored`, `duplicate`, `stale` or `rejected`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemError>,
}

/// Why a report of a batch was refused.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ItemError {
    #[schema(example = "INVALID_SCHEMA")]
    code: &'static str,
    #[schema(example = "$.timestamp: is required")]
    message: String,
}

/// Stores one report. 200 means that it is committed.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions",
    security(("apiKey" = [])),
    request_body(content = ReportBody, description = "One report of any SDK generation; may be compressed (gzip, deflate, br, zstd)"),
    responses(
        (status = 200, description = "Committed, now or by an earlier report that is as new", body = Success),
        (status = 400, description = "INVALID_SCHEMA or UNSUPPORTED_SCHEMA_VERSION: refused, and kept for the operator", body = ErrorBody),
        (status = 401, description = "INVALID_API_KEY", body = ErrorBody),
        (status = 403, description = "FORBIDDEN: the key lacks the scope ingest", body = ErrorBody),
        (status = 408, description = "REQUEST_TIMEOUT: the body did not arrive in time", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE, before or after decompression", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "RATE_LIMIT_EXCEEDED, with Retry-After", body = ErrorBody),
        (status = 500, description = "INTERNAL_ERROR", body = ErrorBody),
        (status = 503, description = "DATABASE_ERROR or OVERLOADED, with Retry-After", body = ErrorBody)))]
pub(super) async fn post_one(State(app): State<Arc<App>>, request: Request) -> Response {
    admit(&app, Scope::Ingest, request, |caller, request| take_one(&app, caller, request)).await
}

async fn take_one(app: &Arc<App>, caller: Caller, request: Request) -> Result<Response, Error> {
    let format = |headers: &HeaderMap| match Format::of(headers)? {
        Format::Json => Ok(()),
        Format::Ndjson => {
            Err(Rejection::unsupported("Content-Type", "NDJSON goes to /v1/sessions/batch"))
        }
    };
    let limit = app.max_body_bytes;
    let ((), BufferedBody { bytes, permit }) = take(app, &caller, request, limit, format).await?;
    let answer = receive(app, caller, vec![bytes], permit).await?.pop().ok_or(Error::Internal)?;
    let outcome = OutcomeName(answer.outcome.as_str());
    acknowledged(&answer.outcome)?;
    let session_id = answer.session_id.ok_or(Error::Internal)?;
    let mut response = Json(Success { status: "success", session_id }).into_response();
    response.extensions_mut().insert(outcome);
    Ok(response)
}

/// Stores up to 1,000 reports, each for itself.
#[utoipa::path(post, path = "/v1/sessions/batch", tag = "sessions",
    security(("apiKey" = [])),
    request_body(content((Vec<ReportBody> = "application/json"), (String = "application/x-ndjson")),
        description = "A JSON array of reports, or one report per line; up to 1,000 reports and 8 MiB"),
    responses(
        (status = 200, description = "One result per report; what is not rejected is committed", body = BatchResult),
        (status = 400, description = "INVALID_SCHEMA: not an array", body = ErrorBody),
        (status = 401, description = "INVALID_API_KEY", body = ErrorBody),
        (status = 403, description = "FORBIDDEN: the key lacks the scope ingest", body = ErrorBody),
        (status = 408, description = "REQUEST_TIMEOUT: the body did not arrive in time", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE, or more than 1,000 reports", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "RATE_LIMIT_EXCEEDED, with Retry-After", body = ErrorBody),
        (status = 500, description = "INTERNAL_ERROR", body = ErrorBody),
        (status = 503, description = "DATABASE_ERROR or OVERLOADED, with Retry-After: send the whole batch again", body = ErrorBody)))]
pub(super) async fn post_batch(State(app): State<Arc<App>>, request: Request) -> Response {
    admit(&app, Scope::Ingest, request, |caller, request| take_batch(&app, caller, request)).await
}

async fn take_batch(app: &Arc<App>, caller: Caller, request: Request) -> Result<Response, Error> {
    let limit = app.max_body_bytes.max(MAX_BATCH_BYTES);
    let (format, body) = take(app, &caller, request, limit, Format::of).await?;
    let split = match format {
        Format::Ndjson => Ok(report::split_lines(&body.bytes, MAX_BATCH_REPORTS)),
        Format::Json => report::split_array(&body.bytes, MAX_BATCH_REPORTS),
    };
    let bodies: Vec<Bytes> = match split {
        Ok(items) if items.len() <= MAX_BATCH_REPORTS => {
            items.into_iter().map(|item| body.bytes.slice_ref(item)).collect()
        }
        Ok(_) => {
            let detail = format!("more than {MAX_BATCH_REPORTS} reports in one batch");
            return Err(refuse(app, &caller, body, Rejection::too_large(detail)).await);
        }
        Err(rejection) => return Err(refuse(app, &caller, body, rejection).await),
    };
    let answers = receive(app, caller, bodies, body.permit).await?;
    let mut results = Vec::with_capacity(answers.len());
    for (index, answer) in answers.into_iter().enumerate() {
        let Answer { session_id, outcome } = answer;
        let (status, error) = match outcome {
            Outcome::Stored | Outcome::Updated => ("stored", None),
            Outcome::Duplicate => ("duplicate", None),
            Outcome::Stale => ("stale", None),
            Outcome::Rejected(rejection) => {
                let (code, message) = (rejection.code.as_str(), rejection.to_string());
                ("rejected", Some(ItemError { code, message }))
            }
            // Reports that made it are duplicates when the client sends the batch again.
            failed => return Err(acknowledged(&failed).err().unwrap_or(Error::Internal)),
        };
        results.push(ItemResult { index, session_id, status, error });
    }
    let rejected = results.iter().filter(|result| result.error.is_some()).count();
    let accepted = results.len() - rejected;
    let mut response = Json(BatchResult { accepted, rejected, results }).into_response();
    response.extensions_mut().insert(OutcomeName("batch"));
    Ok(response)
}

/// The body after decompression, of at most `limit` bytes, and what `format` makes of the
/// headers. A body that is refused for its headers or its size is kept as it was sent, unless it
/// is larger than any that is read.
async fn take<F>(
    app: &Arc<App>,
    caller: &Caller,
    request: Request,
    limit: usize,
    format: impl Fn(&HeaderMap) -> Result<F, Rejection>,
) -> Result<(F, BufferedBody), Error> {
    let headers = request.headers();
    let understood = format(headers).and_then(|format| Ok((format, Encoding::of(headers)?)));
    let most = limit.max(MAX_BATCH_BYTES);
    let sent = count_refusal(app, read(request, limit, most, app, &caller.key)).await?;
    let decoded = understood.and_then(|(format, encoding)| match encoding {
        // The size of a report is checked where reports of a batch are checked too.
        Encoding::Identity => Ok((format, None)),
        _ if sent.bytes.len() > limit => {
            Err(Rejection::too_large(format!("the body is larger than {limit} bytes")))
        }
        encoding => Ok((format, Some(decode(encoding, &sent.bytes, limit)?))),
    });
    match decoded {
        Err(rejection) => Err(refuse(app, caller, sent, rejection).await),
        Ok((format, None)) => Ok((format, sent)),
        Ok((format, Some(bytes))) => {
            let mut permit = app.bodies.permit(&caller.key, bytes.len());
            if !permit.take(bytes.len()) {
                return count_refusal(app, async { Err(Error::Overloaded) }).await;
            }
            Ok((format, BufferedBody { bytes, permit }))
        }
    }
}

/// Takes bodies in: a client that hangs up cancels nothing.
async fn receive(
    app: &Arc<App>,
    caller: Caller,
    bodies: Vec<Bytes>,
    permit: BodyPermit,
) -> Result<Vec<Answer>, Error> {
    let (ingest, at) = (Arc::clone(&app.ingest), app.clock.now());
    run_to_completion(async move {
        let answers = ingest.receive(&caller.tenant, bodies, at).await;
        drop(permit);
        answers
    })
    .await
}

/// Refuses a whole body, and keeps its bytes.
async fn refuse(
    app: &Arc<App>,
    caller: &Caller,
    body: BufferedBody,
    rejection: Rejection,
) -> Error {
    let (ingest, at) = (Arc::clone(&app.ingest), app.clock.now());
    let tenant = caller.tenant.clone();
    let refused = run_to_completion(async move {
        let BufferedBody { bytes, permit } = body;
        let outcome = ingest.refuse(&tenant, bytes, rejection, at).await;
        drop(permit);
        outcome
    });
    match refused.await {
        Ok(outcome) => acknowledged(&outcome).err().unwrap_or(Error::Internal),
        Err(error) => error,
    }
}

/// Counts bodies that are turned away before anyone could look into them.
async fn count_refusal<T>(
    app: &App,
    reading: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let result = reading.await;
    if let Err(error) = &result {
        match error.status() {
            (status, code) if status.is_server_error() => app.metrics.failed(code),
            (_, code) => app.metrics.rejected(code),
        }
    }
    result
}

fn acknowledged(outcome: &Outcome) -> Result<(), Error> {
    match outcome {
        Outcome::Stored | Outcome::Updated | Outcome::Duplicate | Outcome::Stale => Ok(()),
        Outcome::Rejected(rejection) => Err(rejection.clone().into()),
        Outcome::Busy => Err(Error::Overloaded),
        Outcome::Failed => Err(Error::Database),
        Outcome::Bug => Err(Error::Internal),
    }
}
