//! What all dashboards share: variables, links to each other, annotations.

use serde_json::{Value, json};

use super::TAG;
use super::datasource::{DATABASE_TYPE, DATABASE_UID};
use super::source::{Filters, Variable};
use super::sql::{self, FILTERS};

/// The PostgreSQL data source, as panels name it.
pub(super) fn database() -> Value {
    json!({"type": DATABASE_TYPE, "uid": DATABASE_UID})
}

/// The filters, then what is the dashboard's own, then filters that do nothing here and are
/// taken along out of sight, so that links lead back with them.
pub(super) fn variables(filters: Filters, own: &[Variable]) -> Value {
    let count = match filters {
        Filters::All => FILTERS.len(),
        Filters::Tenant => 1,
        Filters::None => 0,
    };
    let filters = FILTERS[..count].iter().copied().map(filter);
    let hidden = FILTERS[count..].iter().copied().map(|column| {
        let mut hidden = filter(column);
        hidden["hide"] = 2.into();
        hidden
    });
    let list: Vec<_> = filters.chain(own.iter().map(variable)).chain(hidden).collect();
    json!({"list": list})
}

fn filter((name, column): (&str, &str)) -> Value {
    let label = match name {
        "tenant" => "Tenant",
        "stream_type" => "Stream type",
        "app_version" => "App version",
        "device_model" => "Device",
        _ => "Content",
    };
    let about =
        "The choices are the values of the time range with the most sessions; others can be typed.";
    query(name, label, about, &sql::choices((name, column)))
}

fn variable(variable: &Variable) -> Value {
    let Variable { name, label, choices, sql, text, about } = variable;
    if let Some(sql) = sql {
        return query(name, label, about, sql.trim());
    }
    if choices.is_empty() {
        let chosen = json!({"selected": true, "text": text, "value": text});
        return json!({
            "name": name, "label": label, "description": about, "type": "textbox", "hide": 0,
            "skipUrlSync": false, "query": text, "current": chosen, "options": [chosen],
        });
    }
    let options: Vec<_> = (0..)
        .zip(choices)
        .map(|(index, choice)| {
            json!({"selected": index == 0, "text": choice.label, "value": choice.value})
        })
        .collect();
    let query: Vec<_> =
        choices.iter().map(|choice| format!("{} : {}", choice.label, choice.value)).collect();
    json!({
        "name": name, "label": label, "description": about, "type": "custom", "hide": 0,
        "skipUrlSync": false, "multi": false, "includeAll": false, "query": query.join(", "),
        "current": options[0], "options": options,
    })
}

/// A variable of which several values, or all, can be chosen.
fn query(name: &str, label: &str, about: &str, sql: &str) -> Value {
    json!({
        "name": name, "label": label, "description": about, "type": "query", "hide": 0,
        "datasource": database(), "query": sql, "definition": sql, "regex": "",
        // 2: whenever the time range changes.
        "refresh": 2, "sort": 0, "skipUrlSync": false,
        "multi": true, "includeAll": true, "allValue": "'__all__'",
        "current": {"selected": true, "text": ["All"], "value": ["$__all"]}, "options": [],
    })
}

/// Links to the other dashboards, which keep time and variables.
pub(super) fn links() -> Value {
    json!([{
        "type": "dashboards", "title": "Media3Watch", "tags": [TAG], "asDropdown": false,
        "keepTime": true, "includeVars": true, "targetBlank": false,
        "icon": "external link", "tooltip": "", "url": "",
    }])
}

/// The address of a dashboard with this one's time and filters, and `value` in `variable`.
pub(super) fn here(uid: &str, variable: &str, value: &str) -> String {
    let filters = filters_but(variable);
    format!("/d/{uid}/x?${{__url_time_range}}{filters}&var-{variable}={value}")
}

/// The filters as they are, but for one, for an address.
pub(super) fn filters_but(variable: &str) -> String {
    let names = FILTERS.iter().map(|(name, _)| *name).filter(|name| *name != variable);
    names.flat_map(|name| ["&${", name, ":queryparam}"]).collect()
}

/// A new version or a restart explains many a step in a line.
const STARTS: &str = "\
SELECT started_at AS time, 'Backend ' || version || ' started on ' || instance AS text, 'backend' AS tags
FROM backend_minutes
WHERE $__timeFilter(started_at) AND \"time\" >= $__timeFrom()::timestamptz
GROUP BY started_at, version, instance
ORDER BY started_at DESC LIMIT 100";

pub(super) fn annotations() -> Value {
    json!({"list": [
        {
            "name": "Annotations & Alerts", "type": "dashboard", "builtIn": 1, "enable": true,
            "hide": true, "iconColor": "rgba(0, 211, 255, 1)",
            "datasource": {"type": "grafana", "uid": "-- Grafana --"},
            "target": {"limit": 100, "matchAny": false, "tags": [], "type": "dashboard"},
        },
        {
            "name": "Backend starts", "enable": true, "hide": false, "iconColor": "blue",
            "datasource": database(),
            "target": {
                "refId": "Starts", "editorMode": "code", "format": "table", "rawQuery": true,
                "rawSql": STARTS,
            },
        },
    ]})
}
