//! Media3Watch backend: takes playback session reports of the Media3Watch Android SDK and
//! keeps one row per session in PostgreSQL.
//!
//! # The path of one report
//!
//! ```text
//! http            router, request id, timeouts, body cap, decompression
//!  → auth         X-API-Key → Caller { tenant, key, scopes }          401 / 403
//!  → limit        take(caller)                                        429 + Retry-After
//!  → report       bytes → wire form → SessionReport (pure, no I/O)    400, field named
//!  → ingest       bounded queue → batch → outcome                     503 when full
//!  → store        one transaction per batch, retried or split         503
//! ```
//!
//! [`ingest::Ingest::receive`] knows the order from the body on, [`http::router`] what comes
//! before it. Every report ends in exactly one [`ingest::Outcome`], counted in one place, and
//! 200 is answered after the commit, never before.

pub mod app;
pub mod auth;
pub mod causes;
pub mod cli;
pub mod clock;
pub mod config;
pub mod grafana;
pub mod http;
pub mod ingest;
pub mod jobs;
pub mod lifecycle;
pub mod limit;
pub mod managed_pg;
pub mod report;
pub mod signals;
pub mod store;
pub mod telemetry;

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Revision of the source that this was built from, as the build was told.
pub const REVISION: &str = match option_env!("M3W_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
