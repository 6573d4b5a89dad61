//! Alerting: rules that are on by default, and the contact point for the channels set up.
//!
//! Grafana does not start with a file here that it cannot use. So nothing is written that
//! depends on a setting that may be missing, and tests check what Grafana checks.

mod channels;
mod reference;
mod rules;

pub use channels::{Channel, Channels};
pub use reference::reference;
pub use rules::Thresholds;

use super::datasource::{DATABASE_TYPE, DATABASE_UID};
use super::{File, MARK, literal};
use channels::CONTACT_POINT;
use rules::{Group, Rule};

/// Title of the rules' folder. Not that of the dashboards: Grafana looks for it by its title,
/// before the dashboards are there, and would make a second one of that title.
const FOLDER: &str = "Media3Watch Alerts";

/// What alerting depends on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Alerting {
    /// Where alerts are told.
    pub channels: Channels,
    /// Thresholds other than ours.
    pub thresholds: Thresholds,
}

pub(super) fn files(alerting: &Alerting) -> Vec<File> {
    vec![rules_file(alerting), channels::file(&alerting.channels)]
}

fn rules_file(alerting: &Alerting) -> File {
    let (groups, rules) = rules::all(&alerting.thresholds);
    let is_told = !alerting.channels.channels.is_empty();
    let mut text = format!(
        "{MARK}\n# What each rule means, and what to do: docs/alerts.md\napiVersion: 1\ngroups:\n"
    );
    for Group { name, every } in &groups {
        text += &format!(
            "  - orgId: 1
    name: {name}
    folder: {FOLDER}
    interval: {every}
    rules:
"
        );
        for rule in rules.iter().filter(|rule| rule.group == *name) {
            text += &rule_text(rule, is_told);
        }
    }
    File::new("provisioning/alerting/rules.yaml", text)
}

/// A text that Grafana does not fill in, as a YAML scalar.
fn raw(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn rule_text(rule: &Rule, is_told: bool) -> String {
    let (uid, title, panel) = (&rule.uid, literal(&rule.title()), rule.panel_id());
    let (dashboard, severity) = (&rule.panel.0, &rule.severity);
    let mut text = format!(
        "      - uid: {uid}
        title: {title}
        condition: C
        for: {}
",
        rule.pending
    );
    if let Some(keep) = &rule.keep {
        text += &format!("        keepFiringFor: {keep}\n");
    }
    text += &format!(
        "        noDataState: {}
        execErrState: {}
        dashboardUid: {dashboard}
        panelId: {panel}
        labels:
          severity: {severity}
          service: media3watch
        annotations:
          summary: {}
          description: {}
          see: {}
          # Grafana wants both or none.
          __dashboardUid__: {dashboard}
          __panelId__: \"{panel}\"
",
        rule.no_data,
        rule.on_error,
        raw(&rule.summary()),
        raw(&rule.act),
        // The address ends with a slash or not, depending on Grafana's version.
        raw(&format!("{{{{ reReplaceAll `/+\\z` `` externalURL }}}}/{}", rule.see)),
    );
    if is_told {
        text += &format!("        notification_settings:\n          receiver: {CONTACT_POINT}\n");
    }
    text += "        data:\n";
    // A, D and F ask; B, E and G take the newest number of each; C decides.
    let steps = [("A", "B"), ("D", "E"), ("F", "G")];
    for (sql, (ask, reduce)) in rule.queries().iter().zip(steps) {
        text += &query(ask, sql, rule.back);
        text += &reduced(reduce, ask);
        if ask == "A" {
            text += &threshold("C", reduce, rule);
        }
    }
    text
}

fn query(step: &str, sql: &str, back: u32) -> String {
    let sql = sql.replace('\n', "\n                ");
    format!(
        "          - refId: {step}
            datasourceUid: {DATABASE_UID}
            relativeTimeRange: {{from: {back}, to: 0}}
            model:
              refId: {step}
              datasource: {{type: {DATABASE_TYPE}, uid: {DATABASE_UID}}}
              editorMode: code
              rawQuery: true
              format: time_series
              intervalMs: 1000
              maxDataPoints: 43200
              rawSql: |-
                {sql}
"
    )
}

fn expression(step: &str, kind: &str, of: &str) -> String {
    format!(
        "          - refId: {step}
            datasourceUid: __expr__
            model:
              refId: {step}
              type: {kind}
              expression: {of}
              datasource: {{type: __expr__, uid: __expr__}}
"
    )
}

fn reduced(step: &str, of: &str) -> String {
    expression(step, "reduce", of) + "              reducer: last\n"
}

fn threshold(step: &str, of: &str, rule: &Rule) -> String {
    let side = if rule.below { "lt" } else { "gt" };
    let condition = format!(
        "              conditions:\n                - evaluator: {{type: {side}, params: [{}]}}\n",
        rule.limit()
    );
    expression(step, "threshold", of) + &condition
}
