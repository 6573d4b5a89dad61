//! Own fields of reports as columns: what arrives in them, and what becomes of them when the
//! configuration changes.

use std::sync::atomic::Ordering;

use media3watch::store::is_column;
use serde_json::{Value, json};

use crate::support::{Database, Server, ServerOptions};

const NOW_MS: i64 = 1_795_000_100_000;
/// Longer than reports count as written before a slot changed hands.
const LATER_MS: i64 = 60_000;

async fn server(database: &Database, dimensions: &str, viewer_id: &str) -> Server {
    let env = vec![("DIMENSIONS", dimensions.to_owned()), ("VIEWER_ID", viewer_id.to_owned())];
    Server::with(ServerOptions { env, now_ms: Some(NOW_MS), ..ServerOptions::default() }, database)
        .await
}

async fn post(server: &Server, id: &str, members: &str) {
    let body = format!(r#"{{"sessionId":"{id}","timestamp":{NOW_MS},{members}}}"#);
    let answer = server.post(body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Some columns of a session in `session_qoe`; `-` where null.
async fn qoe(database: &Database, id: &str, columns: &str) -> String {
    let columns: Vec<String> =
        columns.split(' ').map(|name| format!(r#"coalesce("{name}", '-')"#)).collect();
    let columns = columns.join(", ");
    let sql =
        format!("SELECT concat_ws(' ', {columns}) FROM session_qoe WHERE session_id = '{id}'");
    database.value(&sql).await.expect("a session")
}

/// `slot name path`, in the order of slots.
async fn slots(database: &Database) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', slot, name, path) FROM own_dimensions ORDER BY slot";
    database.lines(sql).await
}

#[tokio::test]
async fn values_are_in_columns_in_the_view_and_in_the_answer_under_their_names() {
    let database = Database::new().await;
    let server = server(&database, " cdn : custom.cdn, plan:custom.plan ", "custom.userRef").await;
    post(&server, "s", r#""custom":{"cdn":"edge-eu","plan":7,"userRef":"u-1"}"#).await;
    let row = "SELECT concat_ws(' ', dimension_1, dimension_2, viewer_id) FROM sessions";
    assert_eq!(database.value(row).await.as_deref(), Some("edge-eu 7 u-1"));
    assert_eq!(qoe(&database, "s", "cdn plan viewer_id").await, "edge-eu 7 u-1");

    let session = server.get("/v1/sessions/s").await.json();
    assert_eq!((&session["cdn"], &session["plan"]), (&json!("edge-eu"), &json!("7")));
    assert_eq!((&session["viewer_id"], &session["report_count"]), (&json!("u-1"), &json!(1)));
    assert_eq!(session["dimension_1"], Value::Null);
    assert!(!session.as_object().expect("an object").contains_key("dimension_1"));

    // A newer report replaces them, as it does all columns, also within one batch.
    let report = |time: i64, cdn: &str| {
        format!(r#"{{"sessionId":"s","timestamp":{},"custom":{{"cdn":"{cdn}"}}}}"#, NOW_MS + time)
    };
    let batch = format!("[{},{}]", report(1, "b"), report(2, "c"));
    assert_eq!(server.post_batch(batch).await.status, 200);
    assert_eq!(qoe(&database, "s", "cdn plan viewer_id").await, "c - -");

    let index = "SELECT count(*) FROM pg_indexes WHERE tablename LIKE 'sessions_2%' AND indexdef LIKE '%viewer_id%'";
    assert!(database.number(index).await >= 3);
    let comment = "SELECT col_description('session_qoe'::regclass, attnum) FROM pg_attribute
                   WHERE attrelid = 'session_qoe'::regclass AND attname = 'cdn'";
    let comment = database.value(comment).await;
    assert_eq!(comment.as_deref(), Some("Own dimension: custom.cdn of the report"));
}

/// The columns hold what PostgreSQL itself reads from the payload.
#[tokio::test]
async fn values_are_those_that_postgres_reads_from_the_payload() {
    let database = Database::new().await;
    let server = server(&database, "top:top,deep:a.b.c", "v").await;
    let numbers = [
        "1",
        "-1",
        "1.50",
        "1e3",
        "1.50e1",
        "1E+2",
        "12e-1",
        "-1.0e-3",
        "-0",
        "-0.0",
        "0e5",
        "0e-3",
        "9007199254740993",
        "123456789012345678901234567890",
        "1e300",
        "0.00e3",
    ];
    let texts = [r#""x""#, r#""\u00e4\n\"""#, "true", "false"];
    for (index, value) in numbers.iter().chain(&texts).enumerate() {
        let members = format!(r#""top":{value},"a":{{"b":{{"c":{value}}}}},"v":{value}"#);
        post(&server, &format!("s{index}"), &members).await;
    }
    let differ = "SELECT session_id || ': ' || payload::text FROM session_qoe JOIN sessions USING (session_key)
                  WHERE top IS DISTINCT FROM payload #>> '{top}' OR deep IS DISTINCT FROM payload #>> '{a,b,c}'
                     OR session_qoe.viewer_id IS DISTINCT FROM payload #>> '{v}'";
    let differ = differ.replace("session_id ||", "sessions.session_id ||");
    assert_eq!(database.lines(&differ).await, Vec::<String>::new());

    let absent = ["null", "{}", "[1]", r#""  ""#, r#"{"b":7}"#, r#"{"b":{"d":1}}"#];
    for (index, value) in absent.iter().enumerate() {
        post(&server, &format!("n{index}"), &format!(r#""top":{value},"a":{value}"#)).await;
        assert_eq!(qoe(&database, &format!("n{index}"), "top deep viewer_id").await, "- - -");
    }
    post(&server, "twice", r#""top":1,"top":2,"a":{"b":{"c":1}},"a":{"b":{}},"v":"\u0000""#).await;
    assert_eq!(qoe(&database, "twice", "top deep viewer_id").await, "2 - \u{fffd}");
    let long = "ä".repeat(600);
    post(&server, "long", &format!(r#""top":"{long}""#)).await;
    assert_eq!(qoe(&database, "long", "top").await.chars().count(), 512);
}

#[tokio::test]
async fn names_keep_their_columns_in_whatever_order_and_when_the_list_changes() {
    let database = Database::new().await;
    let first = server(&database, "cdn:custom.cdn,plan:custom.plan", "").await;
    post(&first, "first", r#""custom":{"cdn":"c1","plan":"p1"}"#).await;
    first.stop().await;

    let second = server(&database, "plan:custom.plan,isp:custom.isp,cdn:custom.cdn", "v").await;
    post(&second, "second", r#""custom":{"cdn":"c2","plan":"p2","isp":"i2"},"v":"me""#).await;
    let all = ["0 viewer_id v", "1 cdn custom.cdn", "2 plan custom.plan", "3 isp custom.isp"];
    assert_eq!(slots(&database).await, all);
    assert_eq!(qoe(&database, "first", "cdn plan isp viewer_id").await, "c1 p1 - -");
    assert_eq!(qoe(&database, "second", "cdn plan isp viewer_id").await, "c2 p2 i2 me");
    second.stop().await;

    // What is not configured any more is not read from reports, and stays readable.
    let third = server(&database, "isp:custom.isp", "").await;
    post(&third, "third", r#""custom":{"cdn":"c3","plan":"p3","isp":"i3"},"v":"me""#).await;
    assert_eq!(slots(&database).await, all);
    assert_eq!(qoe(&database, "second", "cdn plan isp viewer_id").await, "c2 p2 i2 me");
    assert_eq!(qoe(&database, "third", "cdn plan isp viewer_id").await, "- - i3 -");
    let own = third.app.store.own_dimensions().await.expect("read");
    let own: Vec<String> =
        own.iter().map(|own| format!("{} {}", own.value("s."), own.name)).collect();
    assert_eq!(own, ["s.dimension_1 cdn", "s.dimension_2 plan", "s.dimension_3 isp"]);
}

#[tokio::test]
async fn another_path_does_not_show_the_values_of_the_one_before() {
    let database = Database::new().await;
    let first = server(&database, "cdn:custom.cdn", "a").await;
    post(&first, "old", r#""custom":{"cdn":"c1","edge":"e1"},"a":"me","b":"you""#).await;
    // Somebody's own view on ours is no obstacle.
    database.execute("CREATE VIEW mine AS SELECT session_id, cdn FROM session_qoe").await;
    first.stop().await;

    let second = server(&database, "cdn:custom.edge", "b").await;
    second.clock_ms.fetch_add(LATER_MS, Ordering::Relaxed);
    post(&second, "new", r#""custom":{"cdn":"c2","edge":"e2"},"a":"me","b":"you""#).await;
    // Hidden, or filled from its payload meanwhile.
    let old = qoe(&database, "old", "cdn viewer_id").await;
    assert!(["- -", "e1 -", "- you", "e1 you"].contains(&old.as_str()), "{old}");
    assert_eq!(qoe(&database, "new", "cdn viewer_id").await, "e2 you");
    let old = second.get("/v1/sessions/old").await.json();
    assert!([Value::Null, json!("e1")].contains(&old["cdn"]), "{old}");
    assert!([Value::Null, json!("you")].contains(&old["viewer_id"]), "{old}");
    assert_eq!(second.get("/v1/sessions/new").await.json()["viewer_id"], "you");
    let mine = "SELECT cdn FROM mine WHERE session_id = 'new'";
    assert_eq!(database.value(mine).await.as_deref(), Some("e2"));
}

/// Two servers whose lists together are longer than the slots: the second takes a column of the
/// first while that one writes.
#[tokio::test]
async fn servers_with_different_lists_write_no_value_under_a_wrong_name() {
    let database = Database::new().await;
    let list = |names: &str| {
        let items: Vec<String> = names.chars().map(|c| format!("own_{c}:{c}")).collect();
        items.join(",")
    };
    let members = r#""a":"a","b":"b","c":"c","d":"d","x":"x""#;
    let first = server(&database, &list("abcdefgh"), "").await;
    post(&first, "before", members).await;
    database.execute("CREATE VIEW mine AS SELECT own_b FROM session_qoe").await;

    let second = server(&database, &list("xbcdefgh"), "").await;
    assert_eq!(slots(&database).await[..2], ["1 own_x x", "2 own_b b"]);
    for server in [&first, &second] {
        server.clock_ms.fetch_add(LATER_MS, Ordering::Relaxed);
    }
    post(&second, "second", members).await;
    // The first one still reads "a" from reports, and has no column for it any more.
    post(&first, "first", members).await;
    let batch: Vec<String> = (0..20)
        .map(|n| format!(r#"{{"sessionId":"b{n}","timestamp":{NOW_MS},{members}}}"#))
        .collect();
    assert_eq!(first.post_batch(format!("[{}]", batch.join(","))).await.json()["accepted"], 20);
    // Hidden or not known, or filled from payloads meanwhile.
    for id in ["before", "first"] {
        let values = qoe(&database, id, "own_x own_b own_c").await;
        assert!(["- b c", "x b c"].contains(&values.as_str()), "{id}: {values}");
    }
    assert_eq!(qoe(&database, "second", "own_x own_b own_c").await, "x b c");
    let wrong =
        "SELECT count(*) FROM session_qoe WHERE own_x <> 'x' OR own_b <> 'b' OR own_b IS NULL";
    assert_eq!(database.number(wrong).await, 0);
    let columns = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
                   WHERE attrelid = 'session_qoe'::regclass AND attname LIKE 'own_%'";
    let columns = database.value(columns).await.expect("columns");
    assert_eq!(columns, "own_x own_b own_c own_d own_e own_f own_g own_h");
    // Who has no list at all is not in anybody's way.
    let none = server(&database, "", "").await;
    post(&none, "none", members).await;
    assert_eq!(qoe(&database, "none", "own_x own_b").await, "- -");
}

/// A server that comes up with another list takes no column from a batch in flight.
#[tokio::test]
async fn a_slot_is_not_taken_under_a_batch_in_flight() {
    let database = Database::new().await;
    let first = server(&database, "cdn:a", "").await;
    post(&first, "s", r#""a":1"#).await;
    // A dump reads the table, and a batch locks it, to the end of their transactions.
    let dump = "BEGIN; SELECT FROM own_dimensions";
    let mut dumping = database.connect().await;
    sqlx::raw_sql(dump).execute(&mut dumping).await.expect("it reads");
    let batch = "BEGIN; LOCK TABLE own_dimensions IN ROW SHARE MODE";
    let mut in_flight = database.connect().await;
    sqlx::raw_sql(batch).execute(&mut in_flight).await.expect("it locks");
    let starting = tokio::spawn({
        let database = database.clone();
        async move { server(&database, "cdn:b", "").await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert_eq!(slots(&database).await, ["1 cdn a"]);
    drop(in_flight);
    let second = starting.await.expect("it starts");
    assert_eq!(slots(&database).await, ["1 cdn b"]);
    second.stop().await;
}

#[tokio::test]
async fn names_of_columns_are_known_to_the_configuration() {
    let server = Server::start().await;
    let names = "SELECT DISTINCT attname FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped
                 AND attrelid IN ('sessions'::regclass, 'session_qoe'::regclass)";
    let names = server.database.lines(names).await;
    assert!(names.len() > 50, "{names:?}");
    for name in names {
        assert!(is_column(&name), "{name} is not reserved");
    }
}

#[tokio::test]
async fn the_view_is_made_again_where_it_cannot_be_replaced() {
    let database = Database::new().await;
    let first = server(&database, "cdn:a", "").await;
    post(&first, "s", r#""a":1"#).await;
    first.stop().await;
    database.execute("DROP VIEW session_qoe; CREATE VIEW session_qoe AS SELECT 1 AS other").await;
    let second = server(&database, "cdn:a", "").await;
    assert_eq!(qoe(&database, "s", "cdn").await, "1");
    second.stop().await;
    // And not when there is nothing to change.
    let oid = "SELECT xmin::text || oid FROM pg_class WHERE relname = 'session_qoe'";
    let before = database.value(oid).await;
    server(&database, "cdn:a", "").await.stop().await;
    assert_eq!(database.value(oid).await, before);
}

#[tokio::test]
async fn a_backfill_reads_stored_payloads_as_reports_are_read_and_goes_on_where_it_stopped() {
    const HOUR_MS: i64 = 3_600_000;
    let database = Database::new().await;
    let first = server(&database, "cdn:custom.cdn", "").await;
    let values = [r#""e1""#, "1.50e1", "true", "null", r#""  ""#, "{}", "[0]", r#""ä""#];
    let at = |hour: usize| NOW_MS - HOUR_MS * i64::try_from(hour).expect("small");
    for (hour, value) in values.iter().enumerate() {
        let body = format!(
            r#"{{"sessionId":"s{hour}","timestamp":{},"custom":{{"cdn":"old","0":{value}}}}}"#,
            at(hour)
        );
        assert_eq!(first.post(body).await.status, 200);
    }
    // The payload may be gone before its session.
    let gone = format!(r#"{{"sessionId":"gone","timestamp":{NOW_MS},"custom":{{"cdn":"old"}}}}"#);
    assert_eq!(first.post(gone).await.status, 200);
    database.execute("UPDATE sessions SET payload = NULL WHERE session_id = 'gone'").await;
    first.stop().await;

    // The server would do the same by itself.
    let mut another = database.connect().await;
    let hold = "BEGIN; LOCK TABLE backfill_lock IN EXCLUSIVE MODE";
    sqlx::raw_sql(hold).execute(&mut another).await.expect("it locks");
    let second = server(&database, "cdn:custom.0,first:custom.0", "").await;
    second.clock_ms.fetch_add(LATER_MS, Ordering::Relaxed);
    let store = &second.app.store;
    // As if a run had ended after the first two hours.
    let stopped = format!(
        "UPDATE own_dimensions SET filled_to = to_timestamp({} / 1000) WHERE name = 'cdn'",
        at(1) / HOUR_MS * HOUR_MS
    );
    database.execute(&stopped).await;
    let mut batches = Vec::new();
    store.backfill_dimension("cdn", |progress| batches.push(progress.to.0)).await.expect("filled");
    assert_eq!(batches, [at(values.len() - 1)]);
    let filled = store.backfill_dimension("first", |_| {}).await.expect("filled");
    assert_eq!(filled, 4);

    let read = ["e1", "15.0", "true", "-", "-", "-", "-", "ä"];
    for (hour, value) in read.iter().enumerate() {
        let both = qoe(&database, &format!("s{hour}"), "first cdn").await;
        let cdn = if hour < 2 { "old" } else { value };
        assert_eq!(both, format!("{value} {cdn}"), "{hour}");
    }
    // The whole of it, and then there is nothing left to do.
    let again = "UPDATE own_dimensions SET filled_to = NULL, hides_older = true WHERE name = 'cdn'";
    database.execute(again).await;
    assert_eq!(store.backfill_dimension("cdn", |_| {}).await.expect("filled"), 3);
    assert_eq!(qoe(&database, "s0", "first cdn").await, "e1 e1");
    assert_eq!(qoe(&database, "gone", "cdn").await, "-");
    assert_eq!(store.backfill_dimension("cdn", |_| {}).await.expect("done"), 0);
    let own = store.own_dimensions().await.expect("read");
    assert_eq!(own[0].value("s."), "s.dimension_1");
    let unknown = store.backfill_dimension("plan", |_| {}).await.expect_err("unknown");
    assert!(unknown.to_string().contains("no own dimension plan"), "{unknown}");
}
