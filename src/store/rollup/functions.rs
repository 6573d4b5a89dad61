//! SQL functions that read the rollups: for panels, and for people.
//!
//! Their names are stable, as panels and people's own SQL hold them. Their text follows the list
//! of measures, so it belongs to the version of the binary: each start replaces functions of
//! another version, which are known by a hash in their comments.

use sha2::{Digest as _, Sha256};
use sqlx::AssertSqlSafe;

use super::dimensions;
use super::measures::{LN_GAMMA, MEASURES, Measure, Term};
use super::read::{DELAY, signed_bin, startup_bin};
use crate::store::lease::Lease;
use crate::store::{Error, LOCK};

/// The functions, with `{…}` for what follows from measures and dimensions.
const TEMPLATE: &str = include_str!("functions.sql");

/// The functions of `functions.sql`.
const NAMES: [&str; 9] = [
    "qoe_dimensions",
    "qoe_condition",
    "qoe_filters",
    "qoe_plan",
    "qoe",
    "qoe_startup",
    "qoe_delay",
    "qoe_values",
    "qoe_step",
];

/// Whether the functions are there, made by somebody who may: any role that could create things
/// in another schema of the search path could otherwise lend us its own.
const ARE_CURRENT: &str = "
    SELECT count(*) = cardinality($1) FROM pg_proc
    WHERE proname = ANY ($1) AND pronamespace = current_schema()::regnamespace
      AND pg_has_role(proowner, 'USAGE')
      AND obj_description(oid, 'pg_proc') LIKE '% [' || $2 || ']'";

/// Drops other versions: arguments and columns may differ. One that a view of somebody's needs
/// stays, and is replaced as far as Postgres allows.
const DROP: &str = "DO $$ DECLARE f regprocedure; BEGIN
  FOR f IN SELECT oid FROM pg_proc
    WHERE proname = ANY ({names}) AND pronamespace = current_schema()::regnamespace
  LOOP
    BEGIN
      EXECUTE format('DROP FUNCTION %s', f);
    EXCEPTION WHEN dependent_objects_still_exist THEN
    END;
  END LOOP;
END $$;";

/// Makes the functions of this version, unless they are there.
pub(in crate::store) async fn ensure(connection: &mut Lease) -> Result<(), Error> {
    connection.open().await?;
    let schema: String = sqlx::query_scalar("SELECT quote_ident(current_schema())")
        .fetch_one(&mut **connection)
        .await?;
    let text = definition(&schema);
    let digest = Sha256::digest(text.as_bytes());
    let version = format!("{:08x}", u32::from_be_bytes(*digest.first_chunk().expect("32 bytes")));
    let are_current =
        || sqlx::query_scalar::<_, bool>(ARE_CURRENT).bind(&NAMES[..]).bind(version.clone());
    let is_done = are_current().fetch_one(&mut **connection).await?;
    connection.close().await?;
    if is_done {
        return Ok(());
    }
    // Instances that start together would make them twice.
    connection.begin(LOCK).await?;
    if !are_current().fetch_one(&mut **connection).await? {
        let names = NAMES.map(|name| format!("'{name}'")).join(", ");
        let drop = DROP.replace("{names}", &format!("ARRAY[{names}]"));
        let sql = format!("{drop}\n{}", text.replace("{version}", &version));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **connection).await?;
    }
    connection.commit().await
}

fn list(item: impl Fn(&Measure) -> String) -> String {
    MEASURES.iter().map(item).collect::<Vec<_>>().join(", ")
}

/// The type of a sum: milliseconds squared, and what players say of frames, do not fit a bigint.
fn sum_type(measure: &Measure) -> &'static str {
    match measure.term {
        Term::Product(..) => "numeric",
        _ if measure.name == "dropped_frames" => "numeric",
        _ => "bigint",
    }
}

/// A text in quotes, within the quotes of a query that is built as text.
fn nested(sql: &str) -> String {
    sql.replace('\'', "''")
}

fn definition(schema: &str) -> String {
    let raw = list(|measure| {
        let sum = match measure.term {
            Term::Count(condition) => format!("count(*) FILTER (WHERE {condition})"),
            Term::Sum(value) => format!("sum({value})"),
            Term::Product(a, b) => format!("sum({a}::numeric * {b})"),
        };
        format!("{sum} AS {}", measure.name)
    });
    let dimensions = dimensions::built_in().into_iter().map(|dimension| {
        let expression = dimension.value.split_whitespace().collect::<Vec<_>>().join(" ");
        format!(
            "        ('{}', '{}', {})",
            dimension.name,
            nested(&expression),
            dimension.only_with_value
        )
    });
    let estimate = |bin: &str| format!("2 * exp({LN_GAMMA} * {bin}) / (exp({LN_GAMMA}) + 1)");
    let signed = |bin: &str| {
        format!(
            "CASE WHEN {bin} = 0 THEN 0 ELSE sign({bin}) * {} END",
            estimate(&format!("abs({bin})"))
        )
    };
    TEMPLATE
        .replace("{schema}", schema)
        .replace("{dimensions}", &dimensions.collect::<Vec<_>>().join(",\n"))
        .replace("{returned}", &list(|measure| format!("{} {}", measure.name, sum_type(measure))))
        .replace("{raw}", &nested(&raw))
        .replace("{kept}", &list(|measure| format!("s.{}", measure.name)))
        .replace(
            "{sums}",
            &list(|measure| {
                let name = measure.name;
                format!("coalesce(sum({name}), 0)::{} AS {name}", sum_type(measure))
            }),
        )
        .replace("{zeros}", &list(|measure| format!("coalesce(s.{}, 0)", measure.name)))
        .replace("{startup_bin}", &nested(&startup_bin()))
        .replace("{delay_bin}", &nested(&signed_bin(DELAY)))
        .replace("{ln_gamma}", LN_GAMMA)
        .replace("{p50}", &estimate("e.p50"))
        .replace("{p75}", &estimate("e.p75"))
        .replace("{p95}", &estimate("e.p95"))
        .replace("{p99}", &estimate("e.p99"))
        .replace("{delay_p50}", &signed("e.p50"))
        .replace("{delay_p95}", &signed("e.p95"))
}
