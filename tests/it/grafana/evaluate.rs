//! The three steps of a rule (a query, its newest number, a threshold) as Grafana takes them,
//! from the file that is provisioned, on a real Postgres.

use media3watch::grafana::Alerting;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Column as _, Row as _, TypeInfo as _};

use super::macros::{Context, expand};
use crate::support::Database;

/// What Grafana would call a rule's state, pending time aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Silent.
    Normal,
    /// Alerting, sooner or later.
    Firing,
    /// As it was before.
    Held,
}

/// An evaluation: the state, and the numbers that the text is filled with.
#[derive(Debug)]
pub struct Evaluation {
    pub state: State,
    /// Of the steps B, E and G.
    pub numbers: Vec<Option<f64>>,
    pub error: Option<String>,
}

/// A provisioning file, read.
pub fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The rules of the file as it is without any variable.
pub fn rules() -> Vec<Value> {
    let file = super::file("provisioning/alerting/rules.yaml", &Alerting::default());
    let groups = yaml(&file)["groups"].as_array().expect("groups").clone();
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

/// A rule by its uid.
pub fn rule(uid: &str) -> Value {
    rules().into_iter().find(|rule| rule["uid"] == uid).unwrap_or_else(|| panic!("no {uid}"))
}

/// Evaluates a rule at a moment, Unix milliseconds.
pub async fn evaluate(rule: &Value, database: &Database, at_ms: i64) -> Evaluation {
    let steps = rule["data"].as_array().expect("steps");
    let step = |name: &Value| {
        steps.iter().find(|step| step["refId"] == *name).unwrap_or_else(|| panic!("no step {name}"))
    };
    let condition = step(&rule["condition"]);
    assert_eq!(condition["model"]["type"], "threshold");
    let decisive = &condition["model"]["expression"];

    let mut numbers = Vec::new();
    let mut value = None;
    for reduce in steps.iter().filter(|step| step["model"]["type"] == "reduce") {
        assert_eq!(reduce["model"]["reducer"], "last");
        let query = step(&reduce["model"]["expression"]);
        let newest = match last(query, database, at_ms).await {
            Ok(newest) => newest,
            Err(error) => {
                let state = on(&rule["execErrState"]);
                return Evaluation { state, numbers: Vec::new(), error: Some(error) };
            }
        };
        if reduce["refId"] == *decisive {
            value = newest;
        }
        numbers.push(newest);
    }
    let state = value.map_or_else(
        || on(&rule["noDataState"]),
        |value| if exceeds(condition, value) { State::Firing } else { State::Normal },
    );
    Evaluation { state, numbers, error: None }
}

/// What `noDataState` and `execErrState` make of it.
fn on(state: &Value) -> State {
    match state.as_str().expect("a state") {
        "OK" => State::Normal,
        "KeepLast" => State::Held,
        "Alerting" | "NoData" | "Error" => State::Firing,
        other => panic!("there is no state {other}"),
    }
}

fn exceeds(condition: &Value, value: f64) -> bool {
    let evaluator = &condition["model"]["conditions"][0]["evaluator"];
    let limit = evaluator["params"][0].as_f64().expect("a number");
    match evaluator["type"].as_str().expect("a type") {
        "gt" => value > limit,
        "lt" => value < limit,
        other => panic!("no evaluator {other}"),
    }
}

/// The newest number of a query in the format `time_series`.
async fn last(query: &Value, database: &Database, at_ms: i64) -> Result<Option<f64>, String> {
    let model = &query["model"];
    assert_eq!(model["format"], "time_series");
    let range = &query["relativeTimeRange"];
    let (from, to) = (range["from"].as_i64().expect("from"), range["to"].as_i64().expect("to"));
    let context = Context::alert(at_ms - from * 1_000, at_ms - to * 1_000);
    let sql = expand(model["rawSql"].as_str().expect("SQL"), &context).expect("macros");
    let rows = {
        use sqlx::ConnectOptions as _;
        let mut connection = database.options().connect().await.map_err(|e| e.to_string())?;
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut connection).await;
        rows.map_err(|error| error.to_string())?
    };
    let mut newest = None;
    for row in rows {
        let types: Vec<_> = row
            .columns()
            .iter()
            .map(|column| (column.name().to_owned(), column.type_info().name().to_owned()))
            .collect();
        // No text columns: each would make a series of its own, and the alert several.
        let expected = [("time", "TIMESTAMPTZ"), ("value", "FLOAT8")];
        let expected = expected.map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        assert_eq!(types, expected, "{}", model["rawSql"]);
        newest = row.get::<Option<f64>, _>("value");
    }
    Ok(newest)
}
