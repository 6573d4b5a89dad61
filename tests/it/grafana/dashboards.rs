//! Every query of every panel, variable and annotation, as Grafana would ask it: on an empty and
//! on a filled database, for four time ranges and four ways to choose the variables' values.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{AssertSqlSafe, Column as _, Executor as _, Row as _, SqlSafeStr as _, Statement as _};
use sqlx::{TypeInfo as _, ValueRef as _};

use super::filled::{Seen, empty, filled};
use super::macros::{Context, expand};
use super::queries::{self, Query, RANGES};

/// Values of variables by name.
type Chosen = BTreeMap<String, Vec<String>>;

/// Panels that show something on a filled database at 7 and at 30 days, whatever they are about.
const MAY_BE_EMPTY: [&str; 0] = [];

/// What came back.
struct Found {
    columns: Vec<(String, String)>,
    rows: Vec<PgRow>,
}

async fn ask(pool: &PgPool, sql: &str) -> Result<Found, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    // The columns are there even when no row is.
    let statement = connection.prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await?;
    let columns = statement.columns().iter();
    let columns = columns.map(|c| (c.name().to_owned(), c.type_info().name().to_owned())).collect();
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut *connection).await?;
    Ok(Found { columns, rows })
}

/// What Grafana needs of the columns and rows of a format; it fails as the plugin would.
fn check(query: &Query, found: &Found) -> Result<(), String> {
    let Found { columns, rows } = found;
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    if unique.len() != names.len() {
        return Err(format!("a column twice: {names:?}"));
    }
    // Each column has a name and a unit for people; names of series come with the rows.
    let is_named = |name: &&&str| **name != "time" && !names.contains(&"metric");
    if let Some(bare) = names.iter().filter(is_named).find(|name| !query.is_looked_after(name)) {
        return Err(format!("nothing says how {bare} looks"));
    }
    match query.format.as_str() {
        "time_series" => check_series(columns, rows),
        "variable" if names.len() != 1 => Err("a variable needs one column".to_owned()),
        "annotation" if !["time", "text", "tags"].iter().all(|name| names.contains(name)) => {
            Err(format!("columns {names:?}"))
        }
        _ => Ok(()),
    }
}

fn check_series(columns: &[(String, String)], rows: &[PgRow]) -> Result<(), String> {
    let mut texts = 0;
    for (name, kind) in columns {
        match (name.as_str(), kind.as_str()) {
            ("time", "TIMESTAMPTZ" | "FLOAT8" | "NUMERIC")
            | (_, "INT2" | "INT4" | "INT8" | "FLOAT4" | "FLOAT8" | "NUMERIC") => {}
            (_, "TEXT" | "VARCHAR") => texts += 1,
            _ => return Err(format!("{name} is of type {kind}")),
        }
    }
    if columns.first().is_none_or(|(name, _)| name != "time") || texts > 1 {
        return Err(format!("columns {columns:?}"));
    }
    if texts == 1 && (columns.len() != 3 || columns[1].0 != "metric") {
        return Err("a series with names has the columns time, metric and a number".to_owned());
    }
    let mut last = None;
    for row in rows {
        let raw = row.try_get_raw(0).map_err(|error| error.to_string())?;
        if raw.is_null() {
            return Err("a time that is null".to_owned());
        }
        // As Postgres writes them, times of one session time zone sort as texts; numbers do not.
        let text = raw.as_str().map_err(|error| error.to_string())?.to_owned();
        let number = text.parse::<f64>().ok();
        let is_later = match (&last, number) {
            (None, _) => true,
            (Some((_, Some(last))), Some(number)) => *last <= number,
            (Some((last, _)), _) => *last <= text,
        };
        if !is_later {
            return Err(format!("{text} comes after a later time"));
        }
        last = Some((text, number));
    }
    Ok(())
}

/// Asks every query in every way; gives how often, or what went wrong.
async fn ask_all(seen: &Seen, ways: &[Chosen], needs_rows: bool) -> usize {
    let pool = seen.pool();
    let queries = queries::all();
    let mut asked = Vec::new();
    for query in &queries {
        for (way, chosen) in ways.iter().enumerate() {
            for hours in RANGES {
                asked.push((query, way, chosen, hours));
            }
        }
    }
    let count = asked.len();
    let results = stream::iter(asked).map(async |(query, way, chosen, hours)| {
        let place = format!("{} ({hours} h, way {way})", query.place());
        let context = query.context(seen.now_ms, hours, chosen);
        let sql = expand(&query.sql, &context).map_err(|error| format!("{place}: {error}"))?;
        let found = ask(&pool, &sql).await;
        let found = found.map_err(|error| format!("{place}: {error}\n{sql}"))?;
        check(query, &found).map_err(|error| format!("{place}: {error}\n{sql}"))?;
        let may_be_empty = MAY_BE_EMPTY.contains(&query.name.as_str());
        let is_asked_for_all = way == 0 && hours >= 24 * 7 && !may_be_empty;
        if needs_rows && is_asked_for_all && found.rows.is_empty() {
            return Err(format!("{place}: no rows\n{sql}"));
        }
        Ok(())
    });
    let results: Vec<Result<(), String>> = results.buffer_unordered(6).collect().await;
    let wrong: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(
        wrong.is_empty(),
        "{} of {count} failed:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(3)].join("\n\n")
    );
    count
}

/// All, one, several and an odd value of each variable; of text boxes what is in them.
fn ways(values: &BTreeMap<String, Vec<String>>, session: &str) -> Vec<Chosen> {
    let all = Chosen::from([("session_id".to_owned(), vec![session.to_owned()])]);
    let mut ways = vec![all];
    for count in [1, 3] {
        let chosen = values.iter().map(|(name, values)| {
            (name.clone(), values.iter().take(count).cloned().collect::<Vec<_>>())
        });
        let mut chosen: Chosen = chosen.filter(|(_, values)| !values.is_empty()).collect();
        // Not an id: what sessions have in common.
        chosen.insert("search".to_owned(), vec!["Wi-Fi".to_owned()]);
        chosen.insert("session_id".to_owned(), vec!["nobody's".to_owned()]);
        ways.push(chosen);
    }
    let odd = ["tenant", "stream_type", "app_version", "device_model", "content_id", "instance"];
    let odd = odd.into_iter().chain(["search", "session_id", "disk_gb", "dimension", "sort"]);
    ways.push(odd.map(|name| (name.to_owned(), vec!["L'été; '' %".to_owned()])).collect());
    ways
}

#[tokio::test]
async fn on_an_empty_database_every_query_has_its_columns_and_no_error() {
    let seen = empty().await;
    let count = ask_all(&seen, &ways(&Chosen::new(), ""), false).await;
    assert!(count >= 600, "{count}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_filled_database_every_query_finds_something() {
    let seen = filled().await;
    let pool = seen.pool();
    let mut values = Chosen::new();
    for query in queries::all().iter().filter(|query| query.format == "variable") {
        let context = query.context(seen.now_ms, 24 * 30, &Chosen::new());
        let found = ask(&pool, &expand(&query.sql, &context).expect("fine")).await.expect("fine");
        let texts = found.rows.iter().map(|row| row.get::<String, _>(0)).collect();
        values.insert(query.name.clone(), texts);
    }
    assert!(values["app_version"].len() >= 3 && values["tenant"] == ["default"], "{values:?}");
    let session: String = sqlx::query_scalar("SELECT session_id FROM session_timeline LIMIT 1")
        .fetch_one(&pool)
        .await
        .expect("a timeline");
    let began = Instant::now();
    let count = ask_all(seen, &ways(&values, &session), true).await;
    assert!(count >= 600, "{count}");
    assert!(began.elapsed() < Duration::from_mins(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn every_choice_of_every_list_is_understood() {
    let seen = filled().await;
    let pool = seen.pool();
    let mut asked = 0;
    for query in queries::all() {
        let lists = query.variables.iter().filter(|variable| variable.kind == "custom");
        let is_read = |name: &str| query.sql.contains(&format!("${{{name}:"));
        for variable in lists.filter(|variable| is_read(&variable.name)) {
            let mut answers = Vec::new();
            for option in &variable.options {
                let mut chosen = Chosen::from([(variable.name.clone(), vec![option.clone()])]);
                if variable.name == "worst" {
                    // Enough values, and enough sessions of each, that no two orders are the same.
                    chosen.insert("dimension".to_owned(), vec!["device".to_owned()]);
                }
                let context = query.context(seen.now_ms, 24 * 30, &chosen);
                let sql = expand(&query.sql, &context).expect("fine");
                let found = ask(&pool, &sql).await.expect(&sql);
                assert!(!found.rows.is_empty(), "{} of {}", option, query.place());
                let cells = found.rows.iter().take(200).map(|row| {
                    let cells = (0..row.len()).map(|n| {
                        let raw = row.try_get_raw(n).expect("there");
                        if raw.is_null() { "" } else { raw.as_str().expect("text") }.to_owned()
                    });
                    cells.collect::<Vec<_>>().join("\t")
                });
                answers.push(cells.collect::<Vec<_>>().join("\n"));
                asked += 1;
            }
            // A choice that nothing in the SQL knows would answer as another does.
            let all = answers.len();
            answers.sort();
            answers.dedup();
            assert_eq!(answers.len(), all, "{}: choices of {}", query.place(), variable.name);
        }
    }
    assert!(asked >= 20, "{asked}");
}

#[test]
fn the_panels_in_the_guide_are_those_that_there_are() {
    crate::docs::check_block("docs/grafana.md", "panels", &media3watch::grafana::reference());
}

#[tokio::test]
async fn the_sql_of_the_guide_runs() {
    let seen = filled().await;
    let pool = seen.pool();
    // The field of its own that the guide asks for is one that the simulator does not send.
    let context = Context::dashboard(seen.now_ms - 7 * 86_400_000, seen.now_ms);
    let mut statements = 0;
    for sql in crate::docs::blocks("docs/grafana.md", "sql") {
        let sql = expand(sql.trim().trim_end_matches(';'), &context).expect(&sql);
        let found = ask(&pool, &sql).await.expect(&sql);
        assert!(!found.rows.is_empty() || sql.contains("custom"), "{sql}");
        statements += 1;
    }
    assert_eq!(statements, 4);
}
