//! Reading one session.

use std::sync::Arc;

use axum::RequestExt;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use url::form_urlencoded;

use super::admit::admit;
use super::error::Error;
use super::openapi::{ErrorBody, SessionBody};
use crate::app::App;
use crate::auth::{Caller, Scope};
use crate::report::Rejection;
use crate::store::{TimelinePage, TimelinePosition};

const DEFAULT_ENTRIES: u32 = 2_000;
const MAX_ENTRIES: u32 = 10_000;

/// One session of the key's tenant: its columns, the newest report, and a page of the timeline.
#[utoipa::path(get, path = "/v1/sessions/{sessionId}", tag = "sessions",
    security(("apiKey" = [])),
    params(
        ("sessionId" = String, Path, description = "As the SDK made it"),
        ("timelineLimit" = Option<u32>, Query, minimum = 1, maximum = 10_000,
            description = "Timeline entries at most; 2,000 by default"),
        ("timelineAfter" = Option<String>, Query,
            description = "`timelineNext` of the page before, or an `elapsedMs` after which entries are wanted")),
    responses(
        (status = 200, description = "The session", body = SessionBody),
        (status = 400, description = "INVALID_SCHEMA: timelineLimit or timelineAfter", body = ErrorBody),
        (status = 401, description = "INVALID_API_KEY", body = ErrorBody),
        (status = 403, description = "FORBIDDEN: the key lacks the scope read", body = ErrorBody),
        (status = 404, description = "NOT_FOUND in the key's tenant", body = ErrorBody),
        (status = 429, description = "RATE_LIMIT_EXCEEDED, with Retry-After", body = ErrorBody),
        (status = 503, description = "DATABASE_ERROR or OVERLOADED, with Retry-After", body = ErrorBody)))]
pub(super) async fn get_one(State(app): State<Arc<App>>, request: Request) -> Response {
    admit(&app, Scope::Read, request, |caller, request| read_one(&app, caller, request)).await
}

async fn read_one(app: &App, caller: Caller, mut request: Request) -> Result<Response, Error> {
    const UNKNOWN: Error = Error::NotFound("no such session");
    let page = page(request.uri().query().unwrap_or_default())?;
    // A path that is no text, or holds what no id may, names no session.
    let Ok(Path(session_id)) = request.extract_parts::<Path<String>>().await else {
        return Err(UNKNOWN);
    };
    if session_id.contains('\0') {
        return Err(UNKNOWN);
    }
    match app.store.session(&caller.tenant, &session_id, page).await {
        Ok(Some(json)) => Ok(([(CONTENT_TYPE, "application/json")], json).into_response()),
        Ok(None) => Err(UNKNOWN),
        Err(error) if error.is_temporary() => {
            tracing::warn!(%error, "a session could not be read");
            Err(Error::Database)
        }
        Err(error) => {
            tracing::error!(%error, "a session could not be read");
            Err(Error::Internal)
        }
    }
}

/// The page that a query string asks for.
fn page(query: &str) -> Result<TimelinePage, Rejection> {
    let mut page = TimelinePage { limit: DEFAULT_ENTRIES, after: TimelinePosition::START };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "timelineLimit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_ENTRIES).contains(limit));
                page.limit = limit.ok_or_else(|| {
                    let detail = format!("expected a whole number from 1 to {MAX_ENTRIES}");
                    Rejection::invalid("timelineLimit", detail)
                })?;
            }
            "timelineAfter" => {
                page.after = value
                    .parse()
                    .map_err(|error| Rejection::invalid("timelineAfter", format!("{error}")))?;
            }
            _ => {}
        }
    }
    Ok(page)
}
