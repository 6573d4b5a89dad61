//! The role that Grafana reads with: it may select from what dashboards show, and from no other
//! table of ours.
//!
//! Whoever may look at a dashboard can send any SQL through its data source. What the role is
//! granted is the wall: no keys, no refused bodies, no writing to our tables. Its time limits
//! and its read-only transactions are defaults that keep honest people from accidents. What every
//! role may do, and fill the disk with, is taken from all: temporary tables and large objects.

use std::time::Duration;

use postgres_protocol::password::scram_sha_256;
use secrecy::{ExposeSecret, SecretString};
use sqlx::AssertSqlSafe;

use super::lease::Lease;
use super::{Error, LOCK, Store};

const GRANT_TIMEOUT: Duration = Duration::from_secs(10);

/// What dashboards, alerts and people's own panels read. `timeline_chunks`, because Citus runs a
/// view's query with the rights of who asks.
const READABLE: &str = "sessions, session_timeline, timeline_chunks, session_qoe, rollups, \
    rollup_blocks, rollup_touches, own_dimensions, refused_reports, backend_minutes, job_runs";

/// Takes the functions of large objects from all roles but superusers, who alone may do that.
pub(crate) const REVOKE_LARGE_OBJECTS: &str = r"DO $$ DECLARE f regprocedure; BEGIN
  FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
    AND (proname LIKE 'lo\_%' OR proname IN ('loread', 'lowrite'))
  LOOP EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f); END LOOP;
END $$;";

/// Whether every role may use one of them.
pub(crate) const LARGE_OBJECTS_ARE_PUBLIC: &str = r"
SELECT bool_or(has_function_privilege('public', oid, 'EXECUTE')) FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace
  AND (proname LIKE 'lo\_%' OR proname IN ('loread', 'lowrite'))";

/// Name and password of the role.
#[derive(Debug, Clone)]
pub struct Reader {
    /// `GRAFANA_DB_USER`: lower-case letters, digits and `_`, as checked by the configuration.
    pub user: String,
    /// `GRAFANA_DB_PASSWORD`
    pub password: SecretString,
}

impl Store {
    /// Creates the role, or sets its password and rights anew. Returns whether it can log in
    /// and read now, as far as we know. What stands in the way is logged with what to do about
    /// it: no report is lost for want of a dashboard.
    pub async fn grant_reader(&self, reader: &Reader) -> bool {
        let role = &reader.user;
        match self.within(GRANT_TIMEOUT, "grant_reader", self.try_grant(reader)).await {
            Ok(Granted::Made) => tracing::info!(role, "role for Grafana created"),
            Ok(Granted::Refreshed) => tracing::debug!(role, "role for Grafana is up to date"),
            Ok(Granted::Theirs) => tracing::warn!(
                role,
                "the role in GRAFANA_DB_USER was not made by this server for this database: it \
                 may read now, its password was left as it is"
            ),
            Err(error) => {
                tracing::error!(
                    %error,
                    role,
                    "the role for Grafana could not be set up; docs/grafana.md shows how to \
                     create it by hand"
                );
                return false;
            }
        }
        true
    }

    async fn try_grant(&self, reader: &Reader) -> Result<Granted, Error> {
        let mut connection = self.pool.connect().await?;
        let granted = grant(&mut connection, &reader.user, &reader.password).await;
        // An open transaction ends with its connection.
        drop(connection);
        granted
    }
}

enum Granted {
    Made,
    Refreshed,
    Theirs,
}

async fn grant(
    connection: &mut Lease,
    user: &str,
    password: &SecretString,
) -> Result<Granted, Error> {
    // Instances that start together would change the same rows of the catalogue.
    connection.begin(LOCK).await?;
    // Roles are the cluster's, so ours are known by a comment with the name of the database.
    let (database, schema, mark, found): (String, String, String, Option<String>) = sqlx::query_as(
        "SELECT quote_ident(current_database()), quote_ident(current_schema()::text),
                    quote_literal('Media3Watch, reads database ' || current_database()),
                    (SELECT coalesce(quote_literal(shobj_description(oid, 'pg_authid')), '')
                     FROM pg_roles WHERE rolname = $1)",
    )
    .bind(user)
    .fetch_one(&mut **connection)
    .await?;
    let granted = match &found {
        None => Granted::Made,
        Some(found) if *found == mark => Granted::Refreshed,
        Some(_) => Granted::Theirs,
    };
    let mut sql = String::new();
    if !matches!(granted, Granted::Theirs) {
        // Roles take no parameters. The name is a plain one, and of the password only a verifier
        // (RFC 5803) is sent, of base64, $ and colons: Postgres may write the statement to its
        // log.
        let verifier = scram_sha_256(password.expose_secret().as_bytes());
        let verb = if found.is_none() { "CREATE" } else { "ALTER" };
        sql = format!(
            r#"{verb} ROLE "{user}" LOGIN NOINHERIT CONNECTION LIMIT 20 PASSWORD '{verifier}';
               COMMENT ON ROLE "{user}" IS {mark};
               ALTER ROLE "{user}" RESET ALL;
               ALTER ROLE "{user}" SET default_transaction_read_only = on;
               ALTER ROLE "{user}" SET statement_timeout = '15s';
               ALTER ROLE "{user}" SET search_path = {schema};
               ALTER ROLE "{user}" SET lock_timeout = '5s';
               ALTER ROLE "{user}" SET idle_in_transaction_session_timeout = '15s';
               REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM "{user}";"#
        );
    }
    sql.push_str(&format!(
        r#"GRANT CONNECT ON DATABASE {database} TO "{user}";
           GRANT USAGE ON SCHEMA {schema} TO "{user}";
           GRANT SELECT ON {READABLE} TO "{user}";"#
    ));
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **connection).await?;
    revoke_from_all(connection, &database).await?;
    connection.commit().await?;
    Ok(granted)
}

/// Revokes from PUBLIC, and so from Grafana's role, what this role may revoke; logs the rest.
async fn revoke_from_all(connection: &mut Lease, database: &str) -> Result<(), Error> {
    let (temporary, is_owner, is_superuser): (bool, bool, bool) = sqlx::query_as(
        "SELECT has_database_privilege('public', datname, 'TEMPORARY'),
                pg_has_role(current_user, datdba, 'USAGE'),
                (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
         FROM pg_database WHERE datname = current_database()",
    )
    .fetch_one(&mut **connection)
    .await?;
    let large_objects: bool =
        sqlx::query_scalar(LARGE_OBJECTS_ARE_PUBLIC).fetch_one(&mut **connection).await?;
    let revoke_temporary = format!("REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;");
    let (mut left, mut revoked) = (Vec::new(), Vec::new());
    for (is_public, may_revoke, sql) in [
        (temporary, is_owner, revoke_temporary.as_str()),
        (large_objects, is_superuser, REVOKE_LARGE_OBJECTS),
    ] {
        if is_public && may_revoke {
            sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut **connection).await?;
            revoked.push(sql);
        } else if is_public {
            left.push(sql);
        }
    }
    if !revoked.is_empty() {
        tracing::warn!(
            statements = revoked.join("\n"),
            "every role of this database could make temporary tables or large objects, and fill the \
             disk with them, the role for Grafana too: that right was revoked. Where another \
             application needs it, grant it to its role (GRANT instead of REVOKE, TO that role \
             instead of FROM PUBLIC)"
        );
    }
    if !left.is_empty() {
        tracing::warn!(
            statements = left.join("\n"),
            "the role for Grafana can make temporary tables or large objects, and fill the disk \
             with them: to prevent that, run the statements as a superuser in this database"
        );
    }
    Ok(())
}
