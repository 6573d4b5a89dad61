//! All SQL of the dashboards, and what Grafana asks it with.

use std::collections::BTreeMap;

use media3watch::grafana::{self, Options};
use serde_json::Value;

use super::macros::Context;

/// Time ranges that are tried, in hours.
pub const RANGES: [i64; 4] = [1, 24, 24 * 7, 24 * 30];

/// The dashboards as they are exported with everything in them.
pub fn dashboards() -> Vec<Value> {
    let files = grafana::files(&Options::compose()).into_iter();
    let files = files.filter(|file| file.path.starts_with("dashboards/"));
    files.map(|file| serde_json::from_str(&file.text).expect("JSON")).collect()
}

/// Panels of a dashboard, those in closed rows and the rows' headers included.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut panels = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        panels.push(panel);
        panels.extend(panel["panels"].as_array().into_iter().flatten());
    }
    panels
}

/// A query as it stands in a dashboard.
#[derive(Debug, Clone)]
pub struct Query {
    /// Uid of the dashboard.
    pub dashboard: String,
    /// Title of the panel, or name of the variable.
    pub name: String,
    /// `time_series`, `table`, or `variable`.
    pub format: String,
    pub sql: String,
    /// Points at most.
    pub points: i64,
    /// Columns of a panel that have a look of their own; `None` where nothing is drawn.
    pub looks: Option<Vec<String>>,
    /// Variables of the dashboard.
    pub variables: Vec<Variable>,
}

#[derive(Debug, Clone)]
pub struct Variable {
    pub name: String,
    /// `query`, `custom` or `textbox`.
    pub kind: String,
    /// Choices of `custom`, text of `textbox`, SQL of `query`.
    pub options: Vec<String>,
}

impl Query {
    pub fn place(&self) -> String {
        format!("{}, {}", self.dashboard, self.name)
    }

    /// Whether a column has a look of its own, or nothing is drawn.
    pub fn is_looked_after(&self, column: &str) -> bool {
        self.looks.as_ref().is_none_or(|looks| looks.iter().any(|name| name == column))
    }

    /// What it is asked with over some hours up to a moment: All, or the first choice, where
    /// `chosen` does not say otherwise.
    pub fn context(
        &self,
        to_ms: i64,
        hours: i64,
        chosen: &BTreeMap<String, Vec<String>>,
    ) -> Context {
        let from_ms = to_ms - hours * 3_600_000;
        let mut context = Context::dashboard(from_ms, to_ms);
        context.interval_ms = context.interval_ms.max(interval((to_ms - from_ms) / self.points));
        for Variable { name, kind, options } in &self.variables {
            let value = match (chosen.get(name), kind.as_str()) {
                (Some(chosen), _) => chosen.clone(),
                (None, "query") => vec!["__all__".to_owned()],
                (None, _) => vec![options.first().cloned().unwrap_or_default()],
            };
            context.variables.insert(name.clone(), value);
        }
        context
    }
}

/// The step that Grafana chooses for so many milliseconds between points.
fn interval(ms: i64) -> i64 {
    let minutes = [1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 360, 720, 1_440];
    let steps = minutes.map(|minutes| minutes * 60_000);
    *steps.iter().find(|step| **step * 5 / 4 >= ms).unwrap_or(&86_400_000)
}

/// Every query of every panel, variable and annotation. The filters, which are the same on
/// several dashboards, come once.
pub fn all() -> Vec<Query> {
    let mut queries: Vec<Query> = Vec::new();
    for dashboard in dashboards() {
        let list = dashboard["templating"]["list"].as_array().expect("variables");
        let variables: Vec<Variable> = list.iter().map(variable).collect();
        let query = |name: &Value, format: &str, sql: &Value| Query {
            dashboard: text(&dashboard["uid"]),
            name: text(name),
            format: format.to_owned(),
            sql: text(sql),
            points: 500,
            looks: None,
            variables: variables.clone(),
        };
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().into_iter().flatten() {
                if target["rawSql"].is_string() {
                    let found = query(&panel["title"], &text(&target["format"]), &target["rawSql"]);
                    let points = panel["maxDataPoints"].as_i64().unwrap_or(500);
                    let overrides = panel["fieldConfig"]["overrides"].as_array().into_iter();
                    let looks = overrides.flatten().map(|o| text(&o["matcher"]["options"]));
                    // What is not shown here is shown, and named, by another panel.
                    let shown =
                        panel["transformations"][0]["options"]["include"]["names"].is_array();
                    let looks = (!shown).then(|| looks.collect());
                    queries.push(Query { points, looks, ..found });
                }
            }
        }
        for variable in list.iter().filter(|variable| variable["type"] == "query") {
            queries.push(query(&variable["name"], "variable", &variable["query"]));
        }
        for annotation in dashboard["annotations"]["list"].as_array().expect("annotations") {
            if annotation["target"]["rawSql"].is_string() {
                let sql = &annotation["target"]["rawSql"];
                queries.push(query(&annotation["name"], "annotation", sql));
            }
        }
    }
    let mut seen = Vec::new();
    queries.retain(|query| {
        let is_new = !seen.contains(&query.sql) || query.format == "time_series";
        seen.push(query.sql.clone());
        is_new
    });
    queries
}

fn variable(variable: &Value) -> Variable {
    let options = if variable["type"] == "query" {
        vec![text(&variable["query"])]
    } else {
        let options = variable["options"].as_array().expect("options").iter();
        options.map(|option| text(&option["value"])).collect()
    };
    Variable { name: text(&variable["name"]), kind: text(&variable["type"]), options }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
