//! The write path on one Postgres: two functions, each a call, a round trip and a transaction.
//!
//! They belong to the version of the binary, not to the history of the schema: their text is
//! made from the list of columns, their names contain a hash of the text, and a server makes
//! those it calls when it starts. Servers of two versions, during an upgrade, each call their
//! own (docs/adr/0014-the-upsert-is-one-call.md).

use std::collections::HashMap;
use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgArguments, PgHasArrayType, PgTypeInfo};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Row as _, Type};
use uuid::Uuid;

use super::row::{Update, Version, Write, Written, columns};
use crate::store::types::{Json, PgTime};
use crate::store::{Error, LOCK};

/// Type and functions, with `{…}` for what follows from the columns.
const TEMPLATE: &str = include_str!("functions.sql");

struct Functions {
    row_type: &'static str,
    upsert: String,
    definition: String,
    insert_call: &'static str,
    upsert_call: &'static str,
}

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let list = |item: &dyn Fn(&super::row::Column) -> String| {
        columns().map(|column| item(&column)).collect::<Vec<_>>().join(", ")
    };
    let text = TEMPLATE
        .replace("{fields}", &list(&|column| format!("{} {}", column.name, column.sql_type)))
        .replace("{columns}", &list(&|column| column.name.to_owned()))
        .replace("{values}", &list(&|column| format!("r.{}", column.name)))
        .replace("{on_conflict}", &on_conflict());
    let digest = Sha256::digest(text.as_bytes());
    let [a, b, c, d] = [digest[0], digest[1], digest[2], digest[3]];
    let version = format!("{:08x}", u32::from_be_bytes([a, b, c, d]));
    let leak = |text: String| -> &'static str { text.leak() };
    Functions {
        row_type: leak(format!("session_report_{version}")),
        upsert: format!("upsert_reports_{version}"),
        insert_call: leak(format!("SELECT insert_reports_{version}($1, $2, $3, $4)")),
        upsert_call: leak(format!(
            "SELECT key, count, duration_ms, reported_at, settled, added \
             FROM upsert_reports_{version}($1, $2, $3, $4)"
        )),
        definition: text.replace("{version}", &version),
    }
});

/// What becomes of a row that is there: a newer report replaces it. The row is locked either way.
pub(super) fn on_conflict() -> String {
    let updates = columns().filter_map(|column| match column.update {
        Update::Keep => None,
        Update::Replace => Some(format!("{name} = excluded.{name}", name = column.name)),
        Update::To(expression) => Some(format!("{} = {expression}", column.name)),
    });
    format!(
        "ON CONFLICT (session_key, \"timestamp\") DO UPDATE SET {}\n        \
         WHERE (coalesce(s.session_duration_ms, 0), s.reported_at)\n            \
         < (coalesce(excluded.session_duration_ms, 0), excluded.reported_at)",
        updates.collect::<Vec<_>>().join(", ")
    )
}

/// Makes the functions of this version, unless they are there.
pub(in crate::store) async fn ensure(connection: &mut PgConnection) -> Result<(), Error> {
    const IS_THERE: &str = "SELECT to_regproc($1) IS NOT NULL";
    let functions = &*FUNCTIONS;
    let look = || sqlx::query_scalar::<_, bool>(IS_THERE).bind(&functions.upsert);
    if look().fetch_one(&mut *connection).await? {
        return Ok(());
    }
    // Instances that start together would make them twice.
    let begin = format!("BEGIN; {LOCK}");
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await?;
    if !look().fetch_one(&mut *connection).await? {
        let definition = AssertSqlSafe(functions.definition.as_str());
        sqlx::raw_sql(definition).execute(&mut *connection).await?;
    }
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(())
}

impl Type<Postgres> for Write<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name(FUNCTIONS.row_type)
    }
}

impl PgHasArrayType for Write<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::array_of(FUNCTIONS.row_type)
    }
}

/// Writes session times, rows and timeline entries of different sessions, sorted by key, in one
/// call and, unless the connection is in one, one transaction, if all of the sessions are new.
/// Otherwise writes nothing: `false`.
pub(super) async fn insert_reports(
    connection: &mut PgConnection,
    writes: &[Write<'_>],
) -> Result<bool, Error> {
    let response = call(FUNCTIONS.insert_call, writes).fetch_one(connection);
    Ok(response.await?.try_get(0)?)
}

/// The same, whatever the sessions are. What became of each, in order.
pub(super) async fn upsert_reports(
    connection: &mut PgConnection,
    writes: &[Write<'_>],
) -> Result<Vec<Written>, Error> {
    let rows = call(FUNCTIONS.upsert_call, writes).fetch_all(connection).await?;
    let mut written = HashMap::with_capacity(writes.len());
    for row in &rows {
        let duration_ms: Option<i64> = row.try_get(2)?;
        let version =
            Version { duration_ms: duration_ms.unwrap_or(0), reported_at: row.try_get(3)? };
        let key: Uuid = row.try_get(0)?;
        let after = Written {
            count: row.try_get(1)?,
            version,
            timestamp: row.try_get(4)?,
            entries_added: row.try_get(5)?,
        };
        written.insert(key, after);
    }
    in_order(writes, &written)
}

/// The rows of `writes`, one for each.
pub(super) fn in_order(
    writes: &[Write<'_>],
    written: &HashMap<Uuid, Written>,
) -> Result<Vec<Written>, Error> {
    let vanished = || Error::transient("a row vanished while it was written");
    writes.iter().map(|write| written.get(&write.key).copied().ok_or_else(vanished)).collect()
}

/// A call of one of the functions, which take the same.
fn call<'a>(sql: &'static str, writes: &'a [Write<'a>]) -> Query<'a, Postgres, PgArguments> {
    let entries = |write: &'a Write<'_>| write.timeline.as_ref().map(|all| Json(&all.json));
    let has_entries = writes.iter().any(|write| write.timeline.is_some());
    sqlx::query(sql)
        .bind(writes.iter().map(|write| write.key).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| PgTime::from(write.time.timestamp)).collect::<Vec<_>>())
        .bind(writes)
        .bind(has_entries.then(|| writes.iter().map(entries).collect::<Vec<_>>()))
}
