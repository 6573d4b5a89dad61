//! Databases that hold something else: recognised, named, and left as they are.

use std::process::Output;

use crate::support::{Database, bin};

async fn migrate(database: &Database) -> Output {
    let mut command = tokio::process::Command::from(bin());
    command.env("DATABASE_URL", &database.url).arg("migrate");
    command.output().await.expect("it runs")
}

/// Everything in the schema, with its rows as far as they are counted.
async fn contents(database: &Database) -> Vec<String> {
    let relations = "SELECT relname::text || ' ' || relkind::text FROM pg_class
                     WHERE relnamespace = 'public'::regnamespace ORDER BY 1";
    database.lines(relations).await
}

#[tokio::test]
async fn a_database_with_other_tables_is_left_alone() {
    let cases = [
        // The original backend's, and anybody's.
        ("CREATE TABLE sessions (id text)", "did not make"),
        // A build before the first release.
        (
            "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text,
               installed_on timestamptz, success boolean, checksum bytea, execution_time bigint);
             INSERT INTO _sqlx_migrations VALUES (1, 'sessions', now(), true, '\\x00', 1);
             CREATE TABLE sessions (session_id text);
             CREATE TABLE session_places (key uuid)",
            "before the first release",
        ),
    ];
    for (tables, expected) in cases {
        let database = Database::new().await;
        database.execute(tables).await;
        let before = contents(&database).await;
        let output = migrate(&database).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(expected) && error.contains("DATABASE_URL"), "{error}");
        assert!(output.stdout.is_empty());
        assert_eq!(contents(&database).await, before);
    }
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let database = Database::new().await;
    assert!(migrate(&database).await.status.success());
    let before = contents(&database).await;
    let again = migrate(&database).await;
    assert_eq!(String::from_utf8_lossy(&again.stdout), "the schema is up to date (version 5)\n");
    assert_eq!(contents(&database).await, before);
}
