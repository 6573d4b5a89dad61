use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tokio::time::{Instant, sleep};

use super::cluster::{self, SUPERUSER};
use super::error::Error;
use super::paths::Layout;
use crate::store::{LARGE_OBJECTS_ARE_PUBLIC, REVOKE_LARGE_OBJECTS};

/// The name of the application's role and of its database.
pub(super) const APP: &str = "media3watch";

/// Makes sure that the application's role can open its database, and gives its password. One
/// connection when all is well, which also proves that the server takes connections.
pub(super) async fn ensure(layout: &Layout, port: u16) -> Result<SecretString, Error> {
    let password = cluster::password(&layout.app_password(), APP)?;
    match open(port, APP, APP, &password).await {
        Ok(mut connection) => {
            let is_closed = sqlx::query_scalar::<_, bool>(LARGE_OBJECTS_ARE_PUBLIC)
                .fetch_one(&mut connection)
                .await
                .map(|is_public| !is_public)?;
            connection.close().await?;
            if !is_closed && let Err(error) = close_large_objects(layout, port).await {
                tracing::warn!(%error, "large objects stay open to all roles");
            }
            return Ok(password);
        }
        Err(error) => {
            // On the first start; also after a kill between two steps, or with the password file
            // gone. Every step below may find its work done.
            tracing::debug!(%error, "the application's role cannot connect yet");
        }
    }
    let path = layout.superuser_password();
    let superuser = cluster::password(&path, SUPERUSER)?;
    let mut connection =
        open(port, SUPERUSER, SUPERUSER, &superuser).await.map_err(|error| match &error {
            sqlx::Error::Database(said) if said.code().as_deref() == Some("28P01") => {
                Error::Password { path }
            }
            _ => Error::Database(error),
        })?;
    // Failing statements go to the log, and the next ones hold a password.
    sqlx::raw_sql("SET log_min_error_statement = panic").execute(&mut connection).await?;
    let row = sqlx::query(
        "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1), \
         EXISTS (SELECT FROM pg_database WHERE datname = $1)",
    )
    .bind(APP)
    .fetch_one(&mut connection)
    .await?;
    let verb = if row.get::<bool, _>(0) { "ALTER" } else { "CREATE" };
    // Not a superuser, so that a hole in the application does not become a shell of the server's
    // user. CREATEROLE, because it makes the read-only role for Grafana.
    let sql = format!(
        "{verb} ROLE {APP} LOGIN NOSUPERUSER CREATEROLE PASSWORD '{}'",
        password.expose_secret()
    );
    // Safe: the names are constants, and the password is ours, in hex.
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    if !row.get::<bool, _>(1) {
        // The owner of the database may do as it likes in it, the schema public included.
        sqlx::raw_sql("CREATE DATABASE media3watch OWNER media3watch")
            .execute(&mut connection)
            .await?;
    }
    connection.close().await?;
    close_large_objects(layout, port).await?;
    open(port, APP, APP, &password).await?.close().await?;
    Ok(password)
}

/// Every role may make large objects in a new database, Grafana's too; ours needs none.
async fn close_large_objects(layout: &Layout, port: u16) -> Result<(), Error> {
    let path = layout.superuser_password();
    if !path.is_file() {
        // Reading would make a new one, which opens nothing.
        return Err(Error::Password { path });
    }
    let superuser = cluster::password(&path, SUPERUSER)?;
    let mut connection = open(port, SUPERUSER, APP, &superuser).await?;
    sqlx::raw_sql(REVOKE_LARGE_OBJECTS).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Connects; waits a little while the server is between two states.
async fn open(
    port: u16,
    user: &str,
    database: &str,
    password: &SecretString,
) -> Result<PgConnection, sqlx::Error> {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username(user)
        .password(password.expose_secret())
        .database(database)
        .ssl_mode(PgSslMode::Disable)
        .application_name(APP)
        // sqlx logs statements, slow ones as warnings, and one of ours holds a password.
        .disable_statement_logging();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match options.connect().await {
            Err(error) if is_passing(&error) && Instant::now() < deadline => {
                sleep(Duration::from_millis(20)).await;
            }
            done => return done,
        }
    }
}

fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        // cannot_connect_now: it starts up or shuts down.
        sqlx::Error::Database(said) => said.code().as_deref() == Some("57P03"),
        _ => false,
    }
}
