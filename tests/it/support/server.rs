//! A server in the test's own process, on a port of its own, with the test's clock.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use media3watch::app::App;
use media3watch::clock::Clock;
use media3watch::config::{Config, Environment};
use media3watch::ingest::Bounds;
use media3watch::lifecycle::{self, Ground};
use media3watch::limit::Limits;
use media3watch::managed_pg::Outage;
use media3watch::report::UnixMs;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cluster::Database;

pub const KEY: &str = "dev-key";

/// What a test may choose; the rest is as users get it, but for a limit that never limits.
#[derive(Default)]
pub struct ServerOptions {
    /// Environment variables beside those of the database.
    pub env: Vec<(&'static str, String)>,
    /// A clock that stands still; the real one when `None`.
    pub now_ms: Option<i64>,
    /// How far the machine's clock, where it is real, is ahead of the time.
    pub machine_ahead_ms: i64,
    pub limits: Limits,
    pub bounds: Bounds,
}

pub struct Server {
    pub address: SocketAddr,
    pub database: Database,
    pub app: Arc<App>,
    /// The fixed clock, where there is one.
    pub clock_ms: Arc<AtomicI64>,
    client: reqwest::Client,
    stopping: CancellationToken,
    running: Option<JoinHandle<()>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    /// The code of an error answer; empty for others.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The message of an error answer.
    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

pub fn now_ms() -> i64 {
    UnixMs::from(SystemTime::now()).0
}

/// A client that waits so long for an answer.
pub fn client(timeout: Duration) -> reqwest::Client {
    // Tests talk to themselves: TLS is never spoken, but its provider must be named.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(timeout).build().expect("a client")
}

impl Server {
    /// A server on a database of its own.
    pub async fn start() -> Self {
        Self::with(ServerOptions::default(), &Database::new().await).await
    }

    /// A server on a database of its own whose clock stands still.
    pub async fn at(now_ms: i64) -> Self {
        let options = ServerOptions { now_ms: Some(now_ms), ..ServerOptions::default() };
        Self::with(options, &Database::new().await).await
    }

    pub async fn with(options: ServerOptions, database: &Database) -> Self {
        let mut env: HashMap<&str, String> = HashMap::from([
            ("DATABASE_URL", database.url.clone()),
            ("RATE_LIMIT_REQUESTS", "1000000".to_owned()),
        ]);
        env.extend(options.env);
        let get = |name: &str| env.get(name).map(Into::into);
        let config = Config::load(&Environment::new(get)).expect("a valid configuration");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let clock_ms = Arc::new(AtomicI64::new(options.now_ms.unwrap_or(0)));
        let clock = if options.now_ms.is_some() {
            let clock_ms = Arc::clone(&clock_ms);
            Clock::new(move || UnixMs(clock_ms.load(Ordering::Relaxed)))
        } else {
            Clock::of_machine(move || UnixMs(now_ms() + options.machine_ahead_ms))
        };
        let ground = Ground {
            listener,
            metrics_listener: None,
            database: database.target(),
            outage: Outage::default(),
            clock,
            limits: options.limits,
            bounds: options.bounds,
        };
        let stopping = CancellationToken::new();
        let (ready, is_ready) = oneshot::channel();
        let running = tokio::spawn({
            let stopping = stopping.clone();
            async move {
                let ready = |app: &Arc<App>| drop(ready.send(Arc::clone(app)));
                lifecycle::run(&config, ground, stopping, ready).await.expect("the server runs");
            }
        });
        let app = is_ready.await.expect("the server starts");
        Self {
            address,
            database: database.clone(),
            app,
            clock_ms,
            client: client(Duration::from_secs(30)),
            stopping,
            running: Some(running),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request with the key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path)).header("X-API-Key", KEY)
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.expect("a body") }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// Posts one report as the SDKs do.
    pub async fn post(&self, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::POST, "/v1/sessions");
        let request = request.header("Content-Type", "application/json; charset=utf-8");
        self.send(request.body(body)).await
    }

    /// Posts a batch as a JSON array.
    pub async fn post_batch(&self, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::POST, "/v1/sessions/batch");
        self.send(request.header("Content-Type", "application/json").body(body)).await
    }

    /// Posts a batch as lines.
    pub async fn post_ndjson(&self, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::POST, "/v1/sessions/batch");
        let request = request.header("Content-Type", "application/x-ndjson");
        self.send(request.body(body)).await
    }

    /// The value of a metric with exactly these labels, as `name{label="…"}`.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").await.text;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().expect("a number")
    }

    /// Begins to stop, as the first signal does.
    pub fn begin_stop(&self) {
        self.stopping.cancel();
    }

    /// Stops and waits for the end.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        if let Some(running) = self.running.take() {
            running.await.expect("it ended well");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}
