//! What a database URL asks for is done or refused, and what will not pass is said at once.

use std::process::Output;
use std::time::{Duration, Instant};

use crate::support::{Database, bin};

async fn migrate(url: &str) -> (Output, String) {
    let mut command = tokio::process::Command::from(bin());
    command.env("DATABASE_URL", url).arg("migrate");
    let begin = Instant::now();
    let output = command.output().await.expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(begin.elapsed() < Duration::from_secs(5), "said at once: {error}");
    (output, error)
}

async fn tables_of(database: &Database, schema: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM pg_tables WHERE schemaname = '{schema}'");
    database.number(&sql).await
}

#[tokio::test]
async fn the_schema_of_the_url_is_where_tables_are() {
    for asked in [
        "options=-c%20search_path%3Dqoe",
        "options=-csearch_path%3Dqoe%20-c%20work_mem%3D8MB",
        "search_path=qoe",
        "currentSchema=qoe",
        "schema=qoe",
    ] {
        let database = Database::new().await;
        let url = format!("{}?{asked}", database.url);
        let (output, error) = migrate(&url).await;
        assert_eq!(output.status.code(), Some(1), "{asked}");
        assert!(error.contains("CREATE SCHEMA"), "{error}");
        database.execute("CREATE SCHEMA qoe").await;
        let (output, error) = migrate(&url).await;
        assert!(output.status.success(), "{asked}: {error}");
        assert!(tables_of(&database, "qoe").await > 5, "{asked}");
        assert_eq!(tables_of(&database, "public").await, 0, "{asked}");
    }
}

#[tokio::test]
async fn parameters_that_cannot_be_honoured_are_refused() {
    let database = Database::new().await;
    for asked in ["hostaddr=127.0.0.1", "replication=true", "options=-e", "serch_path=qoe"] {
        let (output, error) = migrate(&format!("{}?{asked}", database.url)).await;
        assert_eq!(output.status.code(), Some(2), "{error}");
        let name = asked.split('=').next().expect("a name");
        assert!(error.contains("DATABASE_URL") && error.contains(name), "{error}");
    }
    assert_eq!(tables_of(&database, "public").await, 0);
}

#[tokio::test]
async fn a_missing_right_is_named_with_what_grants_it() {
    let database = Database::new().await;
    let role = format!("{}_app", database.name());
    database.execute(&format!("CREATE ROLE {role} LOGIN")).await;
    let mut url = url::Url::parse(&database.url).expect("a URL");
    url.set_username(&role).expect("a name");
    // PostgreSQL 15 and newer let only the owner of a database make tables.
    let (output, error) = migrate(url.as_str()).await;
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("permission denied for schema public"), "{error}");
    let grant = format!("GRANT USAGE, CREATE ON SCHEMA public TO {role}");
    let owner = format!("ALTER DATABASE {} OWNER TO {role}", database.name());
    assert!(error.contains(&grant) && error.contains(&owner), "{error}");
    database.execute(&grant).await;
    let (output, error) = migrate(url.as_str()).await;
    assert!(output.status.success(), "{error}");
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn what_is_set_wrong_is_not_waited_for() {
    let database = Database::new().await;
    for (asked, said) in [
        ("sslmode=require", "TLS"),
        ("options=-c%20no_such_setting%3D1", "no_such_setting"),
        ("options=-c%20statement_timeout%3Dsoon", "statement_timeout"),
    ] {
        let (output, error) = migrate(&format!("{}?{asked}", database.url)).await;
        assert_eq!(output.status.code(), Some(1), "{asked}: {error}");
        assert!(error.contains(said), "{asked}: {error}");
    }
    let (output, error) = migrate(&database.url.replace("/test_", "/no_test_")).await;
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("does not exist"), "{error}");
}
