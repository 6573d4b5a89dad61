use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::model::Incident;
use super::*;

const HOUR_MS: u64 = 3_600_000;
/// 2026-02-14T10:30:00Z
const UNTIL_MS: u64 = 1_771_065_000_000;

fn sessions(seed: u64, count: u64, span_ms: u64, incident: Option<Incident>) -> Vec<Value> {
    let past = Past::new(seed, count, span_ms, UNTIL_MS, incident);
    (0..count).map(|index| serde_json::from_slice(&past.report(index).1).expect("JSON")).collect()
}

fn number(session: &Value, name: &str) -> u64 {
    session[name].as_u64().unwrap_or_default()
}

/// The figures of the quality formulas.
#[derive(Debug)]
struct Rates {
    error_percent: f64,
    rebuffer_percent: f64,
    exit_percent: f64,
    start_failure_percent: f64,
    startup_p50_ms: u64,
    startup_p95_ms: u64,
}

fn rates(sessions: &[Value]) -> Rates {
    let sum = |name: &str| sessions.iter().map(|s| number(s, name)).sum::<u64>() as f64;
    let percent = |is: &dyn Fn(&Value) -> bool| {
        sessions.iter().filter(|s| is(s)).count() as f64 / sessions.len() as f64 * 100.0
    };
    let rebuffer = sum("rebufferTimeMs");
    let watched = sum("playTimeMs") + sum("startupTimeMs") + rebuffer + sum("totalSeekTimeMs");
    let mut startups: Vec<_> =
        sessions.iter().filter_map(|s| s["startupTimeMs"].as_u64()).collect();
    startups.sort_unstable();
    let failed = |s: &Value| number(s, "errorCount") > 0;
    let never_played = |s: &Value| number(s, "playTimeMs") == 0;
    Rates {
        error_percent: percent(&failed),
        rebuffer_percent: rebuffer / watched * 100.0,
        exit_percent: percent(&|s| never_played(s) && !failed(s)),
        start_failure_percent: percent(&|s| never_played(s) && failed(s)),
        startup_p50_ms: startups[startups.len() / 2],
        startup_p95_ms: startups[startups.len() * 95 / 100],
    }
}

#[test]
fn ordinary_traffic_looks_ordinary() {
    let rates = rates(&sessions(11, 20_000, 30 * 24 * HOUR_MS, None));
    assert!((1.5..2.5).contains(&rates.error_percent), "{rates:?}");
    assert!((0.5..1.0).contains(&rates.rebuffer_percent), "{rates:?}");
    assert!((2.0..3.0).contains(&rates.exit_percent), "{rates:?}");
    assert!((0.3..1.5).contains(&rates.start_failure_percent), "{rates:?}");
    assert!((700..=900).contains(&rates.startup_p50_ms), "{rates:?}");
    assert!((2_500..=3_000).contains(&rates.startup_p95_ms), "{rates:?}");
}

#[test]
fn an_incident_raises_its_own_number() {
    let calm = rates(&sessions(12, 3_000, 4 * HOUR_MS, None));
    let of = |incident| {
        let past = Past::new(12, 3_000, 4 * HOUR_MS, UNTIL_MS, Some(incident));
        let all: Vec<(u64, Value)> = (0..3_000)
            .map(|index| serde_json::from_slice(&past.report(index).1).expect("JSON"))
            .map(|session: Value| (number(&session, "timestamp"), session))
            .collect();
        // Half of the sessions lie before it.
        let before: Vec<_> = all
            .iter()
            .filter(|(at, _)| *at < past.incident_from_ms)
            .map(|(_, session)| session.clone())
            .collect();
        let all: Vec<_> = all.into_iter().map(|(_, session)| session).collect();
        (rates(&before), rates(&all))
    };
    let (before, all) = of(Incident::ErrorSpike);
    assert!(before.error_percent < 3.5 && all.error_percent > 12.0, "{before:?} {all:?}");
    assert!(all.startup_p95_ms < 4_000);
    let (before, all) = of(Incident::SlowStart);
    assert!(before.startup_p95_ms < 3_500 && all.startup_p95_ms > 7_000, "{before:?} {all:?}");
    assert!(all.error_percent < 2.0 * calm.error_percent);
    let (before, all) = of(Incident::Rebuffering);
    assert!(before.rebuffer_percent < 1.5 && all.rebuffer_percent > 5.0, "{before:?} {all:?}");
    assert!(all.error_percent < 2.0 * calm.error_percent);
}

#[test]
fn a_seed_repeats_everything() {
    let first = sessions(5, 200, 24 * HOUR_MS, None);
    assert_eq!(first, sessions(5, 200, 24 * HOUR_MS, None));
    let ids = |sessions: &[Value]| -> BTreeSet<String> {
        sessions.iter().map(|session| session["sessionId"].to_string()).collect()
    };
    assert_eq!(ids(&first).len(), 200);
    assert!(ids(&first).is_disjoint(&ids(&sessions(6, 200, 24 * HOUR_MS, None))));
}

#[test]
fn every_report_is_valid_and_small() {
    let span_ms = 3 * 24 * HOUR_MS;
    let mut largest = 0;
    for session in sessions(21, 5_000, span_ms, None) {
        let at = number(&session, "timestamp");
        assert!(at <= UNTIL_MS && at > UNTIL_MS - span_ms, "{session}");
        let ratio = session["rebufferRatio"].as_f64().unwrap_or_default();
        assert!((0.0..=1.0).contains(&ratio));
        if let Some(category) = session["lastErrorCategory"].as_str() {
            assert!(["NETWORK", "DRM", "SOURCE", "DECODER", "UNKNOWN"].contains(&category));
        }
        if session["schemaVersion"].is_null() {
            assert!(number(&session, "sessionDurationMs") > 0);
            assert!(session["sessionStartDateIso"].is_string());
        }
        let events = session["timelineEvents"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(events.len() <= MOST_ENTRIES);
        assert!(events.is_sorted_by(|a, b| a["elapsedMs"].as_u64() < b["elapsedMs"].as_u64()));
        assert!(events.iter().all(|event| number(event, "timestampMs") <= at));
        largest = largest.max(session.to_string().len());
    }
    assert!(largest * 1_000 < 6 * 1_024 * 1_024, "{largest} bytes");
}

#[test]
fn the_shapes_are_those_of_the_fixtures() {
    let fixture = |text: &str| -> BTreeSet<String> {
        let value: BTreeMap<String, Value> = serde_json::from_str(text).expect("a fixture");
        value.into_keys().collect()
    };
    let full_a = fixture(include_str!("../../../../tests/fixtures/wire/a-full.json"));
    let b = fixture(include_str!("../../../../tests/fixtures/wire/b-detach.json"));
    let c = fixture(include_str!("../../../../tests/fixtures/wire/c-report-1.json"));
    let mut has_full_a = false;
    let mut has_unknown_b = false;
    for session in sessions(31, 3_000, 24 * HOUR_MS, None) {
        let names: BTreeSet<String> =
            session.as_object().expect("an object").keys().cloned().collect();
        if !session["schemaVersion"].is_null() {
            assert!(names.is_subset(&full_a), "{names:?}");
            has_full_a |= names == full_a;
        } else if session["sdkVersion"].is_null() {
            assert_eq!(names, b);
            has_unknown_b |= session["sessionStartDateIso"] == "null"
                && session["playTimeMs"].is_null()
                && session["meanVideoFormatBitrate"] == -1;
        } else {
            assert_eq!(names, c);
        }
    }
    assert!(has_full_a && has_unknown_b);
}

#[test]
fn content_is_a_few_titles_and_a_long_tail() {
    let mut plays: BTreeMap<String, u64> = BTreeMap::new();
    let mut versions = BTreeSet::new();
    for session in sessions(41, 10_000, 30 * 24 * HOUR_MS, None) {
        if let Some(id) = session["contentId"].as_str() {
            *plays.entry(id.to_owned()).or_default() += 1;
            versions.insert(session["app"]["version"].to_string());
        }
    }
    let mut counts: Vec<_> = plays.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let total: u64 = counts.iter().sum();
    let top: u64 = counts.iter().take(10).sum();
    assert!(counts.len() > 200, "{} titles", counts.len());
    assert!(top * 100 > total * 30, "{top} of {total}");
    assert!(versions.len() >= 4, "{versions:?}");
}

#[test]
fn errors_of_batch_results_are_named() {
    assert_eq!(
        code_of(&serde_json::json!({"code": "INVALID_SCHEMA", "message": "x"})),
        "INVALID_SCHEMA"
    );
    assert_eq!(code_of(&serde_json::json!("INVALID_SCHEMA")), "INVALID_SCHEMA");
}
