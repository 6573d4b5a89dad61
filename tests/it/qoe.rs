//! qoe() and its siblings: what they read of the rollups is what the sessions say.

use sqlx::AssertSqlSafe;

use crate::support::{Database, Server};

/// The rows of `rollups`, from scratch. With other lengths, also those of longer buckets.
const RECOMPUTED: &str = include_str!("rollups/recomputed.sql");

/// Four thousand sessions of three days that begin at `B`, of two tenants, with gaps in what they
/// report, and hours in which nothing happens.
const SESSIONS: &str = r"
INSERT INTO sessions (session_key, tenant_id, session_id, timestamp, reported_at, received_at, created_at,
    report_count, content_id, stream_type, device_model, app_version, sdk_version, os_version, connection_type,
    clock_skew_ms, player_startup_ms, play_time_ms, rebuffer_time_ms, rebuffer_count, seek_time_ms, seek_count,
    session_duration_ms, error_count, last_error_code, last_error_category, avg_bitrate_kbps, dropped_frames,
    quality_switch_count)
SELECT session_key(tenant, 's-' || n), tenant, 's-' || n, t, t + interval '1 minute',
       t + make_interval(secs => 59 + 0.0173 * (n * 31 % 977)), t, 1 + n % 4,
       CASE WHEN n % 13 > 0 THEN 'film-' || (n * n) % 11 END, (ARRAY['VOD', 'LIVE', NULL])[1 + n % 3],
       CASE WHEN n % 17 > 0 THEN 'device-' || n % 6 END, '1.' || n % 4, CASE WHEN n % 2 = 0 THEN '1.0.1' END,
       (30 + n % 5)::text, CASE WHEN n % 4 > 0 THEN 'Wi-Fi' END, CASE WHEN n % 101 = 0 THEN 9 END,
       CASE WHEN n % 9 > 0 THEN (n * 7919) % 12000 END, CASE WHEN n % 10 > 0 THEN (n * 104729) % 600000 END,
       CASE WHEN n % 5 = 0 THEN (n * 31) % 30000 END, CASE WHEN n % 7 > 0 THEN n % 5 END, n % 1000, n % 3,
       CASE WHEN n % 8 > 0 THEN n * 11 END, CASE WHEN n % 12 = 0 THEN 1 + n % 3 ELSE 0 END,
       CASE WHEN n % 24 = 0 THEN (2000 + n % 5)::text END, CASE WHEN n % 36 = 0 THEN 'NETWORK' END,
       CASE WHEN n % 6 > 0 THEN 500 + n % 5000 END, n % 50, n % 4
FROM generate_series(1, 4000) AS n,
     LATERAL (SELECT (SELECT b FROM base) + make_interval(secs => (n * 6007) % 259200)) AS m (t),
     LATERAL (SELECT CASE WHEN n % 5 = 0 THEN 'studio' ELSE 'default' END) AS o (tenant)
WHERE date_part('hour', t AT TIME ZONE 'UTC') NOT IN (3, 4, 13)";

/// Figures as the formulas of docs/sql.md make them of sessions.
const DIRECT: &str = r#"
    count(*) AS sessions, min("timestamp") AS first_at, max("timestamp") AS last_at,
    count(*) FILTER (WHERE bad) AS bad, count(player_startup_ms) AS started,
    coalesce(sum(watched_ms), 0) AS watched_ms, coalesce(sum(dropped_frames), 0) AS dropped_frames,
    coalesce(sum(rebuffer_time_ms::numeric * watched_ms), 0) AS rebuffer_watched,
    count(*) FILTER (WHERE failed)::float8 / count(*) AS error_rate,
    count(*) FILTER (WHERE start_failed)::float8 / count(*) AS start_failure_rate,
    count(*) FILTER (WHERE exited_before_start)::float8 / count(*) AS exit_rate,
    count(*) FILTER (WHERE start_failed OR exited_before_start)::float8 / count(*) AS never_started_rate,
    count(*) FILTER (WHERE bad)::float8 / count(*) AS trouble_rate,
    coalesce(sum(rebuffer_time_ms), 0)::float8 / nullif(sum(watched_ms), 0) AS rebuffering,
    3600000 * coalesce(sum(rebuffer_count), 0)::float8
      / nullif(sum(watched_ms) FILTER (WHERE rebuffer_count IS NOT NULL), 0) AS rebuffers_per_hour,
    1000 * sum(avg_bitrate_kbps::float8 * play_time_ms)
      / nullif(sum(play_time_ms) FILTER (WHERE avg_bitrate_kbps IS NOT NULL), 0) AS bitrate_bps,
    avg(startup_score) AS startup_score, avg(smoothness_score) AS smoothness_score,
    avg(playback_success_score)::float8 AS success_score,
    percentile_cont(ARRAY[0.5, 0.75, 0.95, 0.99]) WITHIN GROUP (ORDER BY player_startup_ms) AS startup,
    array_agg(player_startup_ms ORDER BY player_startup_ms)
      FILTER (WHERE player_startup_ms IS NOT NULL) AS startups"#;

/// Exact ones, and sums.
const SAME: [&str; 8] = [
    "sessions",
    "first_at",
    "last_at",
    "bad",
    "started",
    "watched_ms",
    "dropped_frames",
    "rebuffer_watched",
];
/// Equal but for the last digits, or for the thousandths that scores are rounded to.
const CLOSE: [&str; 11] = [
    "error_rate",
    "start_failure_rate",
    "exit_rate",
    "never_started_rate",
    "trouble_rate",
    "rebuffering",
    "rebuffers_per_hour",
    "bitrate_bps",
    "startup_score",
    "smoothness_score",
    "success_score",
];

/// Makes the rows of `rollups` that the sessions come to, without longer buckets and without the
/// server's job.
pub async fn fill_rollups(database: &Database) {
    insert(database, RECOMPUTED).await;
}

async fn insert(database: &Database, rows: &str) {
    let insert = format!(
        "INSERT INTO rollups SELECT row.* FROM ({rows}) AS r CROSS JOIN LATERAL
           jsonb_populate_record(NULL::rollups, to_jsonb(r) || '{{\"part\": 0}}') AS row"
    );
    database.execute(&insert).await;
}

async fn filled() -> Database {
    let server = Server::start().await;
    let database = server.database.clone();
    server.stop().await;
    database
        .execute(
            "CREATE VIEW base AS SELECT date_trunc('day', now(), 'UTC') - interval '72 hours' AS b",
        )
        .await;
    database.execute(SESSIONS).await;
    fill_rollups(&database).await;
    for minutes in [360, 1440] {
        let of_totals = format!("('', {minutes},");
        let rows = RECOMPUTED.replace("('', 30,", &of_totals);
        insert(&database, &rows.replace(", 60,", &format!(", {minutes},"))).await;
    }
    database.execute("ANALYZE rollups").await;
    database
}

/// A question to qoe(), and which sessions it is about.
pub struct Question<'a> {
    /// From and to, seconds since column `b` of the relation `base`.
    pub range: (i64, i64),
    /// Where rollups answer, as rounded.
    pub read: (i64, i64),
    pub filters: &'a str,
    pub condition: &'a str,
    pub by: Option<(&'a str, &'a str)>,
    /// As asked, and as read.
    pub step: Option<(&'a str, &'a str)>,
}

pub const HOUR: i64 = 3_600;

impl Question<'_> {
    /// All sessions between two moments in the middle of hours.
    pub fn all<'a>() -> Question<'a> {
        let range = (HOUR + 1_234, 54 * HOUR - 77);
        let read = (HOUR, 54 * HOUR);
        Question { range, read, filters: "{}", condition: "true", by: None, step: None }
    }

    fn arguments(&self) -> String {
        let (from, to) = self.range;
        format!(
            "(SELECT b + interval '{from} seconds' FROM base), (SELECT b + interval '{to} seconds' FROM base), '{}'",
            self.filters
        )
    }

    /// Asserts that qoe() says what the sessions say; how many rows it gave.
    pub async fn check(&self, database: &Database) -> i64 {
        let mut call = self.arguments();
        let (mut value, mut time) = ("''".to_owned(), "timestamptz 'epoch'".to_owned());
        if let Some((by, expression)) = self.by {
            call += &format!(", by => '{by}'");
            value = format!("coalesce({expression}, 'not reported')");
        }
        if let Some((asked, read)) = self.step {
            call += &format!(", step => '{asked}'");
            time = format!("date_bin('{read}', \"timestamp\", 'epoch')");
        }
        let (from, to) = self.read;
        let direct = format!(
            "SELECT {value} AS value, {time} AS \"time\", {DIRECT} FROM session_qoe, base
             WHERE \"timestamp\" >= b + interval '{from} seconds'
               AND \"timestamp\" < b + interval '{to} seconds' AND {}
             GROUP BY 1, 2",
            self.condition
        );
        let same = SAME.map(|name| format!("q.{name} IS DISTINCT FROM d.{name}"));
        let close = CLOSE.map(|name| {
            format!(
                "NOT coalesce(abs(q.{name} - d.{name}) <= 1e-9 * d.{name} + 0.0006,
                                  q.{name} IS NULL AND d.{name} IS NULL)"
            )
        });
        let percentiles = ["p50", "p75", "p95", "p99"].iter().zip([0.5, 0.75, 0.95, 0.99]);
        let percentiles = percentiles.map(|(name, q)| {
            // The value at that rank, rounded down, to 1.5 %.
            let exact = format!("d.startups[1 + floor({q} * (d.started - 1))::integer]");
            format!("NOT coalesce(abs(q.startup_{name}_ms - {exact}) <= 0.01501 * {exact} + 1, d.started = 0)")
        });
        let wrong: Vec<_> = same.into_iter().chain(close).chain(percentiles).collect();
        let sql = format!(
            "SELECT concat('found: ', q, E'\\n  expected: ', to_jsonb(d) - 'startups')
             FROM (SELECT coalesce(value, '') AS v, coalesce(\"time\", 'epoch') AS t, q.*
                   FROM qoe({call}) AS q WHERE sessions > 0) AS q
             FULL JOIN ({direct}) AS d ON q.v = d.value AND q.t = d.\"time\"
             WHERE {} LIMIT 2",
            wrong.join(" OR ")
        );
        let difference = database.lines(&sql).await;
        assert!(difference.is_empty(), "qoe({call}):\n{}", difference.join("\n"));
        database.number(&format!("SELECT count(*) FROM qoe({call})")).await
    }
}

/// Dimensions as `qoe()` calls them, and their values in `session_qoe`.
pub const DIMENSIONS: [(&str, &str); 10] = [
    ("tenant", "tenant_id"),
    ("stream_type", "stream_type"),
    ("app_version", "app_version"),
    ("sdk_version", "sdk_version"),
    ("device_model", "device_model"),
    ("os_version", "os_version"),
    ("connection_type", "connection_type"),
    ("content_id", "content_id"),
    ("error_category", "CASE WHEN failed THEN last_error_category ELSE 'no error' END"),
    ("error_code", "CASE WHEN failed THEN last_error_code ELSE 'no error' END"),
];

/// All questions, however the rows lie.
async fn ask_everything(database: &Database) {
    assert_eq!(Question::all().check(database).await, 1);
    for by in DIMENSIONS {
        let rows = Question { by: Some(by), ..Question::all() }.check(database).await;
        assert!(rows > 1, "{by:?}");
    }
    let errors = "concat(last_error_category, ' ', last_error_code)";
    let failed = Question { by: Some(("error", errors)), condition: "failed", ..Question::all() };
    assert!(failed.check(database).await > 3);
    for (filters, condition) in [
        (r#"{"tenant": "studio"}"#, "tenant_id = 'studio'"),
        (r#"{"stream_type": ["not reported", "LIVE"]}"#, "coalesce(stream_type, 'LIVE') = 'LIVE'"),
        (
            r#"{"content_id": ["film-1", "not reported"]}"#,
            "coalesce(content_id, 'film-1') = 'film-1'",
        ),
        (
            r#"{"tenant": ["__all__"], "app_version": ["$__all"], "device_model": [], "error": null}"#,
            "true",
        ),
        (
            r#"{"tenant": "default", "app_version": "1.1"}"#,
            "tenant_id = 'default' AND app_version = '1.1'",
        ),
        (r#"{"error_code": "2002"}"#, "failed AND last_error_code = '2002'"),
        (r#"{"error_category": "not reported"}"#, "failed AND last_error_category IS NULL"),
    ] {
        let question = Question { filters, condition, ..Question::all() };
        question.check(database).await;
        let by = Some(("stream_type", "stream_type"));
        Question { by, ..question }.check(database).await;
    }
    let one = (r#"{"app_version": ["1.1", "1.2"]}"#, "app_version IN ('1.1', '1.2')");
    let by = Some(("app_version", "app_version"));
    let of_itself = Question { filters: one.0, condition: one.1, by, ..Question::all() };
    assert_eq!(of_itself.check(database).await, 2);
    for step in [
        ("5 minutes", "30 minutes"),
        ("45 minutes", "1 hour"),
        ("2 hours", "2 hours"),
        ("6 hours", "6 hours"),
        ("12 hours", "12 hours"),
        ("1 day", "1 day"),
        ("7 days", "7 days"),
    ] {
        let question = Question { step: Some(step), ..Question::all() };
        question.check(database).await;
        let shortest = if step.1 == "30 minutes" { "1 hour" } else { step.1 };
        Question { step: Some((step.0, shortest)), by, ..question }.check(database).await;
    }
    // Of two dimensions, only the sessions know, and of the exact range.
    let (from, to) = Question::all().range;
    let exact = Question { read: (from, to + 1), ..Question::all() };
    let (filters, condition) = one;
    let device = Some(("device_model", "device_model"));
    Question { filters, condition, by: device, ..exact }.check(database).await;
    let two = r#"{"app_version": "1.1", "device_model": "device-3"}"#;
    let condition = "app_version = '1.1' AND device_model = 'device-3'";
    let step = Some(("5 minutes", "5 minutes"));
    Question { filters: two, condition, step, ..exact }.check(database).await;
    // So are short ranges.
    let short = Question { range: (7_000, 17_000), read: (7_000, 17_001), ..Question::all() };
    short.check(database).await;
    Question { by: device, step: Some(("1 minute", "1 minute")), ..short }.check(database).await;
}

#[tokio::test]
async fn all_figures_are_those_of_the_sessions() {
    let database = filled().await;
    ask_everything(&database).await;
    // The second day, and of the first and the third day 6 hours each; others are not done yet.
    database
        .execute(
            "INSERT INTO rollup_blocks
             SELECT minutes, b + hours * interval '1 hour', is_merged, now() FROM base, (VALUES
               (1440, 24, true), (360, 24, true), (360, 30, true), (360, 6, true), (360, 48, true),
               (1440, 0, false), (360, 12, false), (1440, 48, true)) AS v (minutes, hours, is_merged)",
        )
        .await;
    ask_everything(&database).await;
    // They are read indeed.
    let sessions = |call: &str| {
        let sql =
            format!("SELECT sum(sessions)::bigint FROM qoe({}{call})", Question::all().arguments());
        let database = &database;
        async move { database.number(&sql).await }
    };
    let before = sessions("").await;
    database.execute("UPDATE rollups SET sessions = sessions + 1000 WHERE minutes = 1440").await;
    // Six rows a day: of two tenants and three stream types. The third day is not whole.
    assert_eq!(sessions("").await, before + 6_000);
    assert_eq!(sessions(", step => '1 day'").await, before + 6_000);
    assert_eq!(sessions(", step => '12 hours'").await, before);
    database.execute("UPDATE rollups SET sessions = sessions + 1000 WHERE minutes = 360").await;
    // Begins of 6 and 48 hours, and within the day only where its row does not fit.
    assert_eq!(sessions("").await, before + 6_000 + 12_000);
    assert_eq!(sessions(", step => '6 hours'").await, before + 24_000);
    assert_eq!(sessions(", step => '2 hours'").await, before);
}

#[tokio::test]
async fn gaps_top_values_and_figures_that_are_not_wanted() {
    let database = filled().await;
    let all = Question::all().arguments();
    let empty = format!(
        "SELECT count(*) FROM qoe({all}, step => '1 hour') WHERE sessions = 0 AND first_at IS NULL"
    );
    // 13 o'clock twice, 3 and 4 o'clock three times.
    assert_eq!(database.number(&empty).await, 2 + 3 * 2);
    let top = format!(
        "SELECT string_agg(value, ' ' ORDER BY sessions DESC, value) FROM qoe({all}, by => 'content_id'LAST)"
    );
    let few = database.value(&top.replace("LAST", ", top => 3")).await.expect("a text");
    let many = database.value(&top.replace("LAST", "")).await.expect("a text");
    assert!(many.starts_with(&format!("{few} ")), "{few} {many}");
    assert_eq!(few.split(' ').count(), 3 + few.matches("not reported").count());
    let without = format!(
        "SELECT count(*) FROM qoe({all}, percentiles => false) AS a, qoe({all}) AS b
         WHERE a.startup_p50_ms IS NULL AND b.startup_p50_ms > 0
           AND to_jsonb(a) - ARRAY['startup_p50_ms', 'startup_p75_ms', 'startup_p95_ms', 'startup_p99_ms']
             = to_jsonb(b) - ARRAY['startup_p50_ms', 'startup_p75_ms', 'startup_p95_ms', 'startup_p99_ms']"
    );
    assert_eq!(database.number(&without).await, 1);
    // Nothing at all is one row of nothing, and no row by value.
    let never = "now() - interval '20 years', now() - interval '19 years'";
    let nothing = format!(
        "SELECT count(*) FROM qoe({never}) WHERE sessions = 0 AND failed = 0 AND error_rate IS NULL"
    );
    assert_eq!(database.number(&nothing).await, 1);
    assert_eq!(
        database.number(&format!("SELECT count(*) FROM qoe({never}, by => 'content_id')")).await,
        0
    );
    let ever = "SELECT sessions FROM qoe('-infinity', 'infinity')";
    let count = database.number("SELECT count(*) FROM sessions").await;
    assert_eq!(database.number(ever).await, count);
}

#[tokio::test]
async fn histogram_delay_and_values_are_those_of_the_sessions() {
    let database = filled().await;
    let arguments = Question::all().arguments();
    let of_range = "FROM session_qoe, base WHERE \"timestamp\" >= b + interval '1 hour' AND \"timestamp\" < b + interval '54 hours'";
    // No bar is off by more than what lies around its edges.
    let bars = format!(
        "SELECT concat(bar, ': ', h.sessions, ' ', d.sessions) FROM qoe_startup({arguments}) AS h
         JOIN (SELECT least(player_startup_ms / 250, 40) AS bar, count(*) AS sessions {of_range} AND player_startup_ms IS NOT NULL GROUP BY 1) AS d
           ON h.\"xMin\" = bar * 250
         WHERE h.\"xMax\" <> h.\"xMin\" + 250 OR abs(h.sessions - d.sessions) > 20"
    );
    assert_eq!(database.lines(&bars).await, Vec::<String>::new());
    let sum =
        format!("SELECT count(*) * 1000000 + sum(sessions)::bigint FROM qoe_startup({arguments})");
    let started = database.number(&format!("SELECT count(player_startup_ms) {of_range}")).await;
    assert_eq!(database.number(&sum).await, 41_000_000 + started);

    let short = Question { range: (7_000, 17_000), read: (0, 0), ..Question::all() }.arguments();
    for (arguments, of_range) in [
        (&arguments, of_range.to_owned()),
        (&short, "FROM session_qoe, base WHERE \"timestamp\" BETWEEN b + interval '7000 seconds' AND b + interval '17000 seconds'".to_owned()),
    ] {
        let delays = format!(
            "SELECT concat(q, d) FROM qoe_delay({arguments}, by => 'stream_type') AS q
             FULL JOIN (SELECT coalesce(stream_type, 'not reported') AS value, count(*) AS sessions,
                  array_agg(date_part('epoch', received_at - reported_at) * 1000
                            ORDER BY received_at - reported_at) AS delays {of_range} GROUP BY 1) AS d USING (value)
             WHERE q.sessions IS DISTINCT FROM d.sessions
                OR NOT coalesce(abs(delay_p50_ms - delays[1 + floor(0.5 * (d.sessions - 1))::int])
                     <= 0.01501 * abs(delays[1 + floor(0.5 * (d.sessions - 1))::int]) + 1, false)
                OR NOT coalesce(abs(delay_p95_ms - delays[1 + floor(0.95 * (d.sessions - 1))::int])
                     <= 0.01501 * abs(delays[1 + floor(0.95 * (d.sessions - 1))::int]) + 1, false)"
        );
        assert_eq!(database.lines(&delays).await, Vec::<String>::new());
        // Without filters from rollups or sessions, and with one of a dimension from both.
        for filters in ["{}", r#"{"app_version": ["1.1", "1.2"]}"#] {
            let arguments = arguments.replace("'{}'", &format!("'{filters}'"));
            let mut expected = Vec::new();
            for (name, _) in &DIMENSIONS[1..8] {
                expected.push(format!(
                    "SELECT '{name}' AS dimension, value, sessions, bad FROM qoe({arguments}, by => '{name}')"
                ));
            }
            let expected = expected.join(" UNION ALL ");
            let found = format!("SELECT * FROM qoe_values({arguments})");
            for (a, b) in [(&expected, &found), (&found, &expected)] {
                let sql = format!("SELECT d::text FROM (({a}) EXCEPT ALL ({b})) AS d LIMIT 3");
                assert_eq!(database.lines(&sql).await, Vec::<String>::new(), "{arguments}");
            }
            let errors = format!("SELECT count(*) FROM qoe_values({arguments}, '{{error,tenant,error_code}}')");
            assert!(database.number(&errors).await > 2);
        }
    }
}

#[tokio::test]
async fn steps_have_enough_sessions_and_lines_enough_steps() {
    let database = filled().await;
    // About 55 sessions an hour.
    for (hours, filters, points, expected) in [
        (1, "{}", 120, "00:05:00"),
        (3, "{}", 120, "00:30:00"),
        (6, "{}", 120, "01:00:00"),
        (54, "{}", 120, "06:00:00"),
        (54, "{}", 4, "24:00:00"),
        (54, r#"{"tenant": "studio"}"#, 120, "06:00:00"),
        (54, r#"{"app_version": "1.1", "device_model": "device-3"}"#, 120, "06:00:00"),
        (24 * 365, "{}", 120, "168:00:00"),
        (24 * 365 * 10, "{}", 100, "1008:00:00"),
    ] {
        let step = format!(
            "SELECT qoe_step(b + interval '54 hours' - interval '{hours} hours', b + interval '54 hours',
                             '{filters}', {points})::text FROM base"
        );
        assert_eq!(
            database.value(&step).await.as_deref(),
            Some(expected),
            "{hours} {filters} {points}"
        );
    }
    // A hundred times as many.
    database.execute("UPDATE rollups SET sessions = sessions * 100").await;
    let step = format!("SELECT qoe_step({}, 120)::text", Question::all().arguments());
    assert_eq!(database.value(&step).await.as_deref(), Some("00:30:00"));
}

#[tokio::test]
async fn what_cannot_be_answered_says_what_can() {
    let server = Server::start().await;
    let mut connection = server.database.connect().await;
    for (arguments, message) in [
        (
            "'{\"platform\": \"tv\"}'",
            "there is no filter 'platform'; filters are tenant, stream_type, app_version",
        ),
        ("'{\"app_version\": 1}'", "the filter 'app_version' must be a text or a list of texts"),
        (
            "'{\"app_version\": [null]}'",
            "the filter 'app_version' must be a text or a list of texts",
        ),
        ("'[]'", "filters must be a JSON object"),
        (
            "by => 'platform'",
            "there is no dimension 'platform'; dimensions are tenant, stream_type, app_version",
        ),
        ("step => '1 month'", "a step of 1 mon is not possible: it must be positive, and of days"),
        ("step => '0'", "a step of 00:00:00 is not possible"),
    ] {
        let sql = format!("SELECT * FROM qoe(now() - interval '1 day', now(), {arguments})");
        let error = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut connection).await;
        let error = error.expect_err(arguments).to_string();
        assert!(error.contains(message), "{error}");
    }
    // Values are data.
    let quoted = r#"SELECT sessions FROM qoe(now() - interval '1 day', now(), '{"content_id": ["a''); DROP TABLE sessions; \\", "{\"}"]}')"#;
    assert_eq!(server.database.number(quoted).await, 0);
}

/// Another version is replaced at the next start, also where a view of somebody's reads it, and
/// they work for those who do not have the schema in their search path.
#[tokio::test]
async fn functions_are_replaced_and_work_from_anywhere() {
    let server = Server::start().await;
    let database = server.database.clone();
    server.stop().await;
    database
        .execute(
            "DROP FUNCTION qoe_delay; DROP FUNCTION qoe_step;
             CREATE FUNCTION qoe_step(a integer) RETURNS integer LANGUAGE sql RETURN 1;
             COMMENT ON FUNCTION qoe_values IS 'of another version [00000000]';
             CREATE VIEW theirs AS SELECT sessions FROM qoe(now() - interval '1 day', now())",
        )
        .await;
    let server = Server::with(crate::support::ServerOptions::default(), &database).await;
    let functions = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'qoe%'";
    assert_eq!(database.number(functions).await, 9);
    let comments = "SELECT count(DISTINCT right(obj_description(oid), 10)) FROM pg_proc WHERE proname LIKE 'qoe%'";
    assert_eq!(database.number(comments).await, 1);
    assert_eq!(database.number("SELECT sessions FROM theirs").await, 0);
    let elsewhere = "SET search_path = pg_catalog; SELECT sessions FROM public.qoe(now() - interval '1 day', now(), step => public.qoe_step(now() - interval '1 day', now()))";
    let mut connection = database.connect().await;
    sqlx::raw_sql(elsewhere).fetch_all(&mut connection).await.expect("rows");
    server.stop().await;
}
