//! The view `session_qoe`. Its own dimensions are configuration, so it is made at the start of a
//! server, not by a migration.

use std::collections::HashSet;
use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};

use super::Error;
use super::own_dimensions::{OwnDimension, columns, quote_ident, quote_literal};
use super::write::column_names;

const TEMPLATE: &str = include_str!("sql/session_qoe.sql");

/// Whether `sessions` or `session_qoe` has a column of this name, own dimensions aside.
#[must_use]
pub fn is_column(name: &str) -> bool {
    static NAMES: LazyLock<HashSet<&str>> = LazyLock::new(|| {
        // The terms of the view are its columns that have an alias.
        let word = |c: char| c.is_ascii_lowercase() || c == '_';
        let terms = TEMPLATE.split(" AS ").skip(1).map(|rest| rest.split(|c| !word(c)).next());
        column_names().chain(terms.flatten()).collect()
    });
    NAMES.contains(name)
}

/// The statements that make the view.
struct Definition {
    sql: String,
    /// Stands in the comment on the view's rule, so that a server knows whether it would change
    /// anything. A dump leaves it out, and the view is then made again.
    version: String,
}

impl Definition {
    fn of(own: &[OwnDimension]) -> Self {
        let columns: Vec<String> = columns(own, "")
            .map(|(name, value)| format!("{value} AS {}", quote_ident(name)))
            .collect();
        let comments: Vec<String> = own
            .iter()
            .filter(|own| own.is_dimension())
            .map(|own| {
                let comment = quote_literal(&format!("Own dimension: {} of the report", own.path));
                format!("COMMENT ON COLUMN session_qoe.{} IS {comment};", quote_ident(&own.name))
            })
            .collect();
        let sql = TEMPLATE
            .replace("{own}", &columns.join(", "))
            .replace("{comments}", &comments.join("\n"));
        let digest = Sha256::digest(sql.as_bytes());
        let version = u64::from_be_bytes(*digest.first_chunk().expect("32 bytes"));
        Self { sql, version: format!("version {version:016x}") }
    }
}

/// Whether the view is as these own dimensions want it.
pub(super) async fn is_current(
    connection: &mut PgConnection,
    own: &[OwnDimension],
) -> Result<bool, Error> {
    let is_current = sqlx::query_scalar(
        "SELECT EXISTS (
           SELECT FROM pg_rewrite WHERE ev_class = to_regclass('session_qoe') AND rulename = '_RETURN'
             AND obj_description(oid, 'pg_rewrite') = $1)",
    );
    Ok(is_current.bind(Definition::of(own).version).fetch_one(connection).await?)
}

/// Makes the view as `own` wants it, where it was made for `before`; within a transaction. Views
/// that others have made of it stay, unless a column of ours has moved: then there must be none.
pub(super) async fn make(
    connection: &mut PgConnection,
    before: &[OwnDimension],
    own: &[OwnDimension],
) -> Result<(), Error> {
    if is_current(connection, own).await? {
        return Ok(());
    }
    let Definition { sql, version } = Definition::of(own);
    let sql = format!(r#"{sql}; COMMENT ON RULE "_RETURN" ON session_qoe IS '{version}'"#);
    let renamed: Vec<String> = renamed(before, own)
        .map(|(old, new)| {
            let (old, new) = (quote_ident(old), quote_ident(new));
            format!("ALTER VIEW session_qoe RENAME COLUMN {old} TO {new};")
        })
        .collect();
    execute(connection, "SAVEPOINT session_qoe").await?;
    match execute(connection, &format!("{} {sql}", renamed.concat())).await {
        Err(error) if error.is_of_view_columns() => {
            let anew = format!("ROLLBACK TO session_qoe; DROP VIEW session_qoe; {sql}");
            execute(connection, &anew).await
        }
        replaced => replaced,
    }
}

/// Old and new names of the slots that changed hands.
fn renamed<'a>(
    before: &'a [OwnDimension],
    own: &'a [OwnDimension],
) -> impl Iterator<Item = (&'a str, &'a str)> {
    own.iter().filter_map(|new| {
        let old = before.iter().find(|old| old.slot == new.slot && old.name != new.name)?;
        Some((old.name.as_str(), new.name.as_str()))
    })
}

/// Statements made of our own text and of names that are quoted.
async fn execute(connection: &mut PgConnection, sql: &str) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_terms_are_known() {
        for name in ["session_key", "timestamp", "tenant_id", "payload", "viewer_id", "dimension_8"]
        {
            assert!(is_column(name), "{name}");
        }
        for name in ["watched_ms", "failed", "playback_success_score", "bad"] {
            assert!(is_column(name), "{name}");
        }
        assert!(!is_column("cdn") && !is_column("") && !is_column("session"));
    }
}
