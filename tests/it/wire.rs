//! Every wire fixture against the answers they must get, in the order of `expected.json`.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::Server;

/// A moment shortly after the fixtures were "sent".
const NOW_MS: i64 = 1_795_000_100_000;

fn fixture(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/wire", name].iter().collect();
    std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{}", path.display()))
}

/// SQL for a column of the expectations: `payload.a.b` is a path into the payload.
fn expression(column: &str) -> String {
    match column.strip_prefix("payload.") {
        Some(path) => format!("payload #>> '{{{}}}'", path.replace('.', ",")),
        None if column == "timestamp" => {
            r#"to_char("timestamp" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#.to_owned()
        }
        None => format!("{column}::text"),
    }
}

#[tokio::test]
async fn fixtures_get_the_answers_and_rows_that_are_expected() {
    let server = Server::at(NOW_MS).await;
    let expected: Value = serde_json::from_str(&fixture("expected.json")).expect("JSON");
    let cases = expected["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 10);
    for case in cases {
        let file = case["file"].as_str().expect("a file");
        let body = fixture(file);
        let sent: Value = serde_json::from_str(&body).expect("JSON");
        let id = sent["sessionId"].as_str().expect("an id");
        let answer = server.post(body).await;
        assert_eq!(u64::from(answer.status.as_u16()), case["status"], "{file}: {}", answer.text);
        assert_eq!(answer.json()["sessionId"], id, "{file}");

        let of_session = format!("FROM sessions WHERE session_id = '{id}'");
        let database = &server.database;
        let rows = database.number(&format!("SELECT count(*) {of_session}")).await;
        assert_eq!(rows, case["rows"].as_i64().expect("rows"), "{file}");
        for (column, expected) in case["columns"].as_object().expect("columns") {
            let sql = format!("SELECT {} {of_session}", expression(column));
            let found = database.value(&sql).await;
            match expected {
                Value::Null => assert_eq!(found, None, "{file} {column}"),
                Value::String(text) if text == "> 0" => {
                    let number: i64 = found.expect(column).parse().expect("a number");
                    assert!(number > 0, "{file} {column} is {number}");
                }
                Value::String(text) => assert_eq!(found.as_ref(), Some(text), "{file} {column}"),
                other => assert_eq!(found, Some(other.to_string()), "{file} {column}"),
            }
        }
        if let Some(entries) = case.get("timeline_rows") {
            let sql = format!("SELECT count(*) FROM session_timeline WHERE session_id = '{id}'");
            assert_eq!(database.number(&sql).await, entries.as_i64().expect("a number"), "{file}");
        }
    }
}

#[tokio::test]
async fn a_session_reads_back_with_columns_payload_and_timeline() {
    let server = Server::at(NOW_MS).await;
    for file in ["c-report-1.json", "c-report-2.json", "c-report-3-final.json"] {
        assert_eq!(server.post(fixture(file)).await.status, 200);
    }
    let session = server.get("/v1/sessions/7b0c2e0e-5d0f-4b5e-9b43-0d5ce3a6c004").await;
    assert_eq!(session.status, 200);
    let session = session.json();
    assert_eq!(session["tenant_id"], "default");
    assert_eq!(session["timestamp"], "2026-11-18T11:06:40+00:00");
    assert_eq!(session["report_count"], 3);
    assert_eq!(session["player_startup_ms"], 812);
    assert_eq!(session["device_model"], "SHIELD Android TV");
    assert_eq!(session["os_version"], "30");
    assert_eq!(session["avg_bitrate_kbps"], 4600);
    let last: Value = serde_json::from_str(&fixture("c-report-3-final.json")).expect("JSON");
    assert_eq!(session["payload"], last);
    let timeline = session["timeline"].as_array().expect("a timeline");
    let elapsed: Vec<i64> = timeline.iter().filter_map(|e| e["elapsed_ms"].as_i64()).collect();
    assert_eq!(elapsed, [900, 1_000, 15_000, 22_000, 24_200, 30_000, 45_000, 60_900]);
    assert_eq!(timeline[0]["playback_state"], "BUFFERING");
    assert_eq!(timeline[7]["current_bitrate"], 5_800_000);

    let unknown = server.get("/v1/sessions/nobody").await;
    assert_eq!((unknown.status.as_u16(), unknown.code().as_str()), (404, "NOT_FOUND"));
}
