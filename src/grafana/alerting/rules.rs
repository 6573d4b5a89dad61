//! The rules, as `rules.toml` says them, and the SQL that they share.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::source;

/// Fewer sessions say nothing.
const ENOUGH: u32 = 20;
/// Fewer sessions with trouble are nobody's outage.
const AFFECTED: u32 = 5;

/// What the rules about playback look at: sessions heard of in the last hour, or, where these
/// are fewer, the last 50 of the time range.
///
/// Heard of, not begun: SDKs up to 0.x report at the end, so that of the sessions that began in
/// the last hour only the short ones are known, which are those that failed. The device's clock
/// says when, unless it is ahead of ours: what was imported, or kept on a device for hours, is
/// no news.
const RECENT: &str = "\
WITH recent AS (
  SELECT failed, rebuffered, player_startup_ms, rebuffer_time_ms, watched_ms,
         least(reported_at, received_at) AS heard_at,
         row_number() OVER (ORDER BY least(reported_at, received_at) DESC) AS nth
  FROM session_qoe
  WHERE $__timeFilter(\"timestamp\")
    AND least(reported_at, received_at) <= $__timeTo()::timestamptz
), sample AS (
  SELECT * FROM recent
  WHERE heard_at > $__timeTo()::timestamptz - interval '1 hour' OR nth <= 50
)";

/// The last hour, and the same hours of the 7 days before, from an hour before to an hour after.
const COMPARED: &str = "\
WITH heard AS (
  SELECT failed, extract(epoch FROM $__timeTo()::timestamptz - least(reported_at, received_at)) AS age
  FROM session_qoe
  WHERE $__timeFilter(\"timestamp\")
), placed AS (
  SELECT failed, age >= 0 AND age < 3600 AS is_now,
         age >= 82800 AND age < 612000 AND mod(age + 3600, 86400) < 10800 AS is_usual
  FROM heard
), counted AS (
  SELECT count(*) FILTER (WHERE is_now) AS now_all,
         count(*) FILTER (WHERE is_now AND failed) AS now_failed,
         count(*) FILTER (WHERE is_usual) AS usual_all,
         count(*) FILTER (WHERE is_usual AND failed) AS usual_failed
  FROM placed
)";

/// Windows back from now in which no session began although on average 10 did, in the same
/// hours of the 7 days before: on 5 of these days at least, so that one great evening is not
/// taken for a habit, and a week ago too, so that a weekend is not missed. By our own clock; a session that arrived a day after it began was
/// imported.
const QUIET: &str = "\
WITH hourly AS (
  SELECT floor(extract(epoch FROM $__timeTo()::timestamptz - created_at) / 3600)::int AS hour,
         count(*) AS sessions
  FROM session_qoe
  WHERE $__timeFilter(\"timestamp\")
    AND created_at <= $__timeTo()::timestamptz
    AND created_at < \"timestamp\" + interval '1 day'
  GROUP BY 1
), compared AS (
  SELECT hours,
         sum(sessions) FILTER (WHERE hour >= 24 AND hour < 192 AND hour % 24 < hours) / 7 AS usual,
         coalesce(sum(sessions) FILTER (WHERE hour < hours), 0) = 0
           AND sum(sessions) FILTER (WHERE hour >= 24 AND hour < 192 AND hour % 24 < hours) >= 70
           AND count(DISTINCT hour / 24) FILTER (WHERE hour >= 24 AND hour < 192 AND hour % 24 < hours) >= 5
           AND sum(sessions) FILTER (WHERE hour >= 168 AND hour < 168 + hours) > 0 AS is_quiet
  FROM hourly CROSS JOIN (VALUES (1), (2), (4), (8), (24)) AS windows (hours)
  GROUP BY hours
)";

/// Reports taken and refused, as the backend counts them.
const REFUSED: &str = "\
WITH minutes AS (
  SELECT extract(epoch FROM $__timeTo()::timestamptz - \"time\") < 3600 AS is_now,
         stored + updated + duplicate + stale AS taken,
         (SELECT coalesce(sum(count::bigint), 0) FROM jsonb_each_text(rejected) AS codes (code, count)) AS refused
  FROM backend_minutes
  WHERE $__timeFilter(\"time\")
), counted AS (
  SELECT (sum(refused) FILTER (WHERE is_now))::bigint AS now_refused,
         (sum(taken + refused) FILTER (WHERE is_now))::bigint AS now_all,
         (sum(refused) FILTER (WHERE NOT is_now))::float8
           / nullif(sum(taken + refused) FILTER (WHERE NOT is_now), 0)::float8 AS usual
  FROM minutes
)";

/// Numbers that were chosen instead of those in the table, by the name of the variable.
pub type Thresholds = BTreeMap<String, f64>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    groups: Vec<Group>,
    rules: Vec<Rule>,
}

/// Rules that are asked at the same moments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) name: String,
    /// A multiple of 10 s, Grafana's own beat.
    pub(super) every: String,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Unit {
    /// The query gives a share, 0 to 1.
    Percent,
    Ms,
    Seconds,
    Hours,
    Times,
    Sessions,
    None,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// Frozen: Grafana knows the rule, its state and its silences by it. At most 40 characters.
    pub(super) uid: String,
    pub(super) group: String,
    pub(super) title: String,
    /// `critical`: viewers or reports are being lost. `warning`: worth a look today.
    pub(super) severity: String,
    /// In its unit.
    threshold: f64,
    unit: Unit,
    /// The environment variable that sets another threshold.
    pub(super) variable: Option<String>,
    /// Whether it fires below the threshold, not above.
    #[serde(default)]
    pub(super) below: bool,
    /// How long it must hold.
    #[serde(rename = "for")]
    pub(super) pending: String,
    /// How long it must be over before it is called over.
    pub(super) keep: Option<String>,
    /// Time range of the queries, seconds back from now.
    pub(super) back: u32,
    #[serde(default = "quiet")]
    pub(super) no_data: String,
    #[serde(default = "hold")]
    pub(super) on_error: String,
    /// Uid of a dashboard, and title of a panel on it.
    pub(super) panel: (String, String),
    /// Path of the page to look at.
    pub(super) see: String,
    /// What happened, in a sentence: `{value}`, `{hit}` and `{all}` are numbers of the queries.
    says: String,
    /// What to do.
    pub(super) act: String,
    // For the documentation: when it fires, on what sample, and why that threshold.
    fires: String,
    pub(super) sample: String,
    pub(super) why: String,
    sql: String,
    /// How many are hit.
    hit: Option<String>,
    /// Of how many.
    all: Option<String>,
}

fn quiet() -> String {
    "OK".to_owned()
}

fn hold() -> String {
    "KeepLast".to_owned()
}

/// The groups and the rules, with the thresholds that were chosen.
pub(super) fn all(thresholds: &Thresholds) -> (Vec<Group>, Vec<Rule>) {
    let source: Source = toml::from_str(include_str!("rules.toml")).expect("rules.toml is sound");
    let Source { groups, mut rules } = source;
    for rule in &mut rules {
        if let Some(chosen) = rule.variable.as_ref().and_then(|name| thresholds.get(name)) {
            rule.threshold = *chosen;
        }
    }
    (groups, rules)
}

impl Rule {
    /// The number with which the query's is compared.
    pub(super) fn limit(&self) -> f64 {
        if self.unit == Unit::Percent { self.threshold / 100.0 } else { self.threshold }
    }

    /// The threshold as people read it.
    pub(super) fn threshold(&self) -> String {
        let number = self.threshold;
        match self.unit {
            Unit::Percent => format!("{number} %"),
            Unit::Ms => format!("{} s", number / 1_000.0),
            Unit::Seconds => format!("{} minutes", number / 60.0),
            Unit::Hours => format!("{number} hours"),
            Unit::Times if (number - 2.0).abs() < f64::EPSILON => "twice".to_owned(),
            Unit::Times => format!("{number} times"),
            Unit::Sessions | Unit::None => number.to_string(),
        }
    }

    pub(super) fn title(&self) -> String {
        self.title.replace("{threshold}", &self.threshold())
    }

    pub(super) fn fires(&self) -> String {
        self.fires.replace("{threshold}", &self.threshold())
    }

    /// The queries: the one that decides first, then those for the text.
    pub(super) fn queries(&self) -> Vec<String> {
        let queries = [Some(&self.sql), self.hit.as_ref(), self.all.as_ref()];
        let expand = |sql: &String| {
            let sql = sql.replace("{{recent}}", RECENT).replace("{{compared}}", COMPARED);
            let sql = sql.replace("{{quiet}}", QUIET).replace("{{refused}}", REFUSED);
            sql.replace("{{enough}}", &ENOUGH.to_string())
                .replace("{{affected}}", &AFFECTED.to_string())
                .replace("{{threshold}}", &self.threshold.to_string())
                .trim()
                .to_owned()
        };
        queries.into_iter().flatten().map(expand).collect()
    }

    /// What happened, as a Go template. The numbers are those of the steps that reduce the
    /// queries: B, E and G. Without them (an alert that ends because the data did), it is said
    /// without numbers.
    pub(super) fn summary(&self) -> String {
        let says = self.says.replace("{threshold}", &self.threshold());
        if !says.contains('{') {
            return says;
        }
        let number = |step: &str, format: &str| {
            format!("{{{{ printf \"{format}\" $values.{step}.Value }}}}")
        };
        let says = says
            .replace("{value%}", "{{ humanizePercentage $values.B.Value }}")
            .replace("{value.1}", &number("B", "%.1f"))
            .replace("{value.0}", &number("B", "%.0f"))
            .replace("{value}", &number("B", "%.0f"))
            .replace("{hit}", &number("E", "%.0f"))
            .replace("{all}", &number("G", "%.0f"));
        // An alert that ends is told with the numbers of its end. With a point: Go does not
        // compare a float with a whole number.
        let (over, compare) = (
            "It is over, or there is too little data by now to tell.",
            if self.below { "lt" } else { "gt" },
        );
        let limit = self.limit();
        format!(
            "{{{{ if $values.B }}}}{{{{ if {compare} $values.B.Value {limit:?} }}}}{says}{{{{ else }}}}\
             {over}{{{{ end }}}}{{{{ else }}}}{over}{{{{ end }}}}"
        )
    }

    /// Id of its panel.
    pub(super) fn panel_id(&self) -> u32 {
        let (uid, title) = &self.panel;
        let dashboards = source::dashboards();
        let dashboard = dashboards.iter().find(|(_, dashboard)| dashboard.uid == *uid);
        let mut panels =
            dashboard.iter().flat_map(|(_, dashboard)| &dashboard.rows).flat_map(|row| &row.panels);
        let panel = panels.find(|panel| panel.title == *title);
        panel.unwrap_or_else(|| panic!("{}: no panel {title} on {uid}", self.uid)).id
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::palette::Scale;
    use super::*;

    /// What is red on a dashboard is what an alert is about.
    #[test]
    fn panels_turn_red_where_alerts_fire() {
        let (_, rules) = all(&Thresholds::new());
        for (uid, scale) in [
            ("m3w-error-rate", Scale::Errors),
            ("m3w-startup-slow", Scale::StartupP95),
            ("m3w-rebuffering", Scale::Rebuffering),
            ("m3w-backend-silent", Scale::Silence),
        ] {
            let rule = rules.iter().find(|rule| rule.uid == uid).expect(uid);
            let thresholds = scale.thresholds();
            let worst = thresholds["steps"].as_array().and_then(|steps| steps.last()).expect(uid);
            assert_eq!(worst["value"].as_f64(), Some(rule.limit()), "{uid}");
        }
    }
}
