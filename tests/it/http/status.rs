//! Health, metrics, and the description of the API.

use std::collections::HashMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::{NOW_MS, is_error, report};
use crate::support::{Database, KEY, Server, ServerOptions, bin};

#[tokio::test]
async fn health_is_told_to_everyone() {
    let server = Server::at(NOW_MS).await;
    let client = reqwest::Client::new();
    for path in ["/health", "/health/live", "/health/ready"] {
        let answer = server.send(client.get(server.url(path))).await;
        let healthy = json!({"status": "healthy", "timestamp": NOW_MS});
        assert_eq!((answer.status.as_u16(), answer.json()), (200, healthy), "{path}");
        let answer = server.send(client.head(server.url(path))).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""), "{path}");
        assert!(!answer.header("x-request-id").is_empty());
    }
}

/// Series by name, and their value.
async fn series(server: &Server) -> HashMap<String, f64> {
    let answer = server.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let lines = answer.text.lines().filter(|line| !line.starts_with('#'));
    let series = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        (name.to_owned(), value.parse().expect("a number"))
    });
    series.collect()
}

#[tokio::test]
async fn metrics_are_there_from_the_start() {
    let server = Server::at(NOW_MS).await;
    let series = series(&server).await;
    let named = |name: &str| -> Vec<f64> {
        let is_it = |key: &&String| {
            key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        series.keys().filter(is_it).map(|key| series[key]).collect()
    };
    for at_zero in [
        "http_server_requests_total",
        "http_server_request_duration_seconds_count",
        "http_server_request_duration_seconds_bucket",
        "sessions_ingested_total",
        "sessions_failed_total",
        "sessions_rejected_total",
        "rate_limited_total",
        "ingest_queue_reports",
        "ingest_queue_bytes",
        "ingest_batch_reports_count",
        "ingest_commit_delay_seconds_count",
    ] {
        let values = named(at_zero);
        assert!(
            !values.is_empty() && values.iter().all(|value| *value == 0.0),
            "{at_zero}: {values:?}"
        );
    }
    for there in [
        "db_connection_pool_active",
        "db_connection_pool_idle",
        "db_connection_pool_max",
        "db_query_duration_seconds_count",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "build_info",
    ] {
        assert!(!named(there).is_empty(), "{there}");
    }
    assert_eq!(named("db_connection_pool_max"), [20.0]);
    assert_eq!(named("build_info"), [1.0]);
    for outcome in ["stored", "updated", "duplicate", "stale"] {
        let key = format!("sessions_ingested_total{{outcome=\"{outcome}\",tenant=\"default\"}}");
        assert!(series.contains_key(&key), "{key}");
    }
    let info = series.keys().find(|key| key.starts_with("build_info{")).expect("there");
    assert!(info.contains("version=\"") && info.contains("revision=\""), "{info}");
}

#[tokio::test]
async fn labels_never_hold_what_clients_send() {
    let server = Server::at(NOW_MS).await;
    let before = series(&server).await.len();
    for number in 0..20 {
        let secret = format!("secret{number}");
        let method = Method::from_bytes(format!("BREW{number}").as_bytes()).expect("a method");
        server.send(server.request(method, &format!("/{secret}"))).await;
        server.get(&format!("/{secret}")).await;
        server.get(&format!("/v1/sessions/{secret}")).await;
        server.post(report(&secret)).await;
        server.post(secret.clone()).await;
        let wrong = reqwest::Client::new().post(server.url("/v1/sessions"));
        server.send(wrong.header("X-API-Key", &secret)).await;
    }
    let after = series(&server).await;
    let text: Vec<&String> = after.keys().collect();
    let text = format!("{text:?}");
    assert!(!text.contains("secret") && !text.contains("BREW") && !text.contains(KEY), "{text}");
    assert!(text.contains(r#"method=\"other\",route=\"unmatched\",status=\"404\""#), "{text}");
    // Six new combinations of method, route and status, of which each may have a histogram.
    assert!(after.len() - before < 100, "{before} series, then {}", after.len());
    let stored = "sessions_ingested_total{outcome=\"stored\",tenant=\"default\"}";
    assert!((after[stored] - 20.0).abs() < 0.5);
}

#[tokio::test]
async fn metrics_can_be_off() {
    let options = ServerOptions {
        env: vec![("ENABLE_METRICS", "false".to_owned())],
        now_ms: Some(NOW_MS),
        ..ServerOptions::default()
    };
    let server = Server::with(options, &Database::new().await).await;
    is_error(&server.get("/metrics").await, 404, "NOT_FOUND");
}

/// After a change of the API: `cargo run -- openapi > docs/openapi.json`
#[tokio::test]
async fn the_description_is_the_one_in_the_documentation() {
    let committed = include_str!("../../../docs/openapi.json");
    let server = Server::at(NOW_MS).await;
    let answer = reqwest::get(server.url("/openapi.json")).await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "application/json");
    let text = answer.text().await.expect("a body");
    assert!(text == committed, "refresh: cargo run -- openapi > docs/openapi.json");
    let printed = bin().arg("openapi").output().expect("runs").stdout;
    assert!(printed == committed.as_bytes(), "refresh: cargo run -- openapi > docs/openapi.json");

    let description: Value = serde_json::from_str(committed).expect("JSON");
    assert_eq!(description["openapi"], "3.1.0");
    let paths = description["paths"].as_object().expect("paths");
    for (method, route) in media3watch::http::ROUTES {
        assert!(paths[route][method.to_lowercase()].is_object(), "{method} {route}");
    }
    assert_eq!(paths.len(), media3watch::http::ROUTES.len());
}
