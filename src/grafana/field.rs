//! How columns look: `fieldConfig`.

use serde_json::{Map, Value, json};

use super::head;
use super::panel;
use super::source::{Kind, Link, Look, Panel};

/// What stands in a table's cell without a value.
const NO_CELL: &str = "–";

pub(super) fn config(source: &Panel) -> Value {
    let mut defaults = json!({
        "custom": panel::custom(source.kind), "mappings": [], "noValue": source.empty,
        "thresholds": {"mode": "absolute", "steps": [{"value": null, "color": "text"}]},
        "color": {"mode": "palette-classic-by-name"},
    });
    if source.kind == Kind::Table {
        defaults["color"] = json!({"mode": "thresholds"});
    }
    for (name, value) in properties(&source.look, source.kind) {
        match name.strip_prefix("custom.") {
            Some(name) => defaults["custom"][name] = value,
            None => defaults[name] = value,
        }
    }
    let is_shown = |name: &&String| source.show.is_empty() || source.show.contains(name);
    let overrides: Vec<Value> = source
        .fields
        .keys()
        .filter(is_shown)
        .map(|name| {
            let look = &source.fields[name];
            let label = look.label.clone().unwrap_or_else(|| label(name));
            let mut list = vec![("displayName", Value::from(label))];
            if source.kind == Kind::Table {
                list.push(("noValue", NO_CELL.into()));
            }
            list.extend(properties(look, source.kind));
            let list: Vec<_> =
                list.into_iter().map(|(id, value)| json!({"id": id, "value": value})).collect();
            json!({"matcher": {"id": "byName", "options": name}, "properties": list})
        })
        .collect();
    json!({"defaults": defaults, "overrides": overrides})
}

/// `app_version` → `App version`.
fn label(column: &str) -> String {
    let text = column.replace('_', " ");
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Properties of a column, named as overrides name them.
fn properties(look: &Look, kind: Kind) -> Vec<(&'static str, Value)> {
    let mut list: Vec<(&'static str, Value)> = Vec::new();
    let mut put = |name, value| list.push((name, value));
    if let Some(unit) = &look.unit {
        put("unit", unit.as_str().into());
    }
    if let Some(decimals) = look.decimals {
        put("decimals", decimals.into());
    }
    if let Some(min) = look.min {
        put("min", min.into());
    }
    if let Some(max) = look.max {
        put("max", max.into());
    }
    if let Some(colour) = look.colour {
        put("color", json!({"mode": "fixed", "fixedColor": colour.name()}));
    }
    if let Some(scale) = look.scale {
        put("thresholds", scale.thresholds());
        match kind {
            Kind::Stat => put("color", json!({"mode": "thresholds"})),
            Kind::Table => put("custom.cellOptions", json!({"type": "color-text"})),
            // The line keeps its colour; where it gets bad is drawn behind it.
            _ => put("custom.thresholdsStyle", json!({"mode": "dashed"})),
        }
    }
    if let Some(draw) = look.draw {
        for (name, value) in panel::drawn(draw) {
            put(custom_name(name), value);
        }
    }
    if look.right {
        put("custom.axisPlacement", "right".into());
    }
    if let Some(width) = look.width {
        put("custom.width", width.into());
    }
    if let Some(link) = look.link {
        put("links", json!([target(link)]));
    }
    if look.hidden {
        // The first until Grafana 12, the second from there on.
        put("custom.hidden", true.into());
        put("custom.hideFrom", json!({"viz": true, "legend": true, "tooltip": true}));
    }
    if look.json {
        put("custom.cellOptions", json!({"type": "json-view"}));
        put("custom.inspect", true.into());
    }
    if !look.states.is_empty() {
        let states = (0..).zip(&look.states).map(|(index, state)| {
            let value = json!({"text": state.text, "color": state.colour.name(), "index": index});
            (index.to_string(), value)
        });
        let states: Map<String, Value> = states.collect();
        put("mappings", json!([{"type": "value", "options": states}]));
    }
    list
}

fn custom_name(name: &str) -> &'static str {
    match name {
        "drawStyle" => "custom.drawStyle",
        "lineWidth" => "custom.lineWidth",
        "fillOpacity" => "custom.fillOpacity",
        "lineStyle" => "custom.lineStyle",
        "lineInterpolation" => "custom.lineInterpolation",
        _ => "custom.stacking",
    }
}

/// Where a click on a value leads.
fn target(link: Link) -> Value {
    const VALUE: &str = "${__value.raw:percentencode}";
    let filters = head::filters_but("tenant");
    let session = format!(
        "/d/m3w-session/x?var-session_id=${{__data.fields.session_id:percentencode}}\
         &var-tenant=${{__data.fields.tenant:percentencode}}{filters}\
         &from=${{__data.fields.from_ms.numeric}}&to=${{__data.fields.to_ms.numeric}}"
    );
    // Session Explorer reads `device = Pixel 8`.
    let search = |dimension: &str| {
        let url = head::here("m3w-explorer", "search", &format!("{dimension}%20%3D%20{VALUE}"));
        ("Sessions with this value", url)
    };
    let (title, url) = match link {
        Link::Session => ("Open session", session),
        Link::Zoom => ("Set the time range to this session", session),
        Link::Content => {
            ("Overview of this content", head::here("m3w-overview", "content_id", VALUE))
        }
        Link::StreamType => {
            ("Overview of this stream type", head::here("m3w-overview", "stream_type", VALUE))
        }
        Link::SearchRow => search("${__data.fields.dimension:percentencode}"),
        Link::SearchChosen => search("${dimension:percentencode}"),
        Link::SearchCategory => search("error%20category"),
        Link::SearchCode => search("error%20code"),
        Link::SearchSdk => search("SDK%20version"),
    };
    json!({"title": title, "url": url, "targetBlank": false})
}
