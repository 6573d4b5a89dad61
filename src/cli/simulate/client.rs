//! HTTP as the SDK does it: one shared connection pool, the SDK's timeouts, and its reading of an
//! answer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use uuid::Uuid;

use crate::auth::PlainKey;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// A batch of 1,000 reports may take longer than one report.
const BATCH_TIMEOUT: Duration = Duration::from_mins(1);
/// No client waits longer than this, whatever a server asks for.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// What a server made of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// 2xx, with the body.
    Accepted(Vec<u8>),
    /// 408, 429, 5xx or no answer: worth sending again.
    Later {
        /// Status and error code; `None` when there was no answer.
        refusal: Option<Refusal>,
        /// From `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// Any other status: dropped for good.
    Refused(Refusal),
}

/// A status with the code of the error body.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
}

impl Refusal {
    /// Whether the key is the reason: then no other report fares better.
    pub(super) fn is_about_key(&self) -> bool {
        matches!(self.status, 401 | 403)
    }

    /// The error for a run that this refusal makes pointless.
    pub(super) fn key_error(&self) -> anyhow::Error {
        let Self { status, code } = self;
        if *status == 403 {
            anyhow::anyhow!(
                "the server does not let this key send reports ({status} {code}): pass a key \
                 with the scope ingest to --key"
            )
        } else {
            anyhow::anyhow!(
                "the server does not know this key ({status} {code}): pass the right one to \
                 --key; the server has it in M3W_API_KEY"
            )
        }
    }
}

/// An HTTP client for one server and one key.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    key: PlainKey,
}

impl Client {
    /// A client for the server at `base`.
    pub(super) fn new(base: Url, key: PlainKey) -> anyhow::Result<Self> {
        // Fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("media3watch-simulate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            // A redirect would carry the key to wherever it points.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("the HTTP client cannot be set up")?;
        Ok(Self { http, base, key })
    }

    /// Asks whether a Media3Watch server answers at all, and whether it knows the key, so that a
    /// mistake shows at once and not when the first session ends.
    pub(super) async fn probe(&self) -> anyhow::Result<()> {
        let base = &self.base;
        let nobody = || format!("no Media3Watch server answers at URL: {base}");
        let health = self.http.get(self.at("health")).send().await.with_context(nobody)?;
        let status = health.status();
        let body = health.bytes().await.with_context(nobody)?;
        let said = serde_json::from_slice::<Health>(&body).map(|health| health.status);
        match (status, said.as_deref()) {
            (StatusCode::OK, Ok("healthy")) => {}
            (_, Ok("unhealthy")) => {
                bail!(
                    "the server at {base} says it is unhealthy ({status}): can it reach its database?"
                )
            }
            _ => bail!("{}; GET /health gave {status}", nobody()),
        }

        // Reading a session that is not there changes nothing and shows what the key is worth.
        // A key that may only send gets a 403 here, and is fine.
        let url = self.at("v1/sessions/media3watch-simulate-probe");
        let answer = self.http.get(url).header("X-API-Key", self.key.expose()).send().await;
        let answer = answer.with_context(nobody)?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let code = code_of(&answer.bytes().await.unwrap_or_default());
            return Err(Refusal { status: 401, code }.key_error());
        }
        Ok(())
    }

    /// Whether the server did not believe when a session began, and placed it at the time of
    /// receipt. `None` if it does not say, or not to this key.
    pub(super) async fn is_at_receipt(&self, session_id: Uuid) -> Option<bool> {
        let url = self.at(&format!("v1/sessions/{session_id}"));
        let answer = self.http.get(url).header("X-API-Key", self.key.expose()).send().await;
        let session: Stored = serde_json::from_slice(&answer.ok()?.bytes().await.ok()?).ok()?;
        Some(session.clock_skew_ms.is_some())
    }

    /// Sends one report. Gives the answer and how long it took.
    pub(super) async fn post_report(&self, body: Vec<u8>) -> (Answer, Duration) {
        let request = self
            .http
            .post(self.at("v1/sessions"))
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .body(body);
        self.send(request).await
    }

    /// Sends gzipped NDJSON to the batch route.
    pub(super) async fn post_batch(&self, gzipped: Vec<u8>) -> (Answer, Duration) {
        let request = self
            .http
            .post(self.at("v1/sessions/batch"))
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header(CONTENT_ENCODING, "gzip")
            .timeout(BATCH_TIMEOUT)
            .body(gzipped);
        self.send(request).await
    }

    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.base.as_str().trim_end_matches('/'))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (Answer, Duration) {
        let began = Instant::now();
        let answer = match request.header("X-API-Key", self.key.expose()).send().await {
            Ok(response) => read(response).await,
            Err(error) => {
                tracing::debug!(error = %error, "no answer");
                Answer::Later { refusal: None, retry_after: None }
            }
        };
        (answer, began.elapsed())
    }
}

async fn read(response: reqwest::Response) -> Answer {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT));
    let Ok(body) = response.bytes().await else {
        return Answer::Later { refusal: None, retry_after };
    };
    judge(status.as_u16(), &body, retry_after)
}

/// The SDK's rule.
fn judge(status: u16, body: &[u8], retry_after: Option<Duration>) -> Answer {
    if (200..300).contains(&status) {
        return Answer::Accepted(body.to_vec());
    }
    let refusal = Refusal { status, code: code_of(body) };
    match status {
        408 | 429 | 500.. => Answer::Later { refusal: Some(refusal), retry_after },
        _ => Answer::Refused(refusal),
    }
}

#[derive(Deserialize)]
struct Stored {
    #[serde(deserialize_with = "Option::deserialize")]
    clock_skew_ms: Option<i64>,
}

#[derive(Deserialize)]
struct Health {
    status: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorCode,
}

#[derive(Deserialize)]
struct ErrorCode {
    code: String,
}

fn code_of(body: &[u8]) -> String {
    serde_json::from_slice::<ErrorBody>(body)
        .map_or_else(|_| "no error code".to_owned(), |body| body.error.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"error":{"code":"SOME_CODE","message":"m","timestamp":1}}"#;

    #[test]
    fn statuses_are_judged_as_the_sdk_does() {
        let second = Some(Duration::from_secs(1));
        assert!(matches!(judge(200, b"{}", None), Answer::Accepted(_)));
        assert!(matches!(judge(204, b"", None), Answer::Accepted(_)));
        for status in [408, 429, 500, 502, 503, 504] {
            let refusal = Some(Refusal { status, code: "SOME_CODE".to_owned() });
            assert_eq!(judge(status, BODY, second), Answer::Later { refusal, retry_after: second });
        }
        for status in [302, 400, 401, 403, 404, 409, 413, 415, 422] {
            let refusal = Refusal { status, code: "SOME_CODE".to_owned() };
            assert_eq!(judge(status, BODY, None), Answer::Refused(refusal));
        }
    }

    #[test]
    fn a_body_without_a_code_is_named() {
        assert_eq!(code_of(b"<html>"), "no error code");
    }

    #[test]
    fn debug_hides_the_key() {
        let base = Url::parse("http://127.0.0.1:1").expect("a URL");
        let client =
            Client::new(base, PlainKey::new("m3w-very-secret".to_owned())).expect("a client");
        assert!(!format!("{client:?}").contains("very-secret"));
    }
}
