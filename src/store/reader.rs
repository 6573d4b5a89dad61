//! The role that Grafana reads with: it may select from what dashboards show, and nothing else.
//!
//! Whoever may look at a dashboard can send any SQL through its data source, so this role is
//! the wall: no keys, no refused bodies, no writing, and an end to long statements.

use std::time::Duration;

use postgres_protocol::password::scram_sha_256;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, PgConnection};

use super::{Error, LOCK_CLASS, Store};

const READER_LOCK: i32 = 3;
const GRANT_TIMEOUT: Duration = Duration::from_secs(10);

/// What dashboards, alerts and people's own panels read.
const READABLE: &str =
    "sessions, session_timeline, session_qoe, refused_reports, backend_minutes, job_runs";

/// Name and password of the role.
#[derive(Debug, Clone)]
pub struct Reader {
    /// `GRAFANA_DB_USER`: lower-case letters, digits and `_`, as checked by the configuration.
    pub user: String,
    /// `GRAFANA_DB_PASSWORD`
    pub password: SecretString,
}

impl Store {
    /// Creates the role, or sets its password and rights anew. What stands in the way is logged
    /// with what to do about it: no report is lost for want of a dashboard.
    pub async fn grant_reader(&self, reader: &Reader) {
        let granted = self.within(GRANT_TIMEOUT, "grant_reader", self.try_grant(reader)).await;
        match granted {
            Ok(Granted::Made) => tracing::info!(role = reader.user, "role for Grafana created"),
            Ok(Granted::Refreshed) => {
                tracing::debug!(role = reader.user, "role for Grafana is up to date");
            }
            Ok(Granted::TooMighty) => tracing::error!(
                role = reader.user,
                "the role in GRAFANA_DB_USER may do more than read, or is the server's own: it was \
                 left as it is; choose another name"
            ),
            Err(error) => tracing::error!(
                %error,
                role = reader.user,
                "the role for Grafana could not be set up; docs/grafana.md shows how to create it \
                 by hand"
            ),
        }
    }

    async fn try_grant(&self, reader: &Reader) -> Result<Granted, Error> {
        let mut connection = self.connect().await?;
        let granted = grant(&mut connection, reader).await;
        // An open transaction ends with its connection.
        drop(connection);
        granted
    }
}

enum Granted {
    Made,
    Refreshed,
    TooMighty,
}

async fn grant(connection: &mut PgConnection, reader: &Reader) -> Result<Granted, Error> {
    // Instances that start together would change the same rows of the catalogue.
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1, $2)")
        .bind(LOCK_CLASS)
        .bind(READER_LOCK)
        .execute(&mut *connection)
        .await?;
    let is_mighty: Option<bool> = sqlx::query_scalar(
        "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
                OR rolname IN (current_user, session_user)
                OR EXISTS (SELECT FROM pg_class WHERE relowner = r.oid)
                OR EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid)
         FROM pg_roles r WHERE rolname = $1",
    )
    .bind(&reader.user)
    .fetch_optional(&mut *connection)
    .await?;
    if is_mighty == Some(true) {
        return Ok(Granted::TooMighty);
    }
    let (database, schema): (String, String) = sqlx::query_as(
        "SELECT quote_ident(current_database()), quote_ident(current_schema()::text)",
    )
    .fetch_one(&mut *connection)
    .await?;
    let user = &reader.user;
    // Roles take no parameters. The name is a plain one, and of the password only a verifier
    // (RFC 5803) is sent, of base64, $ and colons: Postgres may write the statement to its log.
    let verifier = scram_sha_256(reader.password.expose_secret().as_bytes());
    let verb = if is_mighty.is_none() { "CREATE" } else { "ALTER" };
    let sql = format!(
        "{verb} ROLE {user} LOGIN NOINHERIT CONNECTION LIMIT 20 PASSWORD '{verifier}';
         ALTER ROLE {user} SET default_transaction_read_only = on;
         ALTER ROLE {user} SET statement_timeout = '15s';
         ALTER ROLE {user} SET lock_timeout = '5s';
         ALTER ROLE {user} SET idle_in_transaction_session_timeout = '15s';
         GRANT CONNECT ON DATABASE {database} TO {user};
         GRANT USAGE ON SCHEMA {schema} TO {user};
         GRANT SELECT ON {READABLE} TO {user};
         COMMIT"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(if is_mighty.is_none() { Granted::Made } else { Granted::Refreshed })
}
