//! The JSON of the dashboards: what Grafana would not say, or only in a browser.

use std::collections::{BTreeMap, BTreeSet};

use media3watch::grafana::{self, Options};
use serde_json::Value;

use super::queries::{dashboards, panels};

/// Units that Grafana 11 to 13 know, of those that we would use.
const UNITS: [&str; 13] = [
    "ms",
    "s",
    "percentunit",
    "bps",
    "bytes",
    "decbytes",
    "short",
    "reqps",
    "dateTimeAsIso",
    "dateTimeAsLocal",
    "none",
    "Mbits",
    "string",
];
const TYPES: [&str; 7] =
    ["row", "stat", "timeseries", "table", "histogram", "state-timeline", "trend"];

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// Values under a key, at any depth.
fn all<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if name == key {
                    found.push(value);
                }
                all(value, key, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| all(value, key, found)),
        _ => {}
    }
}

fn every<'v>(value: &'v Value, key: &str) -> Vec<&'v Value> {
    let mut found = Vec::new();
    all(value, key, &mut found);
    found
}

/// Names of a dashboard's variables.
fn variables(dashboard: &Value) -> BTreeSet<&str> {
    let list = dashboard["templating"]["list"].as_array().expect("variables");
    list.iter().map(|variable| text(&variable["name"])).collect()
}

#[test]
fn dashboards_are_what_other_files_call_them() {
    let dashboards = dashboards();
    let names: Vec<_> = dashboards.iter().map(|d| (text(&d["uid"]), text(&d["title"]))).collect();
    let expected = [
        ("m3w-overview", "Media3Watch Overview"),
        ("m3w-breakdown", "Breakdown"),
        ("m3w-explorer", "Session Explorer"),
        ("m3w-session", "Session Detail"),
        ("m3w-quality", "Data Quality"),
        ("m3w-backend", "Backend Health"),
    ];
    assert_eq!(names, expected);
    for dashboard in &dashboards {
        assert!(dashboard["id"].is_null());
        assert_eq!(dashboard["schemaVersion"], 39);
        assert_eq!(dashboard["graphTooltip"], 1);
        assert_eq!(dashboard["tags"], serde_json::json!(["media3watch"]));
        assert!(text(&dashboard["description"]).ends_with(['?', '.']));
        let refresh = text(&dashboard["refresh"]);
        assert!(["30s", "1m", "5m"].contains(&refresh), "{refresh}");
        let link = &dashboard["links"][0];
        assert_eq!((&link["keepTime"], &link["includeVars"]), (&true.into(), &true.into()));
        assert_eq!(link["tags"], dashboard["tags"]);
    }
}

#[test]
fn session_dashboards_have_the_same_filters_first() {
    for dashboard in dashboards() {
        let list = dashboard["templating"]["list"].as_array().expect("variables");
        let names: Vec<&str> = list.iter().map(|variable| text(&variable["name"])).collect();
        let filters = ["tenant", "stream_type", "app_version", "device_model", "content_id"];
        match text(&dashboard["uid"]) {
            // These two take the filters along, out of sight, for the way back.
            "m3w-backend" => {
                assert_eq!(names[..2], ["instance", "disk_gb"]);
                assert_eq!(names[2..], filters);
                assert!(list[2..].iter().all(|variable| variable["hide"] == 2));
            }
            "m3w-session" => {
                assert_eq!(names[..2], ["tenant", "session_id"]);
                assert_eq!(names[2..], filters[1..]);
                assert!(list[2..].iter().all(|variable| variable["hide"] == 2));
            }
            _ => assert_eq!(names[..5], filters),
        }
        for variable in list.iter().filter(|variable| variable["type"] == "query") {
            assert_eq!(variable["allValue"], "'__all__'");
            assert_eq!(variable["current"]["value"], serde_json::json!(["$__all"]));
        }
    }
}

#[test]
fn panels_have_ids_places_and_words() {
    for dashboard in dashboards() {
        let uid = text(&dashboard["uid"]);
        let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
        for panel in panels(&dashboard) {
            let title = text(&panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{uid}: id of {title}");
            assert!(titles.insert(title), "{uid}: {title} twice");
            let kind = text(&panel["type"]);
            assert!(TYPES.contains(&kind), "{uid}: {kind}");
            if kind == "row" {
                continue;
            }
            let words = text(&panel["description"]);
            for part in ["\n\n**Formula:** ", "\n\n**When it is bad:** "] {
                assert!(words.contains(part), "{uid}: {title} does not say {part}");
            }
            assert!(words.len() > 80 && !words.contains(":** \n"), "{uid}: {title}: {words}");
            let empty = text(&panel["fieldConfig"]["defaults"]["noValue"]);
            assert!(!empty.is_empty() && empty != "No data", "{uid}: {title}");
        }
    }
}

#[test]
fn panels_lie_on_the_grid_and_not_on_each_other() {
    for dashboard in dashboards() {
        let mut taken: BTreeMap<(u64, u64), &str> = BTreeMap::new();
        for panel in panels(&dashboard) {
            let title = text(&panel["title"]);
            let at = |side: &str| panel["gridPos"][side].as_u64().expect("a place");
            assert!(at("x") + at("w") <= 24, "{title}");
            for (x, y) in (at("x")..at("x") + at("w"))
                .flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
            {
                let other = taken.insert((x, y), title);
                assert!(other.is_none(), "{title} lies on {}", other.unwrap_or_default());
            }
        }
        // Nothing hangs in the air: Grafana would pull it up and look other than the file says.
        let gaps = taken.keys().filter(|(x, y)| *y > 0 && !taken.contains_key(&(*x, y - 1)));
        assert_eq!(gaps.count(), 0, "{}", dashboard["title"]);
    }
}

#[test]
fn units_are_known() {
    for dashboard in dashboards() {
        let mut units: Vec<&Value> = every(&dashboard["panels"], "unit");
        let properties = every(&dashboard["panels"], "properties");
        let properties = properties.into_iter().flat_map(|list| list.as_array().expect("a list"));
        units.extend(properties.filter(|p| p["id"] == "unit").map(|p| &p["value"]));
        assert!(units.len() > 5);
        for unit in units {
            assert!(UNITS.contains(&text(unit)), "{unit}");
        }
    }
}

#[test]
fn links_lead_to_dashboards_and_variables_that_exist() {
    let dashboards = dashboards();
    let mut checked = 0;
    for dashboard in &dashboards {
        for panel in panels(dashboard) {
            let urls = every(panel, "url").into_iter().map(text).filter(|url| !url.is_empty());
            for url in urls {
                check_link(url, dashboard, panel, &dashboards);
                checked += 1;
            }
        }
    }
    assert!(checked >= 10, "{checked}");
}

fn check_link(url: &str, from: &Value, panel: &Value, dashboards: &[Value]) {
    let path = url.strip_prefix("/d/").unwrap_or_else(|| panic!("{url}"));
    let (path, query) = path.split_once('?').expect("a query");
    let (uid, _) = path.split_once('/').expect("a slug");
    let target = dashboards.iter().find(|dashboard| dashboard["uid"] == uid);
    let target = target.unwrap_or_else(|| panic!("{url}: no dashboard {uid}"));
    let (here, there) = (variables(from), variables(target));
    let overrides = every(panel, "matcher");
    let columns: Vec<&str> = overrides.into_iter().map(|m| text(&m["options"])).collect();
    for part in query.split('&') {
        if let Some((name, value)) = part.strip_prefix("var-").and_then(|p| p.split_once('=')) {
            assert!(there.contains(name), "{url}: {uid} has no variable {name}");
            assert!(value.contains("percentencode"), "{url}");
            if let Some(column) = value.strip_prefix("${__data.fields.") {
                let column = column.split(':').next().expect("a name");
                assert!(columns.contains(&column), "{url}: no column {column}");
            }
        } else if let Some(name) = part.strip_prefix("${").filter(|p| p.ends_with(":queryparam}")) {
            let name = name.split(':').next().expect("a name");
            assert!(here.contains(name) && there.contains(name), "{url}: {name}");
        } else {
            let known = [
                "${__url_time_range}",
                "from=${__data.fields.from_ms.numeric}",
                "to=${__data.fields.to_ms.numeric}",
            ];
            assert!(known.contains(&part), "{url}: {part}");
        }
    }
}

#[test]
fn sql_is_as_grafana_needs_it() {
    for dashboard in dashboards() {
        let known = variables(&dashboard);
        for target in every(&dashboard, "targets").into_iter().filter_map(Value::as_array).flatten()
        {
            let Some(sql) = target["rawSql"].as_str() else { continue };
            assert!(!sql.contains("--") && !sql.contains("/*") && !sql.contains("{{"), "{sql}");
            assert!(!sql.contains("[["), "Grafana's old notation for variables: {sql}");
            for rest in sql.split('$').skip(1) {
                let is_macro = rest.starts_with("__");
                let is_text = rest.starts_with('\'');
                let is_variable = rest.strip_prefix('{').is_some_and(|rest| {
                    let name = rest.split(':').next().expect("a name");
                    known.contains(name) && rest[name.len()..].starts_with(":sqlstring}")
                });
                assert!(is_macro || is_text || is_variable, "${rest:.30} in\n{sql}");
            }
            let is_one_row = !sql.contains("GROUP BY") && sql.contains("count(")
                || sql.ends_with("AS totals")
                || sql.contains("max(\"time\")")
                || sql.contains("AS instances")
                || sql.contains("AS growth");
            if target["format"] == "table" && !is_one_row {
                assert!(sql.contains("LIMIT "), "no LIMIT in\n{sql}");
            }
            let formats = ["table", "time_series"];
            assert!(formats.contains(&text(&target["format"])));
            assert_eq!(target["datasource"]["uid"], "media3watch-db");
        }
        for (name, text) in every(&dashboard, "title").into_iter().map(|t| ("title", text(t))) {
            assert!(!text.contains('$') || text.contains("${"), "{name} {text}");
        }
    }
}

#[test]
fn panels_that_take_rows_from_another_find_their_columns_there() {
    let mut taken = 0;
    for dashboard in dashboards() {
        let panels = panels(&dashboard);
        for panel in &panels {
            let target = &panel["targets"][0];
            let Some(from) = target["panelId"].as_u64() else { continue };
            let source = panels.iter().find(|panel| panel["id"] == from).expect("a panel");
            let sql = text(&source["targets"][0]["rawSql"]);
            let shown = &panel["transformations"][0]["options"]["include"]["names"];
            // The data source renames the column `time` of a series to `Time`.
            let is_series = source["targets"][0]["format"] == "time_series";
            assert_eq!(shown[0] == "Time", is_series, "{shown}");
            for name in shown.as_array().expect("names").iter().map(text) {
                let is_there = (is_series && name == "Time")
                    || sql.contains(&format!("AS {name}"))
                    || sql.contains(&format!(" {name},"));
                assert!(is_there, "{name} of panel {from}");
            }
            taken += 1;
        }
    }
    assert!(taken >= 10, "{taken}");
}

#[tokio::test]
async fn metrics_that_are_asked_for_exist() {
    let server = crate::support::Server::start().await;
    let text = server.get("/metrics").await.text;
    let known: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
    let mut asked = 0;
    for dashboard in dashboards() {
        for expr in every(&dashboard, "expr").into_iter().map(self::text) {
            let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for word in words.filter(|word| word.contains('_') && !word.starts_with('_')) {
                if word == "histogram_quantile" {
                    continue;
                }
                let name = ["_bucket", "_sum", "_count"].iter();
                let name =
                    name.filter_map(|end| word.strip_suffix(end)).find(|n| known.contains(n));
                assert!(known.contains(name.unwrap_or(word)), "{word} in {expr}");
                asked += 1;
            }
        }
    }
    assert!(asked >= 10, "{asked}");
}

#[test]
fn without_prometheus_nothing_asks_it() {
    let options = Options { prometheus: None, ..Options::compose() };
    let without = grafana::files(&options);
    assert!(without.iter().all(|file| !file.text.to_lowercase().contains("prometheus\"")));
    let datasource = &without[0];
    assert!(datasource.path.contains("datasources") && !datasource.text.contains("prometheus"));
    let with = grafana::files(&Options::compose());
    assert!(with[0].text.contains("media3watch-prometheus"));
    let asked = with.iter().filter(|file| file.text.contains("\"expr\"")).count();
    assert_eq!(asked, 1, "backend.json alone");
}
