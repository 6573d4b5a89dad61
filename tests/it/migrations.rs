//! Databases that hold something else: recognised, named, and left as they are.

use std::process::Output;

use crate::import;
use crate::support::{Database, bin};

async fn run(database: &Database, command: &str) -> Output {
    let mut process = tokio::process::Command::from(bin());
    process.env("DATABASE_URL", &database.url).env("PORT", "0").env("HOST", "127.0.0.1");
    process.arg(command).output().await.expect("it runs")
}

/// Everything in the schema, and the rows of `sessions`.
async fn contents(database: &Database) -> Vec<String> {
    let relations = "SELECT relname || ' ' || relkind::text FROM pg_class
                     WHERE relnamespace = 'public'::regnamespace ORDER BY 1";
    let mut contents = database.lines(relations).await;
    contents.extend(database.lines("SELECT s::text FROM sessions s ORDER BY 1").await);
    contents
}

const SQLX_MIGRATIONS: &str = "
    CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text,
        installed_on timestamptz, success boolean, checksum bytea, execution_time bigint);";

#[tokio::test]
async fn a_database_with_other_tables_is_left_alone() {
    let first =
        r#"INSERT INTO sessions (session_id, "timestamp", payload) VALUES ('s', now(), '{}');"#;
    let second = r#"INSERT INTO sessions (session_id, "timestamp", session_start_date_iso, session_duration_ms)
                    VALUES ('s', 1795000000000, 'null', 65000);"#;
    let original =
        [[import::VERSION_1, first], [import::VERSION_2, second]].map(|sql| sql.concat());
    let early = format!(
        "{SQLX_MIGRATIONS} INSERT INTO _sqlx_migrations VALUES (1, 'sessions', now(), true, '\\x00', 1);
         CREATE TABLE sessions (session_id text); CREATE TABLE session_places (key uuid)"
    );
    let of_original =
        "the table sessions of the original Media3Watch backend, which media3watch did not make";
    let cases = [
        (original[0].clone(), of_original),
        (original[1].clone(), of_original),
        // What a run on such a database left behind before they were recognised.
        (format!("{} {SQLX_MIGRATIONS}", original[1]), of_original),
        (
            "CREATE TABLE sessions (id text)".to_owned(),
            "a table named sessions, which media3watch did not make",
        ),
        (early, "before the first release"),
    ];
    for (tables, expected) in cases {
        let database = Database::new().await;
        database.execute(&tables).await;
        let before = contents(&database).await;
        for command in ["migrate", "serve"] {
            let output = run(&database, command).await;
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{error}");
            assert!(error.contains(expected) && error.contains("DATABASE_URL"), "{error}");
            if expected.contains("did not make") {
                for way in [
                    "nothing was changed",
                    "another database or schema",
                    "NEW_DATABASE media3watch import --from-media3watch postgresql://",
                ] {
                    assert!(error.contains(way), "no {way:?} in {error}");
                }
            }
            assert!(output.stdout.is_empty());
            assert_eq!(contents(&database).await, before, "{command}");
        }
    }
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let database = Database::new().await;
    assert!(run(&database, "migrate").await.status.success());
    let before = contents(&database).await;
    let again = run(&database, "migrate").await;
    assert_eq!(String::from_utf8_lossy(&again.stdout), "the schema is up to date (version 8)\n");
    assert_eq!(contents(&database).await, before);
}
