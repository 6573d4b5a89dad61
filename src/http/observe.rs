//! What every request gets: an id, a count, a log line; and errors their body.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tower::ServiceExt;

use super::activity::Activity;
use super::error::Error;
use super::unwritten::account;
use super::{METRICS, NO_SUCH_PATH, ROUTES, SESSION, SESSIONS};
use crate::app::App;
use crate::auth::{KeyId, Scope, Tenant};
use crate::limit::Reader;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Methods by name; a client may send anything as one.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"];
const MAX_REQUEST_ID_CHARS: usize = 64;

/// What handlers tell the log line, as an extension of the response.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) tenant: Tenant,
    pub(super) key: KeyId,
    pub(super) scope: Scope,
}

/// What became of the request's report, for the log line.
#[derive(Clone, Copy)]
pub(super) struct OutcomeName(pub(super) &'static str);

/// Answers a request.
pub(super) async fn observe(
    app: Arc<App>,
    router: Router,
    mut request: Request,
    connection: Activity,
) -> Response {
    normalise_path(request.uri_mut());
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let method = request.method().as_str();
    let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
    let is_http1 = request.version() <= Version::HTTP_11;
    let is_head = request.method() == Method::HEAD;
    let template = template(request.uri().path());
    // Logs what it has also when the client hangs up and this future is dropped.
    let mut line = Line { app: &app, method, request_id: &request_id, started, answered: false };

    let is_turned_away = !is_probe(template) && connection.is_spare();
    let mut response = if is_turned_away {
        if method == "POST" {
            app.metrics.failed(Error::Overloaded.status().1);
        }
        Error::Overloaded.into_response()
    } else {
        router.oneshot(request).await.unwrap_or_else(|never| match never {})
    };
    let mut error = response.extensions_mut().remove::<Error>();
    if let Some(error) = &error {
        write_error(&app, &mut response, error, &request_id);
        if is_head {
            // hyper leaves the body out on HTTP/1 only.
            *response.body_mut() = Body::empty();
        }
    }
    let seen = response.extensions().get::<Seen>().cloned();
    let reader = match &seen {
        Some(seen) => Reader::Key(seen.key.clone(), seen.scope),
        None => Reader::Peer(connection.peer()),
    };
    let accounted = account(response, is_http1, reader, &app.responses, &connection).await;
    let mut response = accounted.unwrap_or_else(|| {
        let error = error.insert(Error::Overloaded);
        let mut response = error.status().0.into_response();
        write_error(&app, &mut response, error, &request_id);
        if !is_http1 {
            // A body would hold memory, too.
            *response.body_mut() = Body::empty();
            response.headers_mut().insert(CONTENT_LENGTH, 0.into());
        }
        seen.map(|seen| response.extensions_mut().insert(seen));
        response
    });
    let is_routed = error.as_ref() != Some(&NO_SUCH_PATH);
    let id = HeaderValue::from_str(&request_id).expect("checked when it was taken");
    response.headers_mut().insert(REQUEST_ID, id);
    let is_last = app.stopping.is_cancelled() || is_turned_away || error == Some(Error::Timeout);
    if is_http1 && is_last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let route = if is_routed { template } else { "unmatched" };
    line.answered(&response, route, error.as_ref());
    response
}

struct Line<'a> {
    app: &'a App,
    method: &'static str,
    request_id: &'a str,
    started: Instant,
    answered: bool,
}

impl Line<'_> {
    fn answered(&mut self, response: &Response, route: &str, error: Option<&Error>) {
        self.answered = true;
        let took = self.started.elapsed();
        let status = response.status().as_u16();
        let extensions = response.extensions();
        self.app.metrics.http_request(self.method, route, status, took);
        let tenant = extensions.get::<Seen>().map_or("", |seen| seen.tenant.as_str());
        let outcome = error
            .map(|error| error.status().1)
            .or_else(|| extensions.get::<OutcomeName>().map(|outcome| outcome.0))
            .unwrap_or(if status >= 500 { "unavailable" } else { "ok" });
        let (method, request_id) = (self.method, self.request_id);
        let duration_ms = millis(took);
        // Probes and scrapes come all the time and say little; of requests over their limit, which
        // a client may repeat as fast as it can, the limiter says how many there were.
        let is_quiet = is_probe(route) || route == METRICS;
        if is_quiet && status < 500 || status == StatusCode::TOO_MANY_REQUESTS {
            tracing::debug!(
                method,
                route,
                status,
                duration_ms,
                request_id,
                tenant,
                outcome,
                "request"
            );
        } else {
            tracing::info!(
                method,
                route,
                status,
                duration_ms,
                request_id,
                tenant,
                outcome,
                "request"
            );
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let (method, request_id) = (self.method, self.request_id);
            let duration_ms = millis(self.started.elapsed());
            tracing::info!(method, duration_ms, request_id, outcome = "client_gone", "request");
        }
    }
}

/// Whether this is a route that load balancers and supervisors ask.
fn is_probe(route: &str) -> bool {
    matches!(route, "/health" | "/health/live" | "/health/ready")
}

/// Makes `//v1/sessions/` what it means: URLs are put together from parts with a slash at the end
/// of one and at the start of the next.
fn normalise_path(uri: &mut Uri) {
    let path = uri.path();
    if !path.contains("//") && (path.len() < 2 || !path.ends_with('/')) {
        return;
    }
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let mut normal: String = segments.flat_map(|segment| ["/", segment]).collect();
    if normal.is_empty() {
        normal.push('/');
    }
    // Proxies keep metrics from the outside by this very path.
    if normal == METRICS {
        return;
    }
    if let Some(query) = uri.query() {
        normal.push('?');
        normal.push_str(query);
    }
    let mut parts = std::mem::take(uri).into_parts();
    // Parts of a path make a path.
    parts.path_and_query = normal.parse().ok();
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// The template of a path, as a label: never the path itself.
fn template(path: &str) -> &'static str {
    let mut templates = ROUTES.iter().map(|(_, template)| *template);
    let is_session =
        || path.strip_prefix(SESSIONS).is_some_and(|id| !id.is_empty() && !id.contains('/'));
    match templates.find(|template| *template == path) {
        Some(template) => template,
        None if is_session() => SESSION,
        None => "unmatched",
    }
}

/// Milliseconds with microseconds behind the point.
fn millis(took: std::time::Duration) -> f64 {
    took.as_micros() as f64 / 1000.0
}

fn write_error(app: &App, response: &mut Response, error: &Error, request_id: &str) {
    let body = json!({"error": {
        "code": error.status().1,
        "message": error.message(request_id),
        "timestamp": app.clock.now().0,
    }})
    .to_string();
    let headers = response.headers_mut();
    // The router has counted the empty body.
    headers.insert(CONTENT_LENGTH, body.len().into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = error.retry_after() {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    *response.body_mut() = Body::from(body);
}

/// A random UUID, from the thread's generator: no system call per request.
fn new_request_id() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}

/// The client's id where it is a plain one, so that its log and ours can be joined.
fn request_id(headers: &HeaderMap) -> String {
    let is_plain = |id: &&str| {
        (1..=MAX_REQUEST_ID_CHARS).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let sent = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_plain);
    sent.map_or_else(new_request_id, str::to_owned)
}
