//! What a dashboard is made of, as `dashboards/*.toml` says it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::palette::{Colour, Scale};

/// The files, each with the name of what it becomes.
const SOURCES: [(&str, &str); 6] = [
    ("overview", include_str!("dashboards/overview.toml")),
    ("breakdown", include_str!("dashboards/breakdown.toml")),
    ("explorer", include_str!("dashboards/explorer.toml")),
    ("session", include_str!("dashboards/session.toml")),
    ("quality", include_str!("dashboards/quality.toml")),
    ("backend", include_str!("dashboards/backend.toml")),
];

/// All dashboards: the name of the file, and what is in it.
pub(super) fn dashboards() -> Vec<(&'static str, Dashboard)> {
    let read = |(name, text): (&'static str, &str)| {
        let mut dashboard: Dashboard =
            toml::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        dashboard.hand_on_looks();
        (name, dashboard)
    };
    SOURCES.map(read).into()
}

impl Dashboard {
    /// Columns that a panel takes from another look as they do there, but for what it says of
    /// them itself.
    fn hand_on_looks(&mut self) {
        let panels = self.rows.iter().flat_map(|row| &row.panels);
        let looks: BTreeMap<_, _> = panels.map(|panel| (panel.id, panel.fields.clone())).collect();
        for panel in self.rows.iter_mut().flat_map(|row| &mut row.panels) {
            let Some(from) = panel.from else { continue };
            let source = looks.get(&from).unwrap_or_else(|| panic!("there is no panel {from}"));
            for (column, look) in source.iter().filter(|(name, _)| panel.show.contains(name)) {
                panel.fields.entry(column.clone()).or_insert_with(|| look.clone());
            }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dashboard {
    /// Frozen: links and bookmarks hold it.
    pub(super) uid: String,
    pub(super) title: String,
    /// The question that it answers.
    pub(super) question: String,
    /// Time range that it opens with, back from now, such as `24h`.
    pub(super) last: String,
    #[serde(default)]
    pub(super) filters: Filters,
    /// Variables beside the filters.
    #[serde(default)]
    pub(super) variables: Vec<Variable>,
    #[serde(default)]
    pub(super) rows: Vec<Row>,
}

/// Which part of the shared filters a dashboard has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Filters {
    /// Tenant, stream type, app version, device, content.
    #[default]
    All,
    /// The tenant alone.
    Tenant,
    /// None: it is not about sessions.
    None,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) label: String,
    /// Choices, as `value = label`; the first is the default.
    #[serde(default)]
    pub(super) choices: Vec<Choice>,
    /// A query whose one column holds the choices; several can be chosen.
    pub(super) sql: Option<String>,
    /// What a text box holds at first, where there are neither choices nor a query.
    #[serde(default)]
    pub(super) text: String,
    /// What it is for.
    pub(super) about: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Choice {
    pub(super) value: String,
    pub(super) label: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    /// Header; none for the first row.
    pub(super) title: Option<String>,
    /// Whether it is closed at first.
    #[serde(default)]
    pub(super) collapsed: bool,
    pub(super) panels: Vec<Panel>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Panel {
    /// Frozen, and unique in its dashboard: alerts and links hold it.
    pub(super) id: u32,
    pub(super) title: String,
    /// What it shows.
    pub(super) shows: String,
    /// How that is computed.
    pub(super) formula: String,
    /// What to do when it is bad.
    pub(super) act: String,
    /// What an empty panel means; short for a single number.
    pub(super) empty: String,
    pub(super) kind: Kind,
    /// Columns of 24, and rows of 38 pixels.
    pub(super) size: [u32; 2],
    pub(super) sql: Option<String>,
    /// Takes the rows of another panel of this dashboard, so that they are read once.
    pub(super) from: Option<u32>,
    /// Columns shown of what the query gives; all when empty.
    #[serde(default)]
    pub(super) show: Vec<String>,
    #[serde(default)]
    pub(super) promql: Vec<Promql>,
    /// Look of all columns, where `fields` does not say otherwise.
    #[serde(default)]
    pub(super) look: Look,
    /// Looks of columns by name.
    #[serde(default)]
    pub(super) fields: BTreeMap<String, Look>,
    /// Points at most: fewer make longer steps with more sessions in each.
    pub(super) points: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Promql {
    pub(super) expr: String,
    pub(super) legend: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Numbers, the columns of one row.
    Stat,
    /// Lines or bars over time.
    Timeseries,
    /// Rows.
    Table,
    /// Bars of equal width: columns xMin, xMax and counts.
    Histogram,
    /// States over time: numbers with `states`.
    StateTimeline,
    /// Lines over the first column, which is not a time.
    Trend,
}

/// How a column looks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Look {
    /// Name in legends and table headers, instead of the column's.
    pub(super) label: Option<String>,
    pub(super) unit: Option<String>,
    pub(super) decimals: Option<u8>,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    pub(super) colour: Option<Colour>,
    pub(super) scale: Option<Scale>,
    pub(super) draw: Option<Draw>,
    /// Puts the column on an axis of its own at the right.
    #[serde(default)]
    pub(super) right: bool,
    /// Width of a table column, pixels.
    pub(super) width: Option<u32>,
    pub(super) link: Option<Link>,
    /// There for links only.
    #[serde(default)]
    pub(super) hidden: bool,
    /// JSON, which opens in a viewer.
    #[serde(default)]
    pub(super) json: bool,
    /// Texts and colours of numbers, in the order 0, 1, 2…
    #[serde(default)]
    pub(super) states: Vec<State>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) text: String,
    pub(super) colour: Colour,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Draw {
    Line,
    /// Dashed: the ends of an interval, a limit.
    Dashed,
    Bars,
    /// Bars on top of each other.
    Stacked,
    /// A line that holds its value until the next.
    Steps,
}

/// Where a click leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Link {
    /// The session of the row (columns `session_id`, `tenant`, `from_ms`, `to_ms`).
    Session,
    /// The overview of this content alone.
    Content,
    /// The overview of this stream type alone.
    StreamType,
    /// The sessions that have this value in the dimension that the row names.
    SearchRow,
    /// In the dimension that is chosen above.
    SearchChosen,
    SearchCategory,
    SearchCode,
    SearchSdk,
    /// The time of the session on this page.
    Zoom,
}
