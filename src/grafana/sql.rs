//! What `{{…}}` in the SQL of a dashboard stands for.

use super::source::Filters;

/// Below so many sessions a rate or a percentile says "not enough data".
pub(super) const ENOUGH: u32 = 50;
/// The same for one point of a line, which has neighbours.
const ENOUGH_FOR_A_POINT: u32 = 10;
/// How a value that was not reported is named, in filters and tables.
const NONE: &str = "not reported";

/// What became of a session, in words: its gravest trouble.
const OUTCOME: &str = "\
CASE WHEN start_failed THEN 'start failed'
            WHEN failed THEN 'failed'
            WHEN exited_before_start THEN 'left before start'
            WHEN 50 * rebuffer_time_ms > watched_ms THEN 'rebuffered'
            WHEN slow_start THEN 'slow start'
            WHEN played THEN 'good'
            ELSE 'starting' END";

/// The timeline of the session on the page: of one tenant, should two have used the id.
const SESSION: &str = "\
session_id = ${session_id:sqlstring}
  AND (tenant_id, \"timestamp\") = (
    SELECT tenant_id, \"timestamp\" FROM sessions
    WHERE session_id = ${session_id:sqlstring} AND {{tenant}}
    ORDER BY \"timestamp\" DESC LIMIT 1
  )";

/// Sessions that Session Explorer was asked for.
const FOUND: &str = "\
(CASE ${outcome:sqlstring}
         WHEN 'trouble' THEN bad
         WHEN 'failed' THEN failed
         WHEN 'rebuffered' THEN 50 * rebuffer_time_ms > watched_ms
         WHEN 'slow start' THEN slow_start
         WHEN 'never started' THEN start_failed OR exited_before_start
         ELSE true END)
  AND (${search:sqlstring} = '' OR starts_with(session_id, ${search:sqlstring})
       OR strpos(lower(content_id), lower(${search:sqlstring})) > 0
       OR ${search:sqlstring} IN (stream_type, app_version, sdk_version, device_model, os_version,
                                  connection_type, last_error_category, last_error_code)
       OR {{named}})";

/// Seconds since 1970 as float8, for `$__unixEpochGroupAlias`: what `$__timeGroupAlias` writes is
/// numeric, and takes twice as long.
const EPOCH: &str = "\
CROSS JOIN LATERAL (SELECT date_part('epoch', \"timestamp\") AS epoch) AS clock";

/// What sessions can be broken down by: name of the choice, and what is read.
const DIMENSIONS: [(&str, &str); 7] = [
    ("stream type", "stream_type"),
    ("app version", "app_version"),
    ("SDK version", "sdk_version"),
    ("device", "device_model"),
    ("OS version", "os_version"),
    ("connection", "connection_type"),
    ("content", "content_id"),
];

/// The value of a session in the dimension that is chosen.
fn dimension() -> String {
    let cases = DIMENSIONS.map(|(name, column)| format!("WHEN '{name}' THEN {column} "));
    format!(
        "coalesce(CASE ${{dimension:sqlstring}} {}\
         WHEN 'error category' THEN CASE WHEN failed THEN last_error_category ELSE 'no error' END \
         END, '{NONE}')",
        cases.concat()
    )
}

/// Whether a session has the value that was searched by name, as in `device = Pixel 8`. Without
/// a name, the planner leaves all of it out.
fn named() -> String {
    let errors = [
        ("error category", "CASE WHEN failed THEN last_error_category ELSE 'no error' END"),
        ("error code", "CASE WHEN failed THEN last_error_code ELSE 'no error' END"),
    ];
    let names = DIMENSIONS.iter().chain(&errors);
    let names = names.map(|(name, column)| format!("'{name} = ' || coalesce({column}, '{NONE}')"));
    let names = names.collect::<Vec<_>>().join(",\n         ");
    format!(
        "strpos(${{search:sqlstring}}, ' = ') > 0 AND ${{search:sqlstring}} IN (\n         {names})"
    )
}

/// All dimensions of a session but the error category: one row each, of name and value.
fn dimensions() -> String {
    let rows = DIMENSIONS.map(|(name, column)| format!("('{name}', coalesce({column}, '{NONE}'))"));
    format!("(VALUES {})", rows.join(",\n      "))
}

/// From a minute before a session to a minute after it, for the link to it.
const AROUND: &str = "\
floor((extract(epoch FROM \"timestamp\") - 60) * 1000)::bigint AS from_ms,
       ceil((extract(epoch FROM \"timestamp\") + 60) * 1000)::bigint
         + greatest(session_duration_ms, watched_ms, 0) AS to_ms";

/// Bits per second, averaged over what was played (CTA-2066), of sessions that report a bitrate.
const BITRATE: &str = "\
1000 * sum(avg_bitrate_kbps::float8 * play_time_ms)
           / nullif(sum(play_time_ms) FILTER (WHERE avg_bitrate_kbps IS NOT NULL), 0)::float8";

/// Rebuffers per hour watched, of sessions that count them.
const REBUFFERS_PER_HOUR: &str = "\
3600000 * sum(rebuffer_count)::float8
           / nullif(sum(watched_ms) FILTER (WHERE rebuffer_count IS NOT NULL), 0)::float8";

/// Columns with a filter, the tenant first.
pub(super) const FILTERS: [(&str, &str); 5] = [
    ("tenant", "tenant_id"),
    ("stream_type", "stream_type"),
    ("app_version", "app_version"),
    ("device_model", "device_model"),
    ("content_id", "content_id"),
];

/// The filter of what is not about sessions.
const INSTANCE: (&str, &str) = ("instance", "instance");

/// The placeholders, and what each stands for: as docs/grafana.md explains them.
fn placeholders(filters: Filters) -> [(&'static str, String); 16] {
    let chosen = chosen(filters);
    [
        ("{{filters}}", format!("$__timeFilter(\"timestamp\")\n  AND {chosen}")),
        ("{{chosen}}", chosen),
        ("{{session}}", SESSION.to_owned()),
        ("{{tenant}}", condition(FILTERS[0])),
        ("{{instances}}", condition(INSTANCE)),
        ("{{enough}}", ENOUGH.to_string()),
        ("{{enough_for_a_point}}", ENOUGH_FOR_A_POINT.to_string()),
        ("{{none}}", format!("'{NONE}'")),
        ("{{outcome}}", OUTCOME.to_owned()),
        ("{{epoch}}", EPOCH.to_owned()),
        ("{{found}}", FOUND.replace("{{named}}", &named())),
        ("{{dimension}}", dimension()),
        ("{{dimensions}}", dimensions()),
        ("{{around}}", AROUND.to_owned()),
        ("{{bitrate}}", BITRATE.to_owned()),
        ("{{rebuffers_per_hour}}", REBUFFERS_PER_HOUR.to_owned()),
    ]
}

/// SQL as Grafana gets it.
pub(super) fn expand(sql: &str, filters: Filters) -> String {
    let mut sql = sql.trim().to_owned();
    for (name, text) in placeholders(filters) {
        sql = sql.replace(name, &text);
    }
    assert!(!sql.contains("{{"), "an unknown placeholder in {sql}");
    sql
}

/// The conditions of all filter variables.
fn chosen(filters: Filters) -> String {
    let count = if filters == Filters::All { FILTERS.len() } else { 1 };
    let conditions: Vec<_> = FILTERS[..count].iter().copied().map(condition).collect();
    conditions.join("\n  AND ")
}

/// "All" comes as `'__all__'` or `$__all`, by the way the page was opened. The planner folds
/// all that is constant here, so that a filter on "All" costs nothing.
fn condition((variable, column): (&str, &str)) -> String {
    let list = format!("(${{{variable}:sqlstring}})");
    // These two are never null.
    let none = if matches!(column, "tenant_id" | "instance") {
        String::new()
    } else {
        format!(" OR ({column} IS NULL AND '{NONE}' IN {list})")
    };
    format!("('__all__' IN {list} OR '$__all' IN {list} OR {column} IN {list}{none})")
}

/// Choices of a filter. The newest 20,000 sessions of the time range are asked, not all: the
/// panels wait for this. A value that is not among them can be typed.
pub(super) fn choices((variable, column): (&str, &str)) -> String {
    let tenant = if variable == "tenant" {
        String::new()
    } else {
        format!("\n    AND {}", condition(FILTERS[0]))
    };
    let value = if column == "tenant_id" {
        column.to_owned()
    } else {
        format!("coalesce({column}, '{NONE}')")
    };
    format!(
        "SELECT value FROM (\n  SELECT {value} AS value FROM session_qoe\n  \
         WHERE $__timeFilter(\"timestamp\"){tenant}\n  \
         ORDER BY \"timestamp\" DESC LIMIT 20000\n) AS newest\n\
         GROUP BY value ORDER BY count(*) DESC, value LIMIT 500"
    )
}
