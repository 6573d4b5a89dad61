//! HTTP: routes, and what surrounds every request.
//!
//! ```text
//! connection (limits, timeouts) ─▶ observe (request id, metrics, log, errors as JSON)
//!   ─▶ admit (key, scope, rate limit) ─▶ handler
//! ```

mod activity;
mod admit;
mod body;
mod connection;
mod decode;
mod error;
mod leftover;
mod observe;
mod openapi;
mod server;
mod session;
mod sessions;
mod status;
mod unwritten;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

pub use error::Error;
pub use openapi::document as openapi_document;
pub use server::serve;

use crate::app::App;

/// Largest batch request in bytes, before and after decompression.
pub const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Most reports in a batch request.
pub const MAX_BATCH_REPORTS: usize = 1_000;

/// Answer to paths that are no route.
const NO_SUCH_PATH: Error = Error::NotFound("no such path");
/// What the paths of single sessions begin with.
const SESSIONS: &str = "/v1/sessions/";
/// Their template.
const SESSION: &str = "/v1/sessions/{sessionId}";

/// Where Prometheus scrapes.
const METRICS: &str = "/metrics";

/// Methods and routes, for metrics that start at zero.
pub const ROUTES: [(&str, &str); 8] = [
    ("POST", "/v1/sessions"),
    ("POST", "/v1/sessions/batch"),
    ("GET", SESSION),
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", METRICS),
    ("GET", "/openapi.json"),
];

/// All routes of the public listener.
pub fn router(app: Arc<App>) -> Router {
    let mut routes = Router::new()
        .route("/v1/sessions", post(sessions::post_one))
        .route("/v1/sessions/batch", post(sessions::post_batch))
        .route(SESSION, get(session::get_one))
        .route("/health", get(status::health))
        .route("/health/live", get(status::live))
        .route("/health/ready", get(status::ready))
        .route("/openapi.json", get(status::openapi));
    if app.metrics_on_main {
        routes = routes.route(METRICS, get(status::metrics));
    }
    finish(app, routes)
}

/// The routes of the listener of `METRICS_ADDR`.
pub fn metrics_router(app: Arc<App>) -> Router {
    finish(app, Router::new().route(METRICS, get(status::metrics)))
}

/// Runs `work` to completion, even if the client disconnects. A panic becomes
/// [`Error::Internal`].
async fn run_to_completion<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(work).await.map_err(|_| Error::Internal)
}

fn finish(app: Arc<App>, routes: Router<Arc<App>>) -> Router {
    routes
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .fallback(async || NO_SUCH_PATH)
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_when_nobody_waits() {
        let (done, is_done) = tokio::sync::oneshot::channel();
        let work = run_to_completion(async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            done.send(()).expect("the test waits");
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), work).await.is_err());
        is_done.await.expect("finished");
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error() {
        let work = run_to_completion::<()>(async { panic!("on purpose") });
        assert_eq!(work.await, Err(Error::Internal));
    }
}
