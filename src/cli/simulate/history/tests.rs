use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use serde_json::Value;

use super::super::model::Incident;
use super::*;

const HOUR_MS: u64 = 3_600_000;
/// 2026-02-14T10:30:00Z
const UNTIL_MS: u64 = 1_771_065_000_000;

fn sessions(seed: u64, count: u64, span_ms: u64, incident: Option<Incident>) -> Vec<Value> {
    let past = Past::new(seed, count, span_ms, UNTIL_MS, incident);
    (0..count).map(|index| last_report(&past, index)).collect()
}

/// The reports of a session, oldest first.
fn reports(past: &Past, index: u64, reports: Reports) -> Vec<Value> {
    let mut session = past.session(index, reports);
    std::iter::from_fn(|| session.next_report())
        .map(|(report, _)| serde_json::from_slice(&report).expect("JSON"))
        .collect()
}

fn last_report(past: &Past, index: u64) -> Value {
    reports(past, index, Reports::Joined).pop().expect("at least one report")
}

fn entries(report: &Value) -> &[Value] {
    report["timelineEvents"].as_array().map_or(&[], Vec::as_slice)
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
            .map(|index| last_report(&past, index))
            .map(|session| (number(&session, "timestamp"), session))
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
    let past = Past::new(21, 3_000, span_ms, UNTIL_MS, Some(Incident::Rebuffering));
    for report in (0..3_000).flat_map(|index| reports(&past, index, Reports::Joined)) {
        let at = number(&report, "timestamp");
        assert!(at <= UNTIL_MS && at > UNTIL_MS - span_ms, "{report}");
        let ratio = report["rebufferRatio"].as_f64().unwrap_or_default();
        assert!((0.0..=1.0).contains(&ratio));
        if let Some(category) = report["lastErrorCategory"].as_str() {
            assert!(["NETWORK", "DRM", "SOURCE", "DECODER", "UNKNOWN"].contains(&category));
        }
        if report["schemaVersion"].is_null() {
            assert!(number(&report, "sessionDurationMs") > 0);
            assert!(report["sessionStartDateIso"].is_string());
        }
        let events = entries(&report);
        assert!(events.len() <= MOST_JOINED);
        assert!(events.is_sorted_by(|a, b| a["elapsedMs"].as_u64() < b["elapsedMs"].as_u64()));
        assert!(events.iter().all(|event| number(event, "timestampMs") <= at));
        assert!(report.to_string().len() < 256 * 1_024);
    }
}

#[test]
fn joined_reports_leave_what_all_reports_leave() {
    let past = Past::new(22, 2_000, 24 * HOUR_MS, UNTIL_MS, None);
    let (mut all_reports, mut joined_reports, mut longest) = (0, 0, 0);
    for index in 0..2_000 {
        let every = reports(&past, index, Reports::Every);
        let joined = reports(&past, index, Reports::Joined);
        assert_eq!(every.last(), joined.last());
        let timeline = |reports: &[Value]| reports.iter().flat_map(entries).cloned().collect();
        let (all, few): (Vec<_>, Vec<_>) = (timeline(&every), timeline(&joined));
        assert_eq!(all, few);
        for reports in [&every, &joined] {
            let at = |report: &Value| number(report, "timestamp");
            assert!(reports.is_sorted_by(|a, b| at(a) < at(b)));
            let id = |report: &Value| report["sessionId"].clone();
            assert!(reports.iter().all(|report| id(report) == id(&reports[0])));
        }
        if every[0]["sdkVersion"].is_null() {
            assert_eq!((every.len(), joined.len()), (1, 1), "A and B report once");
        }
        assert_eq!(every.len() > 1, joined.len() > 1);
        all_reports += every.len();
        joined_reports += joined.len();
        longest = longest.max(joined.len());
    }
    assert!(all_reports > 20 * joined_reports, "{all_reports} and {joined_reports}");
    assert!(longest > 2, "a long session has several joined reports");
}

#[test]
fn a_request_carries_one_report_per_session() {
    let past = Past::new(23, 700, 24 * HOUR_MS, UNTIL_MS, None);
    for reports in [Reports::Joined, Reports::Every] {
        let mut times: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for number_of_lane in 0..3 {
            let mut lane = Lane::new(&past, reports, number_of_lane, 3);
            while let Some(batch) = lane.batch().expect("a batch") {
                let mut ids = BTreeSet::new();
                for report in unpacked(batch) {
                    let id = report["sessionId"].to_string();
                    times.entry(id.clone()).or_default().push(number(&report, "timestamp"));
                    assert!(ids.insert(id));
                }
            }
        }
        assert_eq!(times.len(), 700);
        assert!(times.values().all(|times| times.is_sorted_by(|a, b| a < b)));
    }
}

#[test]
fn requests_stay_within_the_limits_of_the_batch_route() {
    let incident = Some(Incident::Rebuffering);
    let past = Past::new(24, 1_500, 2 * HOUR_MS, UNTIL_MS, incident);
    let mut lane = Lane::new(&past, Reports::Joined, 0, 1);
    let mut sessions = 0;
    while let Some(batch) = lane.batch().expect("a batch") {
        let (said, ended, bytes) = (batch.reports, batch.generations.len(), batch.bytes);
        let reports = unpacked(batch);
        assert_eq!(reports.len() as u64, said);
        assert!(reports.len() <= MOST_REPORTS && bytes < FULL_BYTES + 256 * 1_024);
        sessions += ended;
    }
    assert_eq!(sessions, 1_500);
}

fn unpacked(batch: Batch) -> Vec<Value> {
    let gzipped = batch.gzip.finish().expect("gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&gzipped[..]).read_to_string(&mut text).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
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

/// The mix of the ingest benchmark (`ENTRIES_OF_10_000` in benches/ingest/reports.rs) is made of
/// these figures. Over 20,000 sessions: 82 reports per session of generation C; of 10,000 reports
/// 120 have no entry, 9,848 one, 31 two, 1 three.
#[test]
fn reports_carry_one_entry_but_for_the_last() {
    let past = Past::new(1, 1_000, 60 * 24 * HOUR_MS, UNTIL_MS, None);
    let (mut sessions, mut reports, mut by_entries) = (0, 0, [0; 5]);
    for index in 0..1_000 {
        let mut session = past.session(index, Reports::Every);
        if session.generation() == Generation::C {
            sessions += 1;
            while let Some(snapshot) = session.next_snapshot() {
                reports += 1;
                by_entries[snapshot.entries.len().min(4)] += 1;
            }
        }
    }
    assert!((70..95).contains(&(reports / sessions)), "{reports} of {sessions}");
    let of_10_000 = by_entries.map(|count| count * 10_000 / reports);
    assert!((105..140).contains(&of_10_000[0]), "{of_10_000:?}");
    assert!((20..45).contains(&of_10_000[2]), "{of_10_000:?}");
    assert!(of_10_000[3] < 5 && of_10_000[4] == 0, "{of_10_000:?}");
}
