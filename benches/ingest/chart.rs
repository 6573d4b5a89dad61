//! The figures as a chart: one bar each, against what must be and what is aimed at.

use std::fmt::Write as _;

use super::figures::Figure;
use super::output::{Outcome, number};

const WIDTH: f64 = 860.0;
const LABELS: f64 = 330.0;
const BAR: f64 = 360.0;
const ROW: f64 = 30.0;
const TOP: f64 = 46.0;
/// Where the must lies on a bar: as far for every figure, so that all are read alike.
const MUST_AT: f64 = 0.4;

/// Readable on light and on dark ground: no background, colours of middle lightness, text too,
/// which gets lighter where the reader is known to prefer dark.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#6b7580}.n{font-weight:600}\
.s{font-size:12px;font-weight:400;fill:#6b7580}.g{fill:#888;fill-opacity:.16}\
.aim{fill:#2a9d5c}.ok{fill:#d99a1c}.MISS{fill:#d1495b}.m{stroke:#888;stroke-width:2}\
.a{stroke:#888;stroke-width:2;stroke-dasharray:3 3}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.s{fill:#aaa}}";

/// The figures of the first server as SVG.
pub fn svg(outcome: &Outcome) -> String {
    let figures = outcome.figures.first().map_or(&[][..], Vec::as_slice);
    let figures: Vec<&Figure> = figures.iter().filter(|figure| figure.must > 0.0).collect();
    let height = TOP + ROW * figures.len() as f64 + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>Ingest benchmark: each figure against what it must be and what is aimed \
         at</title>\n<style>{STYLE}</style>\n"
    );
    let _ = writeln!(
        svg,
        "<text class=\"s\" x=\"{LABELS}\" y=\"16\">longer is better; solid line: must, dashed: \
         aim; the scale of each bar is its own</text>"
    );
    let _ = writeln!(svg, "<text class=\"s\" x=\"{LABELS}\" y=\"34\">{}</text>", machine(outcome));
    for (index, figure) in figures.iter().enumerate() {
        row(&mut svg, figure, TOP + ROW * index as f64);
    }
    svg.push_str("</svg>\n");
    svg
}

fn machine(outcome: &Outcome) -> String {
    let postgres = outcome.postgres.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    format!("{}; {postgres}", outcome.machine).replace('&', "&amp;").replace('<', "&lt;")
}

/// How good a value is as a share of the bar: the must lies at [`MUST_AT`], twice as good lies
/// twice as far. Where less is better, half is twice as good.
fn share(figure: &Figure, value: f64) -> f64 {
    let times = if figure.at_least { value / figure.must } else { figure.must / value };
    (times * MUST_AT).clamp(0.0, 1.0)
}

fn row(svg: &mut String, figure: &Figure, y: f64) {
    let bar = y + 5.0;
    let length = share(figure, figure.median) * BAR;
    let sign = if figure.at_least { "≥" } else { "≤" };
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{text}\" text-anchor=\"end\">{label}</text>\
         <rect class=\"g\" x=\"{LABELS}\" y=\"{bar}\" width=\"{BAR}\" height=\"18\" rx=\"2\"/>\
         <rect class=\"{class}\" x=\"{LABELS}\" y=\"{bar}\" width=\"{length:.1}\" height=\"18\" \
         rx=\"2\"/>",
        x = LABELS - 10.0,
        text = y + 19.0,
        label = figure.label,
        class = figure.verdict(),
    );
    for (class, goal) in [("m", figure.must), ("a", figure.aim)] {
        let x = LABELS + share(figure, goal) * BAR;
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\"/>",
            y + 2.0,
            y + 26.0
        );
    }
    let unit = if figure.unit == "×" { String::new() } else { format!(" {}", figure.unit) };
    let _ = writeln!(
        svg,
        "<text class=\"n\" x=\"{x}\" y=\"{text}\">{value}{unit} <tspan class=\"s\">{sign} \
         {must}, {aim}</tspan></text>",
        x = LABELS + BAR + 10.0,
        text = y + 19.0,
        value = number(figure.median),
        must = figure.must,
        aim = figure.aim,
    );
}
