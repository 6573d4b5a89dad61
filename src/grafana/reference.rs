//! The panels and their formulas as Markdown, for docs/grafana.md.

use super::one_line;
use super::source::{self, Panel};

/// A section for each dashboard: its question, and a table of its panels.
#[must_use]
pub fn reference() -> String {
    let mut text = String::new();
    for (name, dashboard) in source::dashboards() {
        text += &format!("\n### {}\n\n", dashboard.title);
        text += &format!(
            "`{name}.json`, uid `{}`. {}\n\n",
            dashboard.uid,
            one_line(&dashboard.question)
        );
        text += "| panel | shows | formula |\n|---|---|---|\n";
        for Panel { title, shows, formula, .. } in dashboard.rows.iter().flat_map(|row| &row.panels)
        {
            // A title may hold variables, which Grafana fills in.
            let title = title.replace("${", "").replace('}', "");
            let cells = [&title, shows, formula].map(|cell| one_line(cell).replace('|', "\\|"));
            text += &format!("| {} |\n", cells.join(" | "));
        }
    }
    text
}
