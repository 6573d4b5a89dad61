//! One panel as JSON.

use serde_json::{Value, json};

use super::datasource::PROMETHEUS_UID;
use super::source::{Draw, Filters, Kind, Panel};
use super::{dashboard, field, head, one_line, sql};

/// Points of a line where the dashboard does not say: half an hour each in a day, three hours
/// in a week.
const POINTS: u32 = 60;

pub(super) fn json(panel: &Panel, filters: Filters, place: &Value) -> Value {
    let mut json = json!({
        "id": panel.id,
        "type": dashboard::kind_name(panel.kind),
        "title": panel.title,
        "description": description(panel),
        "gridPos": place,
        "datasource": datasource(panel),
        "targets": targets(panel, filters),
        "transformations": transformations(panel),
        "fieldConfig": field::config(panel),
        "options": options(panel),
        "transparent": false,
    });
    if matches!(panel.kind, Kind::Timeseries) {
        json["maxDataPoints"] = panel.points.unwrap_or(POINTS).into();
    }
    json
}

/// Markdown behind the panel's (i).
fn description(panel: &Panel) -> String {
    let (shows, formula, act) =
        (one_line(&panel.shows), one_line(&panel.formula), one_line(&panel.act));
    format!("{shows}\n\n**Formula:** {formula}\n\n**When it is bad:** {act}")
}

fn datasource(panel: &Panel) -> Value {
    if panel.from.is_some() {
        json!({"type": "datasource", "uid": "-- Dashboard --"})
    } else if panel.promql.is_empty() {
        head::database()
    } else {
        json!({"type": "prometheus", "uid": PROMETHEUS_UID})
    }
}

fn targets(panel: &Panel, filters: Filters) -> Value {
    if let Some(from) = panel.from {
        let datasource = datasource(panel);
        return json!([
            {"refId": "A", "datasource": datasource, "panelId": from, "withTransforms": false}
        ]);
    }
    if let Some(sql) = &panel.sql {
        let is_series = matches!(panel.kind, Kind::Timeseries | Kind::StateTimeline);
        let format = if is_series { "time_series" } else { "table" };
        return json!([{
            "refId": "A", "datasource": head::database(), "editorMode": "code", "rawQuery": true,
            "format": format, "rawSql": sql::expand(sql, filters),
        }]);
    }
    let targets = panel.promql.iter().enumerate().map(|(index, query)| {
        let name = char::from(b'A' + u8::try_from(index).expect("a few queries"));
        json!({
            "refId": name.to_string(), "datasource": datasource(panel), "editorMode": "code",
            "expr": query.expr, "legendFormat": query.legend, "range": true, "instant": false,
        })
    });
    targets.collect::<Vec<_>>().into()
}

/// Keeps the columns that are shown.
fn transformations(panel: &Panel) -> Value {
    if panel.show.is_empty() {
        return json!([]);
    }
    let mut names = panel.show.clone();
    if panel.kind == Kind::Timeseries {
        // Grafana's data source calls the column `time` so; names are compared as written.
        names.insert(0, "Time".to_owned());
    }
    json!([{"id": "filterFieldsByName", "options": {"include": {"names": names}}}])
}

fn options(panel: &Panel) -> Value {
    let columns = if panel.show.is_empty() { panel.fields.len() } else { panel.show.len() };
    let legend = json!({
        "showLegend": columns != 1, "displayMode": "list", "placement": "bottom", "calcs": [],
    });
    let tooltip = json!({"mode": "multi", "sort": "none"});
    match panel.kind {
        Kind::Stat => json!({
            "reduceOptions": {"values": false, "calcs": ["lastNotNull"], "fields": ""},
            "orientation": "auto", "textMode": if columns > 1 { "value_and_name" } else { "value" },
            "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "wideLayout": true,
        }),
        Kind::Timeseries => json!({"legend": legend, "tooltip": tooltip}),
        Kind::Table => json!({
            "showHeader": true, "cellHeight": "sm",
        }),
        Kind::Histogram => json!({
            "legend": {
                "showLegend": false, "displayMode": "list", "placement": "bottom", "calcs": [],
            },
            "tooltip": tooltip, "combine": false,
        }),
        Kind::StateTimeline => json!({
            "legend": legend, "tooltip": tooltip, "mergeValues": true, "showValue": "auto",
            "alignValue": "left", "rowHeight": 0.9,
        }),
        Kind::Trend => {
            let x = panel.show.first().map_or("elapsed", String::as_str);
            json!({"legend": legend, "tooltip": tooltip, "xField": x})
        }
    }
}

/// `fieldConfig.defaults.custom` of a kind of panel.
pub(super) fn custom(kind: Kind) -> Value {
    let hide = json!({"viz": false, "legend": false, "tooltip": false});
    match kind {
        Kind::Stat => json!({}),
        Kind::Table => json!({
            "align": "auto", "cellOptions": {"type": "auto"}, "inspect": false,
            "filterable": false,
        }),
        Kind::Histogram => json!({
            "fillOpacity": 70, "lineWidth": 1, "gradientMode": "none", "hideFrom": hide,
        }),
        Kind::StateTimeline => json!({"fillOpacity": 75, "lineWidth": 0, "hideFrom": hide}),
        Kind::Timeseries | Kind::Trend => {
            let mut custom = json!({
                "barAlignment": 0, "gradientMode": "none", "pointSize": 5, "hideFrom": hide,
                // A gap is a gap: too few sessions, or none.
                "showPoints": "auto", "spanNulls": false, "insertNulls": false,
                "axisPlacement": "auto", "axisLabel": "", "axisColorMode": "text",
                "axisCenteredZero": false, "scaleDistribution": {"type": "linear"},
                "thresholdsStyle": {"mode": "off"},
            });
            for (name, value) in drawn(Draw::Line) {
                custom[name] = value;
            }
            custom
        }
    }
}

/// Properties of `custom` for a way to draw.
pub(super) fn drawn(draw: Draw) -> Vec<(&'static str, Value)> {
    let is_bars = matches!(draw, Draw::Bars | Draw::Stacked);
    let (width, fill) = match draw {
        Draw::Line | Draw::Steps => (2, 8),
        Draw::Dashed => (1, 0),
        Draw::Bars => (0, 25),
        Draw::Stacked => (0, 70),
    };
    let dash = json!({"fill": if draw == Draw::Dashed { "dash" } else { "solid" }, "dash": [6, 6]});
    let stacking = if draw == Draw::Stacked { "normal" } else { "none" };
    vec![
        ("drawStyle", if is_bars { "bars" } else { "line" }.into()),
        ("lineWidth", width.into()),
        ("fillOpacity", fill.into()),
        ("lineStyle", dash),
        ("lineInterpolation", if draw == Draw::Steps { "stepAfter" } else { "linear" }.into()),
        ("stacking", json!({"group": "A", "mode": stacking})),
    ]
}
