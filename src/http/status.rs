//! Health, metrics and the description of the API.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::telemetry::Metrics;

const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// A built-in PostgreSQL that died is usually back before this, and reports are held meanwhile.
const RESTART: Duration = Duration::from_secs(3);

/// Answer of the health endpoints.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `healthy` or `unhealthy`.
    #[schema(example = "healthy")]
    status: &'static str,
    /// Unix milliseconds.
    #[schema(example = 1_795_000_000_000_i64)]
    timestamp: i64,
    /// What an operator should mend, where there is anything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<String>,
}

fn answer(app: &App, is_healthy: bool) -> Response {
    let timestamp = app.clock.now().0;
    let (code, status) = if is_healthy {
        (StatusCode::OK, "healthy")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
    };
    let warnings = app.clock.warning().into_iter().collect();
    (code, Json(Health { status, timestamp, warnings })).into_response()
}

/// Whether Postgres can be reached.
#[utoipa::path(get, path = "/health", tag = "status", responses(
    (status = 200, description = "Postgres answers", body = Health),
    (status = 503, description = "Postgres cannot be reached", body = Health)))]
pub(super) async fn health(State(app): State<Arc<App>>) -> Response {
    let ping = app.store.ping(PING_TIMEOUT).await;
    answer(&app, ping.is_ok())
}

/// Whether the process runs.
#[utoipa::path(get, path = "/health/live", tag = "status", responses(
    (status = 200, description = "The process runs", body = Health)))]
pub(super) async fn live(State(app): State<Arc<App>>) -> Response {
    answer(&app, true)
}

/// Whether the server takes traffic: not while it is stopping, and not while its built-in
/// PostgreSQL is down. A Postgres of others that is away is no reason to send traffic elsewhere:
/// other instances have the same one, and reports are held.
#[utoipa::path(get, path = "/health/ready", tag = "status", responses(
    (status = 200, description = "The server takes traffic", body = Health),
    (status = 503, description = "The server is stopping, or its built-in PostgreSQL is down", body = Health)))]
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    answer(&app, !app.stopping.is_cancelled() && !app.outage.is_longer_than(RESTART))
}

/// Metrics in Prometheus' text format; 404 when they are off or have a listener of their own.
#[utoipa::path(get, path = "/metrics", tag = "status", responses(
    (status = 200, description = "Metrics", body = String, content_type = "text/plain"),
    (status = 404, description = "Metrics are off, or on a listener of their own", body = super::openapi::ErrorBody)))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.metrics.render(app.store.pool_usage());
    ([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response()
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "status", responses(
    (status = 200, description = "OpenAPI 3.1", content_type = "application/json")))]
pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], super::openapi::document()).into_response()
}
