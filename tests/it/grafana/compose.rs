//! `compose.yaml` as far as it can be checked without containers: who waits for whom, what is
//! pinned, which secrets have a default, and that the commands in it are understood.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use media3watch::config::ALERT_VARIABLES;
use media3watch::grafana::Channel;
use serde_json::Value;

use super::evaluate::yaml;
use crate::support::bin;

/// Secrets that have a default, which the documentation tells to change.
const DEFAULT_SECRETS: [(&str, &str); 5] = [
    ("M3W_API_KEY", "dev-key"),
    ("DATABASE_PASSWORD", "m3w"),
    ("GRAFANA_DB_PASSWORD", "grafana"),
    ("GRAFANA_ADMIN_PASSWORD", "admin"),
    ("GRAFANA_SECRET_KEY", "media3watch-not-secret"),
];

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).expect(name)
}

fn compose() -> Value {
    yaml(&read("compose.yaml"))
}

fn services() -> BTreeMap<String, Value> {
    let services = compose()["services"].as_object().expect("services").clone();
    services.into_iter().collect()
}

/// Variables that compose fills in, with their defaults.
fn variables() -> BTreeSet<(String, String)> {
    let text = read("compose.yaml");
    let inner = text.split("${").skip(1).filter_map(|rest| rest.split('}').next());
    let split = |inner: &str| {
        let (name, default) = inner.split_once(":-").unwrap_or((inner, ""));
        (name.to_owned(), default.to_owned())
    };
    inner.map(split).collect()
}

/// A text of the file, as compose makes it with an empty environment.
fn filled(text: &str) -> String {
    let mut filled = text.to_owned();
    for (name, default) in variables() {
        filled = filled.replace(&format!("${{{name}:-{default}}}"), &default);
    }
    assert!(!filled.contains("${"), "{filled}");
    filled
}

fn arguments(service: &Value) -> Vec<String> {
    let command = service["command"].as_array().expect("a command");
    command.iter().map(|part| filled(part.as_str().expect("text"))).collect()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().expect("an object").keys().cloned().collect()
}

#[test]
fn grafana_starts_on_files_that_are_complete() {
    let services = services();
    let (grafana, files) = (&services["grafana"], &services["grafana-files"]);
    let waits = &grafana["depends_on"]["grafana-files"]["condition"];
    assert_eq!(waits, "service_completed_successfully");
    // A backend that does not come up is what Grafana has to tell about.
    assert_eq!(grafana["depends_on"]["backend"]["condition"], "service_started");
    assert_eq!(files["network_mode"], "none");
    assert!(files["depends_on"].is_null(), "it needs nobody");
    let mounts = |service: &Value| service["volumes"].clone();
    assert_eq!(mounts(files)[0], "grafana-files:/etc/media3watch");
    assert_eq!(mounts(grafana)[1], "grafana-files:/etc/media3watch:ro");
    let environment = &grafana["environment"];
    assert_eq!(environment["GF_PATHS_PROVISIONING"], "/etc/media3watch/provisioning");
    for volume in ["grafana-files", "grafana-data", "postgres-data", "prometheus-data"] {
        assert!(compose()["volumes"].as_object().expect("volumes").contains_key(volume));
    }
}

#[test]
fn both_know_the_same_channels() {
    let services = services();
    let known: BTreeSet<_> =
        ALERT_VARIABLES.iter().map(|variable| variable.name.to_owned()).collect();
    let files = keys(&services["grafana-files"]["environment"]);
    assert_eq!(files, known);
    let grafana = &services["grafana"]["environment"];
    for name in Channel::ALL.iter().flat_map(|channel| channel.variables()) {
        // Empty when unset, not absent: an export that names a channel Grafana does not know
        // would keep it from starting.
        assert_eq!(grafana[*name], services["grafana-files"]["environment"][*name], "{name}");
        assert_eq!(grafana[*name], format!("${{{name}:-}}"));
    }
    assert_eq!(
        grafana["GRAFANA_DB_PASSWORD"],
        services["backend"]["environment"]["GRAFANA_DB_PASSWORD"]
    );
}

#[test]
fn images_are_pinned() {
    for (name, service) in services() {
        let image = service["image"].as_str().expect("an image");
        let (_, tag) = image.split_once(':').expect("a tag");
        let is_ours = tag == "${MEDIA3WATCH_VERSION:-dev}";
        assert!(is_ours || tag.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()));
        // Nobody has published ours: what is not built here is not pulled either.
        assert!(
            !is_ours || service.get("build").is_some() || service["pull_policy"] == "never",
            "{name}"
        );
    }
}

#[test]
fn no_secret_has_a_default_but_those_that_are_documented() {
    let example = read(".env.example");
    for (name, default) in variables() {
        let is_secret =
            ["PASSWORD", "KEY", "TOKEN", "WEBHOOK", "NTFY"].iter().any(|word| name.contains(word));
        if is_secret && !default.is_empty() {
            assert!(DEFAULT_SECRETS.contains(&(name.as_str(), default.as_str())), "{name}");
        }
        assert!(example.contains(&format!("\n#{name}=")), ".env.example does not know {name}");
        if !default.is_empty() {
            let line = format!("\n#{name}={default}\n");
            assert!(example.contains(&line), ".env.example has another default of {name}");
        }
    }
}

#[test]
fn what_has_a_known_password_is_for_this_machine() {
    let services = services();
    for name in ["postgres", "grafana"] {
        let port = filled(services[name]["ports"][0].as_str().expect("a port"));
        assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
    }
    let environment = &services["grafana"]["environment"];
    for name in ["GF_AUTH_ANONYMOUS_ENABLED", "GF_USERS_ALLOW_SIGN_UP"] {
        assert_eq!(environment[name], "false");
    }
    assert!(services["prometheus"]["ports"].is_null());
}

#[test]
fn containers_have_no_more_rights_than_they_need() {
    for (name, service) in services() {
        assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{name}");
        // Postgres' image changes its user itself.
        if name != "postgres" {
            assert_eq!(service["cap_drop"][0], "ALL", "{name}");
            assert_eq!(service["read_only"], true, "{name}");
        }
    }
}

#[test]
fn only_what_is_asked_for_starts_beside_the_three() {
    let profiles = |service: &Value| service["profiles"][0].as_str().map(str::to_owned);
    let found: BTreeMap<_, _> =
        services().into_iter().map(|(name, service)| (name, profiles(&service))).collect();
    let expected = [
        ("backend", None),
        ("postgres", None),
        ("grafana-files", None),
        ("grafana", None),
        ("demo-history", Some("demo")),
        ("demo-viewers", Some("demo")),
        ("prometheus", Some("monitoring")),
    ];
    let expected = expected.map(|(name, profile)| (name.to_owned(), profile.map(str::to_owned)));
    assert_eq!(found, BTreeMap::from(expected));
}

/// The command of `grafana-files`, run on a directory in place of the volume.
#[test]
fn the_export_in_compose_writes_what_grafana_reads() {
    let services = services();
    let dir = tempfile::tempdir().expect("a directory");
    let arguments: Vec<_> = arguments(&services["grafana-files"])
        .into_iter()
        .map(
            |part| if part == "/etc/media3watch" { dir.path().display().to_string() } else { part },
        )
        .collect();
    let output = bin().args(&arguments).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Grafana runs as another user than the one who wrote.
    for path in ["provisioning", "provisioning/alerting", "dashboards"] {
        assert_eq!(mode(&dir.path().join(path)) & 0o555, 0o555, "{path}");
    }
    let source = dir.path().join("provisioning/datasources/media3watch.yaml");
    assert_eq!(mode(&source), 0o644);
    let source = yaml(&fs::read_to_string(source).expect("written"));
    let source = &source["datasources"][0];
    assert_eq!(source["secureJsonData"]["password"], "$GRAFANA_DB_PASSWORD");
    assert_eq!((&source["url"], &source["user"]), (&"postgres:5432".into(), &"grafana".into()));
    assert_eq!(source["isDefault"], true);

    let home =
        services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].clone();
    let home =
        home.as_str().and_then(|path| path.strip_prefix("/etc/media3watch/")).expect("a path");
    let home: Value =
        serde_json::from_str(&fs::read_to_string(dir.path().join(home)).expect("there"))
            .expect("JSON");
    assert_eq!(home["uid"], "m3w-overview");
    let provider = fs::read_to_string(dir.path().join("provisioning/dashboards/media3watch.yaml"));
    let path = yaml(&provider.expect("written"))["providers"][0]["options"]["path"].clone();
    assert_eq!(path, dir.path().join("dashboards").display().to_string());
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

/// The simulator understands its arguments: it ends with 1, not with 2, where nobody listens.
#[test]
fn the_demo_speaks_the_simulators_language() {
    let services = services();
    for name in ["demo-history", "demo-viewers"] {
        let service = &services[name];
        assert_eq!(service["depends_on"]["backend"]["condition"], "service_healthy");
        let mut arguments = arguments(service);
        let url = arguments.iter_mut().find(|part| part.starts_with("--url=")).expect("a URL");
        assert_eq!(url, "--url=http://backend:8080");
        "--url=http://127.0.0.1:1".clone_into(url);
        let output = bin().args(&arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn prometheus_scrapes_the_backend() {
    let config = yaml(&read("monitoring/prometheus.yml"));
    assert_eq!(config["global"]["scrape_interval"], "15s");
    assert_eq!(config["scrape_configs"][0]["static_configs"][0]["targets"][0], "backend:8080");
    let mount = services()["prometheus"]["volumes"][0].clone();
    assert_eq!(mount, "./monitoring/prometheus.yml:/etc/prometheus/prometheus.yml:ro");
}
