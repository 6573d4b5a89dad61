//! The files about alerting: what Grafana would refuse at its start, and what would lead
//! nowhere.

use std::collections::BTreeSet;

use media3watch::grafana::{Alerting, Thresholds, alerts_reference};
use serde_json::Value;

use super::evaluate::{rules, yaml};
use super::macros::{Context, expand};
use crate::support::{Database, Server};

const FILE: &str = "provisioning/alerting/rules.yaml";
/// 2026-11-18T11:08:20Z.
const NOW_MS: i64 = 1_795_000_100_000;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Seconds of `90s`, `5m` or `1h`.
fn seconds(duration: &str) -> u32 {
    let (number, unit) = duration.split_at(duration.len() - 1);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => panic!("{duration} has no unit"),
    };
    number.parse::<u32>().expect("a number") * unit
}

#[test]
fn rules_are_as_grafana_wants_them() {
    let (mut uids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for rule in rules() {
        let uid = text(&rule["uid"]);
        assert!(uids.insert(uid.to_owned()), "{uid} twice");
        assert!(titles.insert(text(&rule["title"]).to_owned()), "{uid}: title twice");
        assert!(uid.len() <= 40 && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        assert!(["OK", "KeepLast", "Alerting"].contains(&text(&rule["noDataState"])), "{uid}");
        assert!(["OK", "KeepLast", "Alerting"].contains(&text(&rule["execErrState"])), "{uid}");
        assert!(["warning", "critical"].contains(&text(&rule["labels"]["severity"])), "{uid}");
        seconds(text(&rule["for"]));
        if !rule["keepFiringFor"].is_null() {
            seconds(text(&rule["keepFiringFor"]));
        }
        let steps = rule["data"].as_array().expect("steps");
        let names: BTreeSet<_> = steps.iter().map(|step| text(&step["refId"])).collect();
        assert_eq!(names.len(), steps.len(), "{uid}");
        assert!(names.contains(text(&rule["condition"])), "{uid}");
        for step in steps {
            assert_eq!(step["refId"], step["model"]["refId"], "{uid}");
            if step["datasourceUid"] == "__expr__" {
                assert!(names.contains(text(&step["model"]["expression"])), "{uid}");
            } else {
                assert_eq!(step["datasourceUid"], "media3watch-db");
                let range = &step["relativeTimeRange"];
                assert!(range["from"].as_u64() > range["to"].as_u64(), "{uid}");
            }
        }
        assert!(rule["notification_settings"].is_null(), "{uid}: nobody is to be told");
    }
    assert_eq!(uids.len(), 10);
}

#[test]
fn groups_keep_to_grafanas_beat_and_have_a_folder_of_their_own() {
    let groups = yaml(&super::file(FILE, &Alerting::default()))["groups"].clone();
    for group in groups.as_array().expect("groups") {
        assert_eq!(group["orgId"], 1);
        // The folder of the dashboards is looked for by its uid, this one by its title.
        assert_eq!(group["folder"], "Media3Watch Alerts");
        let every = seconds(text(&group["interval"]));
        assert_eq!(every % 10, 0, "Grafana does not start");
        for rule in group["rules"].as_array().expect("rules") {
            assert_eq!(seconds(text(&rule["for"])) % every, 0, "{}", rule["uid"]);
        }
    }
}

/// Grafana fills in `$NAME` in titles and labels, `${NAME}` in annotations too, and nothing in
/// queries. In annotations `$values` belongs to the template.
#[test]
fn a_dollar_stands_only_where_it_survives() {
    for rule in rules() {
        assert!(!text(&rule["title"]).contains('$'));
        assert!(!rule["labels"].to_string().contains('$'));
        let steps = rule["data"].as_array().expect("steps");
        let reduced: BTreeSet<_> = steps
            .iter()
            .filter(|step| step["model"]["type"] == "reduce")
            .map(|step| text(&step["refId"]).to_owned())
            .collect();
        for (name, annotation) in rule["annotations"].as_object().expect("annotations") {
            let annotation = text(annotation);
            for part in annotation.split('$').skip(1) {
                let step = part.strip_prefix("values.").and_then(|rest| rest.get(..1));
                let step = step.unwrap_or_else(|| panic!("{name}: {annotation}"));
                assert!(reduced.contains(step), "{name}: {annotation}");
            }
            let opened = annotation.matches("{{").count();
            assert_eq!(opened, annotation.matches("}}").count(), "{annotation}");
            let conditions = annotation.matches("{{ if ").count();
            assert_eq!(conditions, annotation.matches("{{ end }}").count(), "{annotation}");
            let without = annotation.split("{{").map(|part| part.rsplit("}}").next());
            let without: String = without.flatten().collect();
            assert!(!without.contains(['{', '}']), "a placeholder in {annotation}");
        }
    }
}

#[test]
fn links_lead_to_panels_and_dashboards_that_exist() {
    let dashboards = super::dashboards();
    for rule in rules() {
        let uid = text(&rule["uid"]);
        let (dashboard, panel) = (&rule["dashboardUid"], &rule["panelId"]);
        // Grafana does not start with one of them alone.
        let annotations = &rule["annotations"];
        assert_eq!(annotations["__dashboardUid__"], *dashboard, "{uid}");
        assert_eq!(annotations["__panelId__"], panel.to_string(), "{uid}");
        let found = dashboards.iter().find(|found| found["uid"] == *dashboard).expect(uid);
        assert!(has_panel(&found["panels"], panel), "{uid}: no panel {panel} on {dashboard}");

        let (_, see) = text(&annotations["see"]).split_once("}}/d/").expect("a link");
        let (target, query) = see.split_once('?').expect("a query");
        let target = dashboards.iter().find(|dashboard| dashboard["uid"] == target);
        let target = target.unwrap_or_else(|| panic!("{uid}: {see} leads nowhere"));
        for pair in query.split('&') {
            let Some((name, _)) = pair.strip_prefix("var-").and_then(|pair| pair.split_once('='))
            else {
                assert!(pair.starts_with("from=now-") || pair == "to=now", "{uid}: {pair}");
                continue;
            };
            let variables = target["templating"]["list"].as_array().expect("variables");
            assert!(variables.iter().any(|known| known["name"] == name), "{uid}: no {name}");
        }
    }
}

fn has_panel(panels: &Value, id: &Value) -> bool {
    let mut panels = panels.as_array().into_iter().flatten();
    panels.any(|panel| panel["id"] == *id || has_panel(&panel["panels"], id))
}

#[test]
fn one_rule_alone_fires_when_the_database_is_gone() {
    let firing: Vec<_> = rules()
        .into_iter()
        .filter(|rule| rule["execErrState"] == "Alerting" || rule["noDataState"] == "Alerting")
        .map(|rule| text(&rule["uid"]).to_owned())
        .collect();
    assert_eq!(firing, ["m3w-database"]);
}

#[test]
fn chosen_thresholds_are_used_and_said() {
    let thresholds = Thresholds::from([
        ("ALERT_ERROR_RATE_PERCENT".to_owned(), 7.5),
        ("ALERT_STARTUP_P95_MS".to_owned(), 3_500.0),
    ]);
    let text = super::file(FILE, &Alerting { thresholds, ..Alerting::default() });
    for part in
        ["Error rate above 7.5 %", "params: [0.075]", "params: [3500]", "above 3.5 s", "> 3500"]
    {
        assert!(text.contains(part), "{part}");
    }
}

/// Sessions are partitioned by month: a rule that looks a day back must not read a year.
#[tokio::test]
async fn rules_read_the_months_they_need() {
    let server = Server::at(NOW_MS).await;
    for rule in rules() {
        for step in rule["data"].as_array().expect("steps") {
            let Some(sql) = step["model"]["rawSql"].as_str() else { continue };
            let back = step["relativeTimeRange"]["from"].as_i64().expect("a range") * 1_000;
            let sql = expand(sql, &Context::alert(NOW_MS - back, NOW_MS)).expect("macros");
            let plan = plan(&server.database, &sql).await;
            let tables = plan.split(" on ").skip(1).filter_map(|rest| rest.split(' ').next());
            let months: BTreeSet<_> =
                tables.filter(|table| table.starts_with("sessions_")).collect();
            let expected = usize::from(sql.contains("session_qoe"));
            assert_eq!(months.len(), expected, "{}\n{plan}", rule["uid"]);
        }
    }
}

async fn plan(database: &Database, sql: &str) -> String {
    database.lines(&format!("EXPLAIN {sql}")).await.join(" ")
}

#[test]
fn the_document_says_what_the_rules_do() {
    crate::docs::check_block("docs/alerts.md", "rules", &alerts_reference());
}
