//! What `{{…}}` in the SQL of a dashboard stands for.

use super::source::Filters;

/// Below so many sessions a rate or a percentile says "not enough data".
pub(super) const ENOUGH: u32 = 50;
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

/// The time range of the dashboard, as the first arguments of `qoe()`.
const RANGE: &str = "$__timeFrom()::timestamptz, $__timeTo()::timestamptz";
/// Steps of a line, at most.
const STEPS: u32 = 120;

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

/// The dimension that is chosen, as `qoe()` calls it.
fn by() -> String {
    let cases = DIMENSIONS.map(|(name, column)| format!("WHEN '{name}' THEN '{column}' "));
    format!(
        "CASE ${{dimension:sqlstring}} {}WHEN 'error category' THEN 'error_category' END",
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

/// Rows of a dimension's name for people, and for `qoe()`.
fn dimensions() -> String {
    let rows = DIMENSIONS.map(|(name, column)| format!("('{name}', '{column}')"));
    format!("(VALUES {})", rows.join(", "))
}

/// The filters as `qoe()` takes them.
fn filter_json(filters: Filters) -> String {
    let variables = chosen_filters(filters).iter().map(|(name, _)| name);
    let list: Vec<_> =
        variables.map(|name| format!("'{name}', ARRAY[${{{name}:sqlstring}}]")).collect();
    format!("jsonb_build_object({})", list.join(", "))
}

/// From a minute before a session to a minute after it, for the link to it.
const AROUND: &str = "\
floor((extract(epoch FROM \"timestamp\") - 60) * 1000)::bigint AS from_ms,
       ceil((extract(epoch FROM \"timestamp\") + 60) * 1000)::bigint
         + greatest(session_duration_ms, watched_ms, 0) AS to_ms";

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
fn placeholders(filters: Filters) -> [(&'static str, String); 15] {
    let chosen = chosen(filters);
    let filter_json = filter_json(filters);
    let asked = format!("{RANGE}, {filter_json}");
    [
        ("{{filters}}", format!("$__timeFilter(\"timestamp\")\n  AND {chosen}")),
        ("{{chosen}}", chosen),
        ("{{step}}", format!("qoe_step({asked}, {STEPS})")),
        ("{{asked}}", asked),
        ("{{filter_json}}", filter_json),
        ("{{session}}", SESSION.to_owned()),
        ("{{tenant}}", condition(FILTERS[0])),
        ("{{instances}}", condition(INSTANCE)),
        ("{{enough}}", ENOUGH.to_string()),
        ("{{none}}", format!("'{NONE}'")),
        ("{{outcome}}", OUTCOME.to_owned()),
        ("{{found}}", FOUND.replace("{{named}}", &named())),
        ("{{by}}", by()),
        ("{{dimensions}}", dimensions()),
        ("{{around}}", AROUND.to_owned()),
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

/// The filters that a dashboard has.
fn chosen_filters(filters: Filters) -> &'static [(&'static str, &'static str)] {
    if filters == Filters::All { &FILTERS } else { &FILTERS[..1] }
}

/// The conditions of all filter variables.
fn chosen(filters: Filters) -> String {
    let conditions: Vec<_> = chosen_filters(filters).iter().copied().map(condition).collect();
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

/// Choices of a filter: values of the time range, those with the most sessions first. One that is
/// not among them can be typed.
pub(super) fn choices((variable, _): (&str, &str)) -> String {
    let filters =
        if variable == "tenant" { "'{}'".to_owned() } else { filter_json(Filters::Tenant) };
    format!(
        "SELECT value FROM qoe_values({RANGE}, {filters}, ARRAY['{variable}'])\n\
         WHERE value <> '(other)' ORDER BY sessions DESC, value LIMIT 500"
    )
}
