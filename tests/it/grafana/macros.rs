//! What Grafana makes of a query before Postgres sees it: variables first, in the browser, then
//! the macros of the data source's plugin.
//!
//! Stricter than Grafana: what it would break, change or pass on without a word is an error.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// What a query is asked with.
#[derive(Debug, Clone)]
pub struct Context {
    /// Unix milliseconds.
    pub from_ms: i64,
    /// Unix milliseconds.
    pub to_ms: i64,
    /// `$__interval` in milliseconds.
    pub interval_ms: i64,
    /// Values of the dashboard's variables, one or more each; a query of an alert rule has none.
    pub variables: BTreeMap<String, Vec<String>>,
    /// Whether it is the query of an alert rule, which never passes through a browser.
    pub is_alert: bool,
}

impl Context {
    /// A dashboard's, without variables.
    pub fn dashboard(from_ms: i64, to_ms: i64) -> Self {
        let interval_ms = interval((to_ms - from_ms) / 500);
        Self { from_ms, to_ms, interval_ms, variables: BTreeMap::new(), is_alert: false }
    }

    /// An alert rule's.
    pub fn alert(from_ms: i64, to_ms: i64) -> Self {
        Self { is_alert: true, interval_ms: 1_000, ..Self::dashboard(from_ms, to_ms) }
    }

    /// With a variable's values; `["__all__"]` is All, as the dashboards write it.
    pub fn with(mut self, name: &str, values: &[&str]) -> Self {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        self.variables.insert(name.to_owned(), values);
        self
    }
}

/// Roughly the steps to which Grafana rounds `$__interval`; at least a minute, as the data source
/// asks for.
fn interval(ms: i64) -> i64 {
    let minutes = [1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 360, 720, 1_440];
    let steps = minutes.map(|minutes| minutes * 60_000);
    *steps.iter().find(|step| **step >= ms).unwrap_or(&86_400_000)
}

/// The SQL that Postgres gets.
pub fn expand(sql: &str, context: &Context) -> Result<String, String> {
    let sql = expand_variables(sql, context)?;
    // Grafana cuts comments, before 13.1 even out of string literals.
    if sql.contains("--") || sql.contains("/*") {
        return Err("a comment, or what Grafana takes for one".to_owned());
    }
    expand_macros(&sql, context)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// `$name`, `${name}` and `${name:format}` of all that is known.
fn expand_variables(sql: &str, context: &Context) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = sql;
    while let Some(at) = rest.find('$') {
        expanded += &rest[..at];
        let after = &rest[at + 1..];
        let (name, format, length) = if let Some(braced) = after.strip_prefix('{') {
            let (inner, _) = braced.split_once('}').ok_or("an open ${")?;
            let (name, format) = inner.split_once(':').unwrap_or((inner, ""));
            if !name.chars().all(is_word) {
                return Err(format!("${{{inner}}} is no plain variable"));
            }
            (name, Some(format), inner.len() + 2)
        } else {
            let name = &after[..after.find(|c| !is_word(c)).unwrap_or(after.len())];
            (name, None, name.len())
        };
        let written = &rest[at..=at + length];
        expanded += &match value(name, format, context)? {
            Some(value) => value,
            None if format.is_some() => return Err(format!("there is no variable {written}")),
            None => written.to_owned(),
        };
        rest = &rest[at + 1 + length..];
    }
    Ok(expanded + rest)
}

fn value(name: &str, format: Option<&str>, context: &Context) -> Result<Option<String>, String> {
    let built_in = match name {
        "__interval" => Some(duration(context.interval_ms)),
        "__interval_ms" => Some(context.interval_ms.to_string()),
        "__from" | "__to" if context.is_alert => {
            return Err(format!("${name} in an alert rule"));
        }
        "__from" => Some(context.from_ms.to_string()),
        "__to" => Some(context.to_ms.to_string()),
        // As long as nobody types into the list.
        "__searchFilter" => Some("%".to_owned()),
        _ => None,
    };
    if built_in.is_some() {
        if format.is_some_and(|format| !format.is_empty()) {
            return Err(format!("${{{name}}} with a format"));
        }
        return Ok(built_in);
    }
    let Some(values) = context.variables.get(name) else {
        return Ok(None);
    };
    if format != Some("sqlstring") {
        return Err(format!("write ${{{name}:sqlstring}}: the quoting of others has changed"));
    }
    if values.is_empty() {
        return Err(format!("{name} has no value: IN () is no SQL"));
    }
    let quoted = values.iter().map(|value| {
        // So Grafana: a double quote gets a backslash, which Postgres takes literally.
        format!("'{}'", value.replace('\'', "''").replace('"', "\\\""))
    });
    Ok(Some(quoted.collect::<Vec<_>>().join(",")))
}

/// `$name(arguments)`, as the plugin's expression finds them.
fn expand_macros(sql: &str, context: &Context) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = sql;
    while let Some(at) = rest.find('$') {
        expanded += &rest[..at];
        let after = &rest[at + 1..];
        let name = &after[..after.find(|c| !is_word(c)).unwrap_or(after.len())];
        let Some(inner) = after[name.len()..].strip_prefix('(').filter(|_| !name.is_empty()) else {
            // The value that stands for All is compared with, and is no macro.
            if name.starts_with("__") && name != "__all" {
                return Err(format!("${name} is left over"));
            }
            expanded.push('$');
            rest = after;
            continue;
        };
        let (arguments, end) = inner.split_once(')').ok_or(format!("${name}( is not closed"))?;
        if arguments.contains('(') {
            return Err(format!("${name}({arguments}): no parenthesis inside a macro"));
        }
        if name == "__timeGroup" && end.starts_with(',') {
            return Err("$__timeGroup(…), gets an alias of its own: write $__timeGroupAlias".into());
        }
        let arguments: Vec<&str> =
            arguments.split(',').map(|text| text.trim_matches(' ')).collect();
        expanded += &evaluate(name, &arguments, context)?;
        rest = end;
    }
    Ok(expanded + rest)
}

fn evaluate(name: &str, arguments: &[&str], context: &Context) -> Result<String, String> {
    let (from, to) = (quoted(context.from_ms), quoted(context.to_ms));
    let (from_s, to_s) = (context.from_ms / 1_000, context.to_ms / 1_000);
    let seconds = |text: &str| {
        parse_duration(text.trim_matches('\'')).ok_or(format!("{text} is no interval"))
    };
    Ok(match (name, arguments) {
        ("__timeFrom", [""]) => from,
        ("__timeTo", [""]) => to,
        ("__unixEpochFrom", [""]) => from_s.to_string(),
        ("__unixEpochTo", [""]) => to_s.to_string(),
        (_, [""]) => return Err(format!("${name}() without an argument")),
        ("__time", [column]) => format!("{column} AS \"time\""),
        ("__timeEpoch", [column]) => format!("extract(epoch from {column}) as \"time\""),
        ("__timeFilter", [column]) => format!("{column} BETWEEN {from} AND {to}"),
        ("__timeGroup", [column, every] | [column, every, _]) => {
            let every = seconds(every)?;
            format!("floor(extract(epoch from {column})/{every})*{every}")
        }
        ("__unixEpochFilter", [column]) => format!("{column} >= {from_s} AND {column} <= {to_s}"),
        ("__unixEpochGroup", [column, every] | [column, every, _]) => {
            let every = seconds(every)?;
            format!("floor(({column})/{every})*{every}")
        }
        ("__timeGroupAlias", _) => {
            format!("{} AS \"time\"", evaluate("__timeGroup", arguments, context)?)
        }
        ("__unixEpochGroupAlias", _) => {
            format!("{} AS \"time\"", evaluate("__unixEpochGroup", arguments, context)?)
        }
        _ => return Err(format!("there is no macro ${name}({})", arguments.join(","))),
    })
}

/// `'2026-02-14T10:30:00.5Z'`
fn quoted(unix_ms: i64) -> String {
    format!("'{}'", Timestamp::from_millisecond(unix_ms).expect("a time"))
}

/// `1m` for 60,000.
fn duration(ms: i64) -> String {
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms % length == 0 && ms > 0 {
            return format!("{}{unit}", ms / length);
        }
    }
    format!("{ms}ms")
}

/// Seconds of `5m`.
fn parse_duration(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: i64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    (number > 0).then_some(number * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: i64 = 1_771_065_000_000;
    const TO: i64 = 1_771_068_600_500;

    fn context() -> Context {
        Context::dashboard(FROM, TO).with("tenant", &["a", "o'b"]).with("id", &["x\"y"])
    }

    fn ok(sql: &str) -> String {
        expand(sql, &context()).expect(sql)
    }

    #[test]
    fn macros_become_what_the_plugin_makes_of_them() {
        let (from, to) = ("'2026-02-14T10:30:00Z'", "'2026-02-14T11:30:00.5Z'");
        assert_eq!(ok("$__timeFilter(t)"), format!("t BETWEEN {from} AND {to}"));
        assert_eq!(
            ok("WHERE ($__timeFilter( s.\"timestamp\" ))"),
            format!("WHERE (s.\"timestamp\" BETWEEN {from} AND {to})")
        );
        assert_eq!(ok("$__timeFrom()::timestamptz"), format!("{from}::timestamptz"));
        assert_eq!(ok("$__timeTo()"), to);
        assert_eq!(ok("$__timeGroup(t, '5m')"), "floor(extract(epoch from t)/300)*300");
        assert_eq!(
            ok("$__timeGroupAlias(t,$__interval,NULL), 1"),
            "floor(extract(epoch from t)/60)*60 AS \"time\", 1"
        );
        assert_eq!(ok("$__time(t), $__timeEpoch(u)").matches("\"time\"").count(), 2);
        assert_eq!(ok("$__unixEpochFilter(e)"), "e >= 1771065000 AND e <= 1771068600");
        assert_eq!(ok("$__unixEpochGroup(e,1h)"), "floor((e)/3600)*3600");
    }

    #[test]
    fn variables_come_first() {
        assert_eq!(ok("t IN (${tenant:sqlstring})"), "t IN ('a','o''b')");
        assert_eq!(ok("id = ${id:sqlstring}"), "id = 'x\\\"y'");
        assert_eq!(ok("$__interval $__interval_ms"), "1m 60000");
        assert_eq!(ok("$__from ${__to}"), format!("{FROM} {TO}"));
        assert_eq!(ok("LIKE '$__searchFilter'"), "LIKE '%'");
        assert_eq!(
            ok("'$__all' IN (${tenant:sqlstring})"),
            "'$__all' IN ('a','o''b')",
            "the marker of All stays"
        );
        assert_eq!(ok("'^a$' ~ '$1'"), "'^a$' ~ '$1'");
    }

    #[test]
    fn what_grafana_would_break_is_refused() {
        for sql in [
            "SELECT 1 -- one",
            "SELECT /* one */ 1",
            "SELECT '--'",
            "$__timeFilter(coalesce(a, b))",
            "$__timeFilter(a, b)",
            "$__timeGroup(date_trunc(t),'5m')",
            "$__timeGroup(t,'5m'), 1",
            "$__timeGroup(t,'5 minutes')",
            "$__timeGroup(t)",
            "$__timeFilter()",
            "$__timeFilter(t",
            "$__timefilter(t)",
            "$__range",
            "$tenant",
            "${tenant}",
            "${tenant:raw}",
            "${tennant:sqlstring}",
            "${tenant.text:sqlstring}",
            "${__from:date}",
        ] {
            assert!(expand(sql, &context()).is_err(), "{sql}");
        }
        let nothing_chosen = context().with("tenant", &[]);
        assert!(expand("IN (${tenant:sqlstring})", &nothing_chosen).is_err());
    }

    #[test]
    fn alert_rules_have_macros_and_no_dashboard() {
        let context = Context::alert(FROM, TO);
        assert_eq!(expand("$__timeTo()", &context).expect("fine"), "'2026-02-14T11:30:00.5Z'");
        for sql in ["$__from", "${__to}", "${tenant:sqlstring}"] {
            assert!(expand(sql, &context).is_err(), "{sql}");
        }
    }

    #[test]
    fn the_interval_follows_the_range() {
        let hours = |hours: i64| Context::dashboard(0, hours * 3_600_000).interval_ms / 60_000;
        assert_eq!((hours(1), hours(24), hours(24 * 7), hours(24 * 30)), (1, 5, 30, 120));
    }
}
