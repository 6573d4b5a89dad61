//! What is provisioned into Grafana, checked without one: its SQL is run on a real Postgres.

mod alerts;
mod channels;
mod compose;
mod dashboards;
mod evaluate;
mod export;
mod filled;
mod formulas;
pub mod macros;
pub mod queries;
mod silence;
mod structure;
mod troubles;

use media3watch::grafana::{self, Alerting, Options};

/// The text of a file of the export.
fn file(path: &str, alerting: &Alerting) -> String {
    let options = Options { alerting: alerting.clone(), ..Options::compose() };
    let file = grafana::files(&options).into_iter().find(|file| file.path == path);
    file.unwrap_or_else(|| panic!("no {path}")).text
}

/// The dashboards.
fn dashboards() -> Vec<serde_json::Value> {
    let files = grafana::files(&Options::compose());
    let files = files.iter().filter(|file| file.path.starts_with("dashboards/"));
    files.map(|file| serde_json::from_str(&file.text).expect("JSON")).collect()
}
