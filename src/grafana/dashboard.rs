//! One dashboard as JSON, and the provider that loads all of them.

use serde_json::{Value, json};

use super::layout::Flow;
use super::source::{self, Dashboard, Filters, Kind, Panel, Row};
use super::{FOLDER, FOLDER_UID, File, MARK, Options, TAG, head, literal, panel};

/// Ids of row headers, which nobody links to, begin here.
const FIRST_HEADER: usize = 1_000;

/// The provider: which directory Grafana loads dashboards from.
pub(super) fn provider(options: &Options) -> File {
    let text = format!(
        "{MARK}
apiVersion: 1
providers:
  - name: {FOLDER}
    orgId: 1
    type: file
    folder: {FOLDER}
    folderUid: {FOLDER_UID}
    disableDeletion: false
    # To change one, save it under another name: files come back at the next start.
    allowUiUpdates: false
    updateIntervalSeconds: 30
    options:
      path: {}
",
        literal(&options.dashboards_path)
    );
    File::new("provisioning/dashboards/media3watch.yaml", text)
}

/// All dashboards.
pub(super) fn files(options: &Options) -> Vec<File> {
    let with_prometheus = options.prometheus.is_some();
    let file = |(name, dashboard): (&str, Dashboard)| {
        let json = json(&dashboard, with_prometheus);
        let text = serde_json::to_string_pretty(&json).expect("JSON") + "\n";
        File::new(format!("dashboards/{name}.json"), text)
    };
    source::dashboards().into_iter().map(file).collect()
}

fn json(dashboard: &Dashboard, with_prometheus: bool) -> Value {
    let Dashboard { uid, title, question, last, filters, variables, rows } = dashboard;
    let mut flow = Flow::default();
    let mut panels = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let needs_prometheus = row.panels.iter().any(|panel| !panel.promql.is_empty());
        if with_prometheus || !needs_prometheus {
            place(row, FIRST_HEADER + index, *filters, &mut flow, &mut panels);
        }
    }
    json!({
        "id": null, "uid": uid, "title": title, "description": question.trim(),
        "tags": [TAG], "schemaVersion": 39, "version": 1, "editable": true,
        "fiscalYearStartMonth": 0, "weekStart": "", "timezone": "browser", "preload": false,
        // One crosshair on all panels.
        "graphTooltip": 1,
        "liveNow": false,
        // No faster: each refresh asks the database for all of it.
        "refresh": "1m",
        "time": {"from": format!("now-{last}"), "to": "now"},
        "timepicker": {"refresh_intervals": ["30s", "1m", "5m", "15m", "1h"]},
        "templating": head::variables(*filters, variables),
        "links": head::links(),
        "annotations": head::annotations(),
        "panels": panels,
    })
}

/// Adds a row's header and panels. Those of a closed row are within its header.
fn place(row: &Row, id: usize, filters: Filters, flow: &mut Flow, panels: &mut Vec<Value>) {
    let header = row.title.as_ref().map(|title| {
        json!({
            "id": id, "type": "row", "title": title, "collapsed": row.collapsed,
            "gridPos": flow.place_header(), "panels": [],
        })
    });
    let mut json = |source: &Panel| panel::json(source, filters, &flow.place(source.size));
    let placed: Vec<Value> = row.panels.iter().map(&mut json).collect();
    match header {
        Some(mut header) if row.collapsed => {
            header["panels"] = placed.into();
            panels.push(header);
        }
        header => {
            panels.extend(header);
            panels.extend(placed);
        }
    }
}

/// The type of a panel in Grafana.
pub(super) const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Stat => "stat",
        Kind::Timeseries => "timeseries",
        Kind::Table => "table",
        Kind::Histogram => "histogram",
        Kind::StateTimeline => "state-timeline",
        Kind::Trend => "trend",
    }
}
