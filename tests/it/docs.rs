//! The documentation says what the code does: its tables are compared with the code, its SQL
//! and its JSON are run.
//!
//! Refresh the tables with `M3W_UPDATE_DOCS=1 cargo test --test it docs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use media3watch::cli::Cli;
use media3watch::config::{ALERT_VARIABLES, VARIABLES, Variable};
use media3watch::jobs::Heart;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _};

use crate::rollups::settle;
use crate::support::{Database, Server, ServerOptions, now_ms};

/// A moment shortly after the examples were "sent".
const NOW_MS: i64 = 1_795_000_100_000;
/// The session that docs/sql.md looks at.
const SESSION: &str = "7b0c2e0e-5d0f-4b5e-9b43-0d5ce3a6c004";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    let path = root().join(name);
    fs::read_to_string(&path).unwrap_or_else(|_| panic!("no {}", path.display()))
}

/// Compares what stands between two marks in a file with what should; or, asked to, writes it.
pub fn check_block(file: &str, name: &str, expected: &str) {
    let text = read(file);
    let (begin, end) = (
        format!("<!-- begin {name}: generated, see tests/it/docs.rs -->\n"),
        format!("<!-- end {name} -->"),
    );
    let marks = text.split_once(&begin).and_then(|(before, rest)| {
        let (block, after) = rest.split_once(&end)?;
        Some((before, block, after))
    });
    let (before, block, after) = marks.unwrap_or_else(|| panic!("no marks {name} in {file}"));
    if block == expected {
        return;
    }
    assert!(
        std::env::var_os("M3W_UPDATE_DOCS").is_some(),
        "the table {name} in {file} is not what the code says; refresh it with\n  \
         M3W_UPDATE_DOCS=1 cargo test --test it docs\n\nexpected:\n{expected}\nfound:\n{block}"
    );
    let text = [before, &begin, expected, &end, after].concat();
    fs::write(root().join(file), text).expect("written");
}

/// The fenced blocks of a language in a file.
pub fn blocks(file: &str, language: &str) -> Vec<String> {
    let text = read(file);
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1).map(|rest| {
        let (block, _) = rest.split_once("```").expect("a closed block");
        block.to_owned()
    });
    blocks.collect()
}

/// A cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn every_variable_is_in_the_table() {
    check_block("docs/configuration.md", "variables", &variables_table(VARIABLES));
    check_block("docs/configuration.md", "alert variables", &variables_table(ALERT_VARIABLES));
}

fn variables_table(variables: &[Variable]) -> String {
    let mut table = "| variable | default | meaning |\n|---|---|---|\n".to_owned();
    for variable in variables {
        let file = if variable.is_secret { " ¹" } else { "" };
        let default = if variable.default.contains(' ') || variable.default == "none" {
            variable.default.to_owned()
        } else {
            format!("`{}`", variable.default)
        };
        let (name, meaning) = (variable.name, cell(variable.meaning));
        table += &format!("| `{name}`{file} | {default} | {meaning} |\n");
    }
    table
}

/// Rows `| `NAME` | `default` | …` of other files must not contradict the code.
#[test]
fn variables_elsewhere_exist_and_have_the_default_that_is_said() {
    let mut rows = 0;
    for line in read("README.md").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, default, ..] = cells[..] else {
            continue;
        };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else {
            continue;
        };
        if !name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') {
            continue;
        }
        let variable = VARIABLES.iter().find(|variable| variable.name == name);
        let variable = variable.unwrap_or_else(|| panic!("README.md: there is no {name}"));
        assert_eq!(default.trim_matches('`'), variable.default, "README.md: {name}");
        rows += 1;
    }
    assert!(rows >= 5, "the table in README.md was not found");

    // Read by compose alone: tests/it/grafana/compose.rs looks for them there.
    let is_of_compose = |name: &str| {
        let prefixes = ["POSTGRES_", "MEDIA3WATCH_", "GRAFANA_", "GF_SMTP_"];
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    for line in read(".env.example").lines() {
        let Some((name, _)) = line.strip_prefix('#').and_then(|line| line.split_once('=')) else {
            continue;
        };
        if name.contains(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_') {
            continue;
        }
        let mut known = VARIABLES.iter().chain(ALERT_VARIABLES);
        let is_known = known.any(|variable| variable.name == name);
        assert!(is_known || is_of_compose(name), ".env.example: there is no {name}");
    }
}

/// The metrics of a running server: name, type, labels and help.
fn metrics_table(text: &str) -> String {
    let mut types = BTreeMap::new();
    let mut labels: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            types.insert(name, kind);
        } else if !line.starts_with('#')
            && let Some((series, rest)) = line.split_once('{')
        {
            let name = ["_bucket", "_sum", "_count"]
                .into_iter()
                .filter_map(|suffix| series.strip_suffix(suffix))
                .find(|name| types.contains_key(name))
                .unwrap_or(series);
            let known = labels.entry(name).or_default();
            let (inner, _) = rest.rsplit_once('}').expect("closed");
            for label in inner.split(',').filter_map(|pair| pair.split_once('=')) {
                let label = format!("`{}`", label.0);
                if label != "`le`" && !known.contains(&label) {
                    known.push(label);
                }
            }
        }
    }
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("# HELP ") else {
            continue;
        };
        let (name, help) = rest.split_once(' ').expect("a help text");
        let labels = labels.get(name).map(|labels| labels.join(", ")).unwrap_or_default();
        table += &format!("| `{name}` | {} | {labels} | {} |\n", types[name], cell(help));
    }
    table
}

#[tokio::test]
async fn every_metric_is_in_the_table() {
    let server = Server::start().await;
    let text = server.get("/metrics").await.text;
    // Those of the process are read from /proc.
    if cfg!(target_os = "linux") {
        check_block("docs/metrics.md", "metrics", &metrics_table(&text));
    }
    // Queries name metrics that exist.
    let known: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
    let prefixes = ["http_server_", "db_", "sessions_", "rate_limited_", "ingest_", "job_"];
    let queries = blocks("docs/metrics.md", "promql");
    assert!(!queries.is_empty());
    for query in queries {
        for word in query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if !prefixes.iter().any(|prefix| word.starts_with(prefix)) {
                continue;
            }
            let is_known = known.iter().any(|name| {
                word.strip_prefix(name)
                    .is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
            });
            assert!(is_known, "docs/metrics.md asks for {word}");
        }
    }
}

/// The columns of a table, or those that a view adds to `sessions`.
async fn columns(database: &Database, table: &str) -> String {
    let sql = format!(
        "SELECT '| `' || attname || '` | ' || format_type(atttypid, NULL)
                || CASE WHEN attnotnull OR relkind = 'v' THEN '' ELSE ', null' END || ' | '
                || col_description(attrelid, attnum) || ' |'
         FROM pg_attribute a JOIN pg_class ON pg_class.oid = attrelid
         WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT (relname = 'session_qoe'
           AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'sessions'::regclass AND attname = a.attname))
         ORDER BY attnum"
    );
    let lines = database.lines(&sql).await.join("\n");
    let lines = lines
        .replace("timestamp with time zone", "timestamptz")
        .replace("double precision", "float8");
    format!("| column | type | meaning |\n|---|---|---|\n{lines}\n")
}

#[tokio::test]
async fn every_column_is_in_the_tables() {
    let server = Server::start().await;
    let tables = [
        "sessions",
        "session_timeline",
        "rejected_reports",
        "session_qoe",
        "own_dimensions",
        "refused_reports",
        "backend_minutes",
        "job_runs",
    ];
    for table in tables {
        let columns = columns(&server.database, table).await;
        check_block("docs/sql.md", table, &columns);
    }
}

/// A few sessions of the last hour, among them the one of docs/sql.md.
async fn fill(server: &Server) {
    let now = now_ms();
    for (index, (startup, rebuffer, errors)) in
        [(420, 0, 0), (850, 300, 0), (1_900, 4_200, 0), (2_600, 9_000, 1)].into_iter().enumerate()
    {
        let report = json!({
            "schemaVersion": "1.0.0", "sessionId": format!("filled-{index}"), "timestamp": now,
            "contentId": "episode-0412", "streamType": "VOD", "startupTimeMs": startup,
            "playTimeMs": 120_000, "rebufferTimeMs": rebuffer, "rebufferCount": index,
            "errorCount": errors, "avgBitrateKbps": 4_000,
            "lastErrorCode": (errors > 0).then_some(2001),
            "lastErrorCategory": (errors > 0).then_some("NETWORK"),
            "device": {"model": "Pixel 8", "os": "Android", "osVersion": "14"},
            "app": {"name": "Rivulet", "version": "3.4.1"},
            "custom": {"cdn": "edge-eu", "userRef": "u-4711"},
        });
        assert_eq!(server.post(report.to_string()).await.status, 200);
    }
    let mut report: Value =
        serde_json::from_str(&read("tests/fixtures/wire/c-report-1.json")).expect("JSON");
    report["timestamp"] = now.into();
    report["sessionStartDateIso"] = Value::Null;
    assert_eq!(report["sessionId"], SESSION);
    assert_eq!(server.post(report.to_string()).await.status, 200);
    // And one from a device whose clock stands at 1970.
    let odd = r#"{"sessionId":"tv","timestamp":86400000,"playTimeMs":1000}"#;
    assert_eq!(server.post(odd).await.status, 200);
    assert_eq!(server.post(r#"{"sessionId":"refused"}"#).await.status, 400);
    Heart::new(&server.app).beat(&server.app).await.expect("written");
}

#[tokio::test]
async fn all_sql_runs_and_finds_something() {
    // As docs/configuration.md shows them.
    let env = vec![
        ("DIMENSIONS", "cdn:custom.cdn,plan:custom.plan".to_owned()),
        ("VIEWER_ID", "custom.userRef".to_owned()),
    ];
    let options = ServerOptions { env, ..ServerOptions::default() };
    let server = Server::with(options, &Database::new().await).await;
    fill(&server).await;
    settle(&server.app).await;
    for (file, least) in [("README.md", 4), ("docs/sql.md", 19)] {
        let mut statements = 0;
        for block in blocks(file, "sql") {
            for statement in block.split(";\n").map(str::trim).filter(|sql| !sql.is_empty()) {
                let mut connection = server.database.connect().await;
                let sql = statement.trim_end_matches(';').to_owned();
                let found = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut connection).await;
                let rows = found.unwrap_or_else(|error| panic!("{file}: {error}\n{statement}"));
                assert!(!rows.is_empty(), "{file}: nothing found\n{statement}");
                assert!(!rows[0].columns().is_empty());
                statements += 1;
            }
        }
        assert!(statements >= least, "{file}: {statements} statements");
    }
}

/// Lines of shell that call the program do so as its command line allows.
#[test]
fn commands_of_the_import_page_are_ones_that_exist() {
    let mut commands = 0;
    for block in blocks("docs/import.md", "sh") {
        for line in block.lines().filter(|line| line.trim_start().starts_with("media3watch ")) {
            let parsed = Cli::try_parse_from(line.split_whitespace());
            assert!(parsed.is_ok(), "{line}: {}", parsed.expect_err("wrong"));
            commands += 1;
        }
    }
    assert!(commands >= 1, "docs/import.md: {commands} commands");
}

#[tokio::test]
async fn all_json_of_the_wire_format_is_accepted() {
    let server = Server::at(NOW_MS).await;
    let examples = blocks("docs/wire-format.md", "json");
    assert!(examples.len() >= 4, "{}", examples.len());
    for example in examples {
        let report: Value = serde_json::from_str(&example).expect(&example);
        let answer = if report.is_array() {
            let answer = server.post_batch(example.clone()).await;
            assert_eq!(answer.json()["rejected"], 0, "{}", answer.text);
            answer
        } else {
            server.post(example.clone()).await
        };
        assert_eq!(answer.status, 200, "{}\n{example}", answer.text);
    }
}

fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in ["", "docs", "docs/adr"] {
        let entries = fs::read_dir(root().join(dir)).expect("a directory");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        found.extend(paths.filter(|path| path.extension().is_some_and(|ext| ext == "md")));
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    assert!(documents.len() >= 10);
    for document in documents {
        let text = fs::read_to_string(&document).expect("read");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                document.clone()
            } else {
                document.parent().expect("a directory").join(path)
            };
            let from = document.display();
            assert!(target.exists(), "{from}: there is no {link}");
            if anchor.is_empty() {
                continue;
            }
            let headings = fs::read_to_string(&target).expect("a document");
            let is_there = headings.lines().any(|line| {
                line.starts_with('#') && slug(line.trim_start_matches('#').trim()) == anchor
            });
            assert!(is_there, "{from}: there is no {link}");
        }
    }
}

/// The anchor that GitHub makes of a heading.
fn slug(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn decisions_are_numbered_without_gaps() {
    let mut names: Vec<String> = documents()
        .into_iter()
        .filter(|path| path.parent().is_some_and(|dir| dir.ends_with("adr")))
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .filter(|name| name != "README.md")
        .collect();
    names.sort();
    let index = read("docs/adr/README.md");
    for (number, name) in (1..).zip(&names) {
        assert!(name.starts_with(&format!("{number:04}-")), "{name}");
        assert!(index.contains(name.as_str()), "docs/adr/README.md does not list {name}");
    }
}
