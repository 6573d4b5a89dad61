//! Grafana: what `media3watch grafana export` writes, and what lies in `grafana/`.
//!
//! ```text
//! dashboards/*.toml   what a person writes: questions, panels, SQL
//!  → source           read into types, unknown keys refused
//!  → sql              {{placeholders}} filled: the filters, the smallest samples
//!  → layout           sizes → places on the 24-column grid
//!  → panel, field     looks, units, scales and links → Grafana's JSON
//!  → dashboard        the head that all share: variables, links, annotations
//! ```
//!
//! The JSON is Grafana's classic model, `schemaVersion` 39, which Grafana 11 to 13 load from
//! files. Nothing here talks to a Grafana or to a database.

mod alerting;
mod dashboard;
mod datasource;
mod field;
mod head;
mod layout;
mod palette;
mod panel;
mod reference;
mod source;
mod sql;

pub use alerting::{Alerting, Channel, Channels, Thresholds, reference as alerts_reference};
pub use datasource::{Database, Tls};
pub use reference::reference;

/// Name, and in links the address, of the folder with our dashboards and alerts.
pub const FOLDER: &str = "Media3Watch";
/// Uid of that folder.
pub const FOLDER_UID: &str = "media3watch";
/// Tag by which our dashboards link to each other.
pub const TAG: &str = "media3watch";

/// First line of every YAML file of ours: where it is from.
const MARK: &str = "# Written by `media3watch grafana export`.";

/// A file of the export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where, relative to the directory of the export, with `/` between names.
    pub path: String,
    /// What is in it.
    pub text: String,
    /// Whether a password is in it.
    pub is_secret: bool,
}

impl File {
    /// A file that everybody may read.
    #[must_use]
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), is_secret: false }
    }
}

/// What the files depend on.
#[derive(Debug, Clone)]
pub struct Options {
    /// How Grafana reaches the database.
    pub database: Database,
    /// URL of a Prometheus that scrapes the backend; without one, nothing asks it.
    pub prometheus: Option<String>,
    /// Directory of the dashboards as Grafana sees it.
    pub dashboards_path: String,
    /// Alert rules and where they are told.
    pub alerting: Alerting,
}

impl Options {
    /// What `compose.yaml` needs, and the committed directory `grafana/` holds.
    #[must_use]
    pub fn compose() -> Self {
        Self {
            database: Database::compose(),
            prometheus: Some("http://prometheus:9090".to_owned()),
            dashboards_path: "/etc/media3watch/dashboards".to_owned(),
            alerting: Alerting::default(),
        }
    }
}

/// All files of the export, in the order of their paths' first mention in the docs.
#[must_use]
pub fn files(options: &Options) -> Vec<File> {
    let mut files = vec![datasource::file(options), dashboard::provider(options)];
    files.extend(alerting::files(&options.alerting));
    files.extend(dashboard::files(options));
    files
}

/// A text as a YAML scalar: YAML reads JSON's strings. Grafana fills in `$VARIABLES`
/// afterwards, so that a `$` of the text is doubled.
fn literal(text: &str) -> String {
    serde_json::Value::from(text.replace('$', "$$")).to_string()
}

/// A text without its line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
