//! How long the queries of the dashboards take:
//!
//! ```sh
//! M3W_BENCH_URL=postgresql://… cargo bench --bench dashboards
//! ```
//!
//! on a database that a server has set up and `media3watch simulate --history 30d --sessions
//! 1000000` has filled. Every query is asked for four ranges up to now, with all filters on All:
//! once to warm up, then five times, of which the median counts. A query is cut off where Grafana's
//! role would be. Arguments: parts of names, for some of the queries only.

#![expect(clippy::disallowed_methods, reason = "a tool for the developer's own machine")]
#![expect(clippy::print_stdout, reason = "it prints a table")]

#[path = "../tests/it/grafana/macros.rs"]
#[allow(dead_code, unreachable_pub)]
mod macros;
#[path = "../tests/it/grafana/queries.rs"]
#[allow(dead_code, unreachable_pub)]
mod queries;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use media3watch::config::DatabaseUrl;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection};

/// What a panel may take.
const BUDGET: Duration = Duration::from_millis(200);
/// Where Grafana's role is cut off.
const LONGEST: Duration = Duration::from_secs(15);
const HOURS: [i64; 4] = [24, 24 * 7, 24 * 30, 24 * 90];
const TIMES: usize = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let url = std::env::var("M3W_BENCH_URL").expect("M3W_BENCH_URL, a PostgreSQL URL");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let options = DatabaseUrl::parse(&url).expect("a PostgreSQL URL").options();
    let mut connection = options.connect().await.expect("the database answers");
    let limit = format!("SET statement_timeout = {}", LONGEST.as_millis());
    sqlx::raw_sql(AssertSqlSafe(limit)).execute(&mut connection).await.expect("a setting");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let now_ms = i64::try_from(now.as_millis()).expect("in range");
    let session: Option<String> =
        sqlx::query_scalar("SELECT session_id FROM session_timeline LIMIT 1")
            .fetch_optional(&mut connection)
            .await
            .expect("a schema");
    let chosen = BTreeMap::from([("session_id".to_owned(), session.into_iter().collect())]);

    let mut rows = Vec::new();
    for query in queries::all() {
        let place = query.place();
        if !wanted.is_empty() && !wanted.iter().any(|part| place.contains(part.as_str())) {
            continue;
        }
        let mut times = Vec::new();
        for hours in HOURS {
            let context = query.context(now_ms, hours, &chosen);
            let sql = macros::expand(&query.sql, &context).expect(&place);
            times.push(median(&mut connection, &sql).await);
        }
        rows.push((times, place));
    }
    rows.sort_by_key(|(times, _)| std::cmp::Reverse(times.iter().max().copied()));
    println!("| query | 24 h | 7 d | 30 d | 90 d |\n|---|---|---|---|---|");
    for (times, place) in &rows {
        let cells: Vec<_> = times.iter().map(|time| cell(*time)).collect();
        println!("| {place} | {} |", cells.join(" | "));
    }
    let slow = rows.iter().filter(|(times, _)| times.iter().any(|time| *time > BUDGET)).count();
    println!("\n{} queries, {slow} over {} ms at any range", rows.len(), BUDGET.as_millis());
}

fn cell(time: Duration) -> String {
    if time >= LONGEST {
        return format!("over {} s", LONGEST.as_secs());
    }
    format!("{} ms", time.as_millis())
}

/// How long a query takes once it is warm; [`LONGEST`] where it is cut off.
async fn median(connection: &mut PgConnection, sql: &str) -> Duration {
    let mut times = Vec::new();
    for _ in 0..=TIMES {
        let began = Instant::now();
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut *connection).await;
        match rows {
            Ok(_) => times.push(began.elapsed()),
            Err(error) if began.elapsed() >= LONGEST => {
                println!("cut off after {} s: {error}", LONGEST.as_secs());
                return LONGEST;
            }
            Err(error) => panic!("{error}\n{sql}"),
        }
        // One that is slow is slow each time.
        if began.elapsed() > LONGEST / 5 {
            return began.elapsed();
        }
    }
    let warm = &mut times[1..];
    warm.sort_unstable();
    warm[warm.len() / 2]
}
