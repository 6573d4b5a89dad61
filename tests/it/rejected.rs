//! Rejected bodies: their bound holds in all, whoever adds them, and is shared fairly.

use crate::support::{Database, Server, ServerOptions};

const MAX_ROWS: i64 = 10_000;
const MAX_BYTES: i64 = 128 * 1024 * 1024;

async fn kept(database: &Database) -> (i64, i64) {
    let rows = "SELECT count(*) FROM rejected_reports";
    let bytes = "SELECT coalesce(sum(octet_length(body)), 0) FROM rejected_reports";
    (database.number(rows).await, database.number(bytes).await)
}

/// Adds rows as other instances did, before this one started.
async fn fill(database: &Database, tenant: &str, rows: i64, bytes: i64) {
    database
        .execute(&format!(
            "INSERT INTO rejected_reports (tenant_id, received_at, code, field, detail, body)
             SELECT '{tenant}', now(), 'INVALID_SCHEMA', '$', 'x', convert_to(repeat('x', {bytes}), 'UTF8')
             FROM generate_series(1, {rows})"
        ))
        .await;
}

async fn reject(server: &Server) {
    assert_eq!(server.post("{").await.status, 400);
}

#[tokio::test]
async fn the_bound_holds_across_restarts_and_instances() {
    let database = Database::new().await;
    let servers = [
        Server::with(ServerOptions::default(), &database).await,
        Server::with(ServerOptions::default(), &database).await,
    ];
    fill(&database, "default", MAX_ROWS - 3, 10).await;
    for turn in 0..6 {
        reject(&servers[turn % 2]).await;
        let (rows, _) = kept(&database).await;
        assert!(rows <= MAX_ROWS, "{rows}");
    }
    // What was rejected last is there, and most of what was there before.
    let (rows, _) = kept(&database).await;
    assert!(rows > MAX_ROWS * 9 / 10, "{rows}");
    let newest = "SELECT count(*) FROM rejected_reports WHERE body = '{'";
    assert_eq!(database.number(newest).await, 6);
    for server in servers {
        server.stop().await;
    }
    // The bound in bytes, on a new instance.
    database.execute("TRUNCATE rejected_reports").await;
    fill(&database, "default", 128, 1024 * 1024).await;
    let server = Server::with(ServerOptions::default(), &database).await;
    reject(&server).await;
    let (rows, bytes) = kept(&database).await;
    assert!(bytes <= MAX_BYTES && bytes > MAX_BYTES * 9 / 10, "{rows} rows, {bytes} bytes");
    assert_eq!(database.number(newest).await, 1);
}

/// A tenant that rejects much does not take the place of one that rejects little, whether it
/// has many bodies or large ones.
#[tokio::test]
async fn the_bound_is_shared_between_tenants() {
    let database = Database::new().await;
    let server = Server::with(ServerOptions::default(), &database).await;
    fill(&database, "small", 40, 10_000).await;
    fill(&database, "many", MAX_ROWS, 10).await;
    reject(&server).await;
    let count = |tenant: &str| {
        format!("SELECT count(*) FROM rejected_reports WHERE tenant_id = '{tenant}'")
    };
    assert_eq!(database.number(&count("small")).await, 40);
    assert_eq!(database.number(&count("default")).await, 1);
    fill(&database, "large", 100, 1024 * 1024).await;
    fill(&database, "larger", 20, 4 * 1024 * 1024).await;
    reject(&server).await;
    let (rows, bytes) = kept(&database).await;
    assert!(rows <= MAX_ROWS && bytes <= MAX_BYTES, "{rows} rows, {bytes} bytes");
    assert_eq!(database.number(&count("small")).await, 40);
    assert_eq!(database.number(&count("default")).await, 2);
    // Both large ones give way alike.
    let large = database.number(&count("large")).await;
    let larger = database.number(&count("larger")).await * 4;
    assert!(large > 40 && larger > 40, "{large} and {larger} MiB");
}
