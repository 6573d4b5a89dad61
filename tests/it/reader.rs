//! Grafana's role: made by the server, refreshed by the next start, and able to read only.

use std::time::Duration;

use media3watch::store::Reader;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};

use crate::support::{Binary, Cluster, Database, Server, ServerOptions, now_ms};

async fn server(database: &Database, user: &str, password: &str) -> Server {
    let env =
        vec![("GRAFANA_DB_USER", user.to_owned()), ("GRAFANA_DB_PASSWORD", password.to_owned())];
    Server::with(ServerOptions { env, ..ServerOptions::default() }, database).await
}

/// Runs a statement as the role: the first value, or SQLSTATE.
async fn try_as(options: &PgConnectOptions, sql: &str) -> Result<String, String> {
    let code = |error: sqlx::Error| {
        let code = error.as_database_error().and_then(|error| Some(error.code()?.into_owned()));
        code.unwrap_or_else(|| panic!("{error}"))
    };
    let mut connection = options.connect().await.map_err(code)?;
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await;
    let rows = rows.map_err(code)?;
    Ok(rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or_default())
}

#[tokio::test]
async fn grafana_reads_what_dashboards_show_and_nothing_else() {
    let database = Database::new().await;
    let server = server(&database, "reader_reads", "secret").await;
    let body = format!(r#"{{"sessionId":"s","timestamp":{}}}"#, now_ms());
    assert_eq!(server.post(body).await.status, 200);
    assert_eq!(server.post("{}").await.status, 400);

    let reader = database.options().username("reader_reads");
    for (sql, expected) in [
        ("SELECT session_id FROM sessions", "s"),
        ("SELECT session_id FROM session_qoe", "s"),
        ("SELECT count(*)::text FROM session_timeline", "0"),
        ("SELECT field FROM refused_reports", "$.sessionId"),
        ("SELECT (count(*) >= 0)::text FROM backend_minutes", "true"),
        ("SELECT (count(*) >= 0)::text FROM job_runs", "true"),
        ("SELECT (wilson_low(1, 2) > 0)::text", "true"),
        ("SHOW statement_timeout", "15s"),
        ("SHOW transaction_read_only", "on"),
    ] {
        assert_eq!(try_as(&reader, sql).await.as_deref(), Ok(expected), "{sql}");
    }
    let (forbidden, read_only) = ("42501", "25006");
    let writable = "START TRANSACTION READ WRITE";
    for sql in [
        "CREATE TEMPORARY TABLE mine ()",
        "SELECT lo_create(0)",
        "SELECT lo_creat(-1)",
        "SELECT lo_from_bytea(0, '')",
        "SELECT lo_import('/dev/null')",
        "SELECT lo_put(1, 0, '')",
        "SELECT lo_open(1, 131072)",
        "SELECT lowrite(0, '')",
        "SELECT lo_truncate64(0, 0)",
        "SELECT lo_unlink(1)",
    ] {
        let sql = format!("{writable}; {sql}");
        assert_eq!(try_as(&reader, &sql).await, Err(forbidden.to_owned()), "{sql}");
    }
    for (sql, expected) in [
        ("SELECT body FROM rejected_reports", forbidden),
        ("SELECT * FROM session_times", forbidden),
        ("SELECT * FROM _sqlx_migrations", forbidden),
        // Who holds it keeps others from making partitions.
        ("BEGIN; LOCK TABLE server_lock IN ACCESS SHARE MODE", forbidden),
        ("SELECT rolpassword FROM pg_authid", forbidden),
        ("DELETE FROM sessions", read_only),
        ("CREATE TABLE mine ()", read_only),
        ("SET default_transaction_read_only = off; CREATE TABLE public.mine ()", read_only),
        ("START TRANSACTION READ WRITE; CREATE TABLE public.mine ()", forbidden),
        ("START TRANSACTION READ WRITE; INSERT INTO job_runs DEFAULT VALUES", forbidden),
        ("START TRANSACTION READ WRITE; UPDATE session_qoe SET content_id = ''", forbidden),
    ] {
        assert_eq!(try_as(&reader, sql).await, Err(expected.to_owned()), "{sql}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_password_is_the_one_of_the_last_start_and_is_not_in_any_log() {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.expect("a cluster");
    let database = Database::within(&cluster).await;
    cluster.ask_password("reader_login");
    // Of the database, which wins over the command line of the cluster.
    for setting in ["log_statement = 'all'", "log_min_messages = 'log'"] {
        database.execute(&format!("ALTER DATABASE {} SET {setting}", database.name())).await;
    }
    database.execute("SELECT pg_reload_conf()").await;
    let login = |password: &str| {
        let options = database.options().username("reader_login").password(password);
        async move { try_as(&options, "SELECT current_user::text").await }
    };
    for (password, former) in [("first canary '$", "none"), ("second canary", "first canary '$")] {
        let server = server(&database, "reader_login", password).await;
        assert_eq!(login(password).await.as_deref(), Ok("reader_login"));
        assert_eq!(login(former).await, Err("28P01".to_owned()));
        server.stop().await;
    }
    let log = cluster.log();
    for part in ["CREATE ROLE \"reader_login\"", "ALTER ROLE \"reader_login\"", "SCRAM-SHA-256$"] {
        assert!(log.contains(part), "no {part}: the statements were to be logged: {log}");
    }
    assert!(!log.contains("canary"), "{log}");
}

#[tokio::test]
async fn servers_that_start_together_make_one_role() {
    let server = Server::start().await;
    let reader = reader("reader_once");
    let grants = (0..4).map(|_| server.app.store.grant_reader(&reader));
    let granted = futures_util::future::join_all(grants).await;
    assert_eq!(granted, [true; 4]);
    let roles = "SELECT count(*) FROM pg_roles WHERE rolname = 'reader_once' AND rolcanlogin";
    assert_eq!(server.database.number(roles).await, 1);
}

/// A role that this server did not make for this database keeps its password and settings:
/// roles are the whole cluster's, and `grafana` may be one that Grafana keeps its own data with.
#[tokio::test]
async fn roles_of_others_are_let_in_and_left_alone() {
    let (ours, theirs) = (Server::start().await, Server::start().await);
    ours.database.execute("CREATE ROLE reader_foreign LOGIN CREATEDB PASSWORD 'theirs'").await;
    assert!(theirs.app.store.grant_reader(&reader("reader_of_another")).await);
    let state = "SELECT string_agg(concat_ws('|', rolname, rolpassword, rolconnlimit, setconfig), ',' ORDER BY rolname)
                 FROM pg_authid LEFT JOIN pg_db_role_setting ON setrole = pg_authid.oid
                 WHERE rolname IN ('postgres', 'reader_foreign', 'reader_of_another')";
    let before = ours.database.value(state).await;
    for user in ["postgres", "reader_foreign", "reader_of_another"] {
        assert!(ours.app.store.grant_reader(&reader(user)).await);
        let options = ours.database.options().username(user);
        let read = try_as(&options, "SELECT count(*)::text FROM session_qoe").await;
        assert_eq!(read.as_deref(), Ok("0"), "{user}");
    }
    assert_eq!(ours.database.value(state).await, before);
}

/// An owner that may not create roles serves all the same.
#[tokio::test]
async fn a_role_that_cannot_be_made_stops_nothing() {
    let database = Database::new().await;
    database
        .execute(
            "CREATE ROLE plain_owner LOGIN;
             DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO plain_owner', current_database()); END $$;
             GRANT CREATE, USAGE ON SCHEMA public TO plain_owner WITH GRANT OPTION",
        )
        .await;
    let owned = Database { url: database.url.replace("postgres@", "plain_owner@") };
    let server = server(&owned, "reader_by_hand", "secret").await;
    let body = format!(r#"{{"sessionId":"s","timestamp":{}}}"#, now_ms());
    assert_eq!(server.post(body).await.status, 200);
    assert!(!server.app.store.grant_reader(&reader("reader_by_hand")).await);
    let roles = "SELECT count(*) FROM pg_roles WHERE rolname = 'reader_by_hand'";
    assert_eq!(database.number(roles).await, 0);
    // Made by hand, the role is given what it needs, by the same owner.
    database.execute("CREATE ROLE reader_by_hand LOGIN").await;
    assert!(server.app.store.grant_reader(&reader("reader_by_hand")).await);
    let by_hand = database.options().username("reader_by_hand");
    let read = try_as(&by_hand, "SELECT count(*)::text FROM session_qoe").await;
    assert_eq!(read.as_deref(), Ok("1"));
    // What this owner may not take from all, a superuser does, with the guide's statements.
    let attempts = ["CREATE TEMPORARY TABLE mine ()", "SELECT lo_create(0)"]
        .map(|sql| format!("START TRANSACTION READ WRITE; {sql}"));
    for sql in &attempts {
        assert!(try_as(&by_hand, sql).await.is_ok(), "{sql}");
    }
    let env = [
        ("DATABASE_URL", &*owned.url),
        ("GRAFANA_DB_USER", "reader_by_hand"),
        ("GRAFANA_DB_PASSWORD", "secret"),
    ];
    Binary::serve(&env).logs("REVOKE TEMPORARY ON DATABASE", Duration::from_secs(30));
    let guide = include_str!("../../docs/grafana.md");
    let from = guide.find("REVOKE TEMPORARY").expect("in the guide");
    let revoke = guide[from..].split("```").next().expect("statements");
    database.execute(&revoke.replace("media3watch", database.name())).await;
    for sql in &attempts {
        assert_eq!(try_as(&by_hand, sql).await, Err("42501".to_owned()), "{sql}");
    }
    // The next start finds nothing to revoke, and serves.
    assert!(server.app.store.grant_reader(&reader("reader_by_hand")).await);
    assert_eq!(
        server.post(format!(r#"{{"sessionId":"t","timestamp":{}}}"#, now_ms())).await.status,
        200
    );
    server.stop().await;
}

fn reader(user: &str) -> Reader {
    Reader { user: user.to_owned(), password: "secret".to_owned().into() }
}

/// The owner of a database takes temporary tables from all others, and keeps them itself.
#[tokio::test]
async fn an_owner_revokes_what_it_may() {
    let database = Database::new().await;
    database.execute("CREATE ROLE lone_owner LOGIN CREATEROLE").await;
    database.execute(&format!("ALTER DATABASE {} OWNER TO lone_owner", database.name())).await;
    let owned = Database { url: database.url.replace("postgres@", "lone_owner@") };
    let server = server(&owned, "reader_of_owner", "secret").await;
    let temporary = "START TRANSACTION READ WRITE; CREATE TEMPORARY TABLE mine ()";
    let reader = database.options().username("reader_of_owner");
    assert_eq!(try_as(&reader, temporary).await, Err("42501".to_owned()));
    assert!(try_as(&owned.options(), temporary).await.is_ok());
    server.stop().await;
}
