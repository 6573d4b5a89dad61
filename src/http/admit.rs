//! Who may come in: key, scope, rate limit, in this order and before the body is read.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::error::Error;
use super::observe::Seen;
use crate::app::App;
use crate::auth::{Caller, Scope};
use crate::limit::Decision;

const API_KEY: &str = "x-api-key";

/// Lets a request through to `answer`, with who sent it.
pub(super) async fn admit<F>(
    app: &Arc<App>,
    scope: Scope,
    request: Request,
    answer: impl FnOnce(Caller, Request) -> F,
) -> Response
where
    F: Future<Output = Result<Response, Error>>,
{
    let presented = request.headers().get(API_KEY).map(HeaderValue::as_bytes);
    let presented = presented.filter(|key| !key.is_empty());
    let Some(caller) = presented.and_then(|key| app.keys.authenticate(key)).cloned() else {
        count(app, scope, "INVALID_API_KEY");
        return Error::InvalidApiKey.into_response();
    };
    let seen = Seen { tenant: caller.tenant.clone(), key: caller.key.clone(), scope };
    if !caller.may(scope) {
        count(app, scope, "FORBIDDEN");
        let mut response = Error::Forbidden(scope).into_response();
        response.extensions_mut().insert(seen);
        return response;
    }
    let decision = app.limiter.take(&caller);
    let mut response = if let Some(wait) = decision.retry_after {
        app.metrics.rate_limited(&caller.tenant);
        Error::Limited(wait).into_response()
    } else {
        answer(caller, request).await.into_response()
    };
    response.extensions_mut().insert(seen);
    tell_limit(response.headers_mut(), decision);
    response
}

/// Counts a refused report; refused readers are among the requests.
fn count(app: &App, scope: Scope, code: &'static str) {
    if scope == Scope::Ingest {
        app.metrics.rejected(code);
    }
}

fn tell_limit(headers: &mut HeaderMap, decision: Decision) {
    headers.insert(HeaderName::from_static("ratelimit-limit"), decision.limit.into());
    headers.insert(HeaderName::from_static("ratelimit-remaining"), decision.remaining.into());
    let reset = decision.reset + Duration::from_millis(999);
    headers.insert(HeaderName::from_static("ratelimit-reset"), reset.as_secs().into());
}
