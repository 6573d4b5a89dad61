//! Errors as clients see them: one status, one stable code, one sentence.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rand::RngExt;

use crate::auth::Scope;
use crate::report::{Code, Rejection};

/// Why a request was not answered with 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The body was refused for what it says.
    Rejected(Rejection),
    /// No key, or an unknown one.
    InvalidApiKey,
    /// The key lacks the scope.
    Forbidden(Scope),
    /// Nothing is there.
    NotFound(&'static str),
    /// The path is there, the method is not.
    MethodNotAllowed,
    /// The body did not arrive in time.
    Timeout,
    /// The body is too large to be kept: so many bytes are allowed.
    TooLarge(usize),
    /// The key is over its limit.
    Limited(Duration),
    /// Postgres stayed away.
    Database,
    /// Too much is waiting, or no memory or connection is left.
    Overloaded,
    /// Our fault; the cause is in the log.
    Internal,
}

impl Error {
    /// Status and code.
    #[must_use]
    pub const fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Rejected(rejection) => {
                let status = match rejection.code {
                    Code::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                    Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    Code::InvalidSchema | Code::UnsupportedSchemaVersion => StatusCode::BAD_REQUEST,
                };
                (status, rejection.code.as_str())
            }
            Self::InvalidApiKey => (StatusCode::UNAUTHORIZED, "INVALID_API_KEY"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "FORBIDDEN"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED"),
            Self::Timeout => (StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE"),
            Self::Limited(_) => (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_EXCEEDED"),
            Self::Database => (StatusCode::SERVICE_UNAVAILABLE, "DATABASE_ERROR"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR"),
        }
    }

    /// The sentence; 5xx say nothing of their cause.
    #[must_use]
    pub fn message(&self, request_id: &str) -> String {
        match self {
            Self::Rejected(rejection) => rejection.to_string(),
            Self::InvalidApiKey => "the header X-API-Key holds no valid key".to_owned(),
            Self::Forbidden(scope) => format!("the key lacks the scope {}", scope.as_str()),
            Self::NotFound(what) => (*what).to_owned(),
            Self::MethodNotAllowed => "this path does not take that method".to_owned(),
            Self::Timeout => "the body did not arrive in time".to_owned(),
            Self::TooLarge(limit) => format!("$: the body is larger than {limit} bytes"),
            Self::Limited(_) => "too many requests for this key".to_owned(),
            Self::Database => "the database cannot do that at the moment, try again".to_owned(),
            Self::Overloaded => "the server is overloaded, try again".to_owned(),
            Self::Internal => format!("internal error, see the log for request {request_id}"),
        }
    }

    /// Whole seconds until a retry makes sense, spread so that clients do not come back all
    /// at once.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        let least = match self {
            Self::Limited(wait) => wait.as_secs() + u64::from(wait.subsec_nanos() > 0),
            Self::Database | Self::Overloaded => 1,
            _ => return None,
        };
        Some(least.max(1) + rand::rng().random_range(0..=2))
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// The status alone, and the error for `observe`, which knows time and request id and writes
/// the body.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.status().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
