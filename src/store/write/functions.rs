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

use super::row::{COLUMNS, Column, ON_CONFLICT, Write, Written, duration};
use crate::report::Timeline;
use crate::store::error::OTHER_ASSIGNMENT;
use crate::store::lease::Lease;
use crate::store::types::{Json, PgTime};
use crate::store::{Error, LOCK};

/// Type and functions, with `{…}` for what follows from the columns.
const TEMPLATE: &str = include_str!("functions.sql");

/// Whether the functions are there, as somebody made them who may: any role that could create
/// things in another schema of the search path could otherwise lend us its own.
const ARE_THERE: &str = "
    SELECT count(*) = 2 FROM pg_proc
    WHERE proname = ANY($1) AND pronamespace = current_schema()::regnamespace
      AND pg_has_role(proowner, 'USAGE')";

struct Functions {
    row_type: &'static str,
    names: [String; 2],
    definition: String,
    insert: &'static str,
    upsert: &'static str,
}

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let list =
        |item: &dyn Fn(&Column) -> String| COLUMNS.iter().map(item).collect::<Vec<_>>().join(", ");
    let text = TEMPLATE
        .replace("{fields}", &list(&|column| format!("{} {}", column.name, column.sql_type)))
        .replace("{columns}", &list(&|column| column.name.to_owned()))
        .replace("{values}", &list(&|column| format!("r.{}", column.name)))
        .replace("{on_conflict}", &ON_CONFLICT)
        .replace("{returned}", &Written::returned())
        .replace("{duration}", &duration("s"))
        .replace("{other_assignment}", OTHER_ASSIGNMENT);
    let digest = Sha256::digest(text.as_bytes());
    let version = format!("{:08x}", u32::from_be_bytes(*digest.first_chunk().expect("32 bytes")));
    let [insert, upsert] = ["insert", "upsert"].map(|verb| format!("{verb}_reports_{version}"));
    let call = |columns: &str, name: &str, from: &str| -> &'static str {
        format!("SELECT {columns}{from}{name}($1, $2, $3, $4, $5, $6, $7)").leak()
    };
    Functions {
        row_type: format!("session_report_{version}").leak(),
        insert: call("", &insert, ""),
        upsert: call("key, count, duration_ms, reported_at, settled, added", &upsert, " FROM "),
        names: [insert, upsert],
        definition: text.replace("{version}", &version),
    }
});

/// Makes the functions of this version, unless they are there.
pub(in crate::store) async fn ensure(connection: &mut Lease) -> Result<(), Error> {
    let look = || sqlx::query_scalar::<_, bool>(ARE_THERE).bind(&FUNCTIONS.names[..]);
    connection.open().await?;
    let are_there = look().fetch_one(&mut **connection).await?;
    connection.close().await?;
    if are_there {
        return Ok(());
    }
    // Instances that start together would make them twice.
    connection.begin(LOCK).await?;
    if !look().fetch_one(&mut **connection).await? {
        let definition = AssertSqlSafe(FUNCTIONS.definition.as_str());
        sqlx::raw_sql(definition).execute(&mut **connection).await?;
    }
    connection.commit().await
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
    let response = call(FUNCTIONS.insert, writes).fetch_one(connection);
    Ok(response.await?.try_get(0)?)
}

/// The same, whatever the sessions are. What became of each, in order.
pub(super) async fn upsert_reports(
    connection: &mut PgConnection,
    writes: &[Write<'_>],
) -> Result<Vec<Written>, Error> {
    let rows = call(FUNCTIONS.upsert, writes).fetch_all(connection).await?;
    in_order(writes, &rows.iter().map(Written::read).collect::<Result<_, _>>()?)
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
    let has_entries = writes.iter().any(|write| write.timeline.is_some());
    // Null where no report has any.
    let timelines = || {
        let all = writes.iter().map(|write| write.timeline.as_deref());
        has_entries.then(|| all.collect::<Vec<Option<&Timeline>>>())
    };
    let column = |value: fn(&Timeline) -> i64| {
        timelines().map(|all| all.iter().map(|one| one.map(value)).collect::<Vec<_>>())
    };
    let entries = |all: Vec<Option<&'a Timeline>>| {
        all.into_iter().map(|one| one.map(|one| Json(&one.json))).collect::<Vec<_>>()
    };
    sqlx::query(sql)
        .bind(writes.iter().map(|write| write.key).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| PgTime::from(write.time.timestamp)).collect::<Vec<_>>())
        .bind(writes)
        .bind(column(|timeline| timeline.from_ms))
        .bind(column(|timeline| timeline.until_ms))
        .bind(timelines().map(entries))
        // The same for all of a batch.
        .bind(writes.first().and_then(|write| write.writable.assignment))
}
