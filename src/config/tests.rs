//! The whole configuration, from variables to values and complaints.

use super::*;

fn load(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let get = |name: &str| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into())
    };
    Config::load(&Environment::new(get))
}

const DB: (&str, &str) = ("DATABASE_URL", "postgresql://u:canary@h/d");

#[test]
fn defaults_are_those_of_the_contract() {
    let config = load(&[("HOME", "/home/someone")]).expect("valid");
    assert!(config.has_default_key());
    assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.rate_limit.requests.get(), 100);
    assert_eq!(config.rate_limit.window, Duration::from_mins(1));
    assert_eq!(config.retention, Retention::days(90));
    assert_eq!(config.pool, PoolSize { max: 20, min_idle: 5 });
    assert_eq!(config.metrics, MetricsAt::Main);
    assert_eq!(config.max_body_bytes, 1_048_576);
    assert!(matches!(config.database, Database::BuiltIn(_)));
}

#[test]
fn empty_counts_as_unset() {
    let config = load(&[DB, ("PORT", ""), ("M3W_API_KEY", "")]).expect("valid");
    assert_eq!(config.listen.port(), 8080);
    assert!(config.has_default_key());
}

#[test]
fn all_problems_are_reported_at_once_and_secrets_stay_hidden() {
    let error = load(&[
        ("DATABASE_URL", "mysql://canary"),
        ("M3W_API_KEY", "canary key"),
        ("PORT", "80800"),
        ("HOST", "everywhere"),
        ("RATE_LIMIT_REQUESTS", "0"),
        ("RETENTION_DAYS", "-1"),
        ("HIKARI_MAX_POOL_SIZE", "3"),
        ("HIKARI_MIN_IDLE", "4"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("ENABLE_METRICS", "maybe"),
        ("METRICS_ADDR", "9090"),
        ("MAX_BODY_BYTES", "1MB"),
        ("REDIS_URL", "canary:6379"),
        ("TRUSTED_PROXIES", "10.0.0.0/8;10.1.0.1"),
        ("DIMENSIONS", "cdn:custom.cdn,Plan:custom.plan"),
        ("VIEWER_ID", "custom..userRef"),
    ])
    .expect_err("wrong");
    let text = error.to_string();
    assert_eq!(error.0.len(), 16, "{text}");
    assert!(!text.contains("canary"), "{text}");
    assert!(text.contains("PORT is \"80800\", expected a whole number from 0 to 65535"));
    let proxies = "TRUSTED_PROXIES is \"10.0.0.0/8;10.1.0.1\", expected addresses or networks";
    assert!(text.contains(proxies), "{text}");
}

#[test]
fn own_fields_are_read_with_blanks_around_them() {
    let config =
        load(&[DB, ("DIMENSIONS", " cdn : custom.cdn ,plan:plan"), ("VIEWER_ID", " v.id ")]);
    let config = config.expect("valid");
    let fields: Vec<String> = config.own_fields.iter().map(ToString::to_string).collect();
    assert_eq!(fields, ["cdn:custom.cdn", "plan:plan", "viewer_id:v.id"]);
    let shown = |name: &str| {
        let setting = config.settings().iter().find(|setting| setting.name == name);
        setting.expect("shown").value.clone()
    };
    assert_eq!(shown("DIMENSIONS"), "cdn:custom.cdn,plan:plan");
    assert_eq!(shown("VIEWER_ID"), "v.id");
    let none = load(&[DB, ("DIMENSIONS", "  "), ("VIEWER_ID", "")]).expect("valid");
    assert!(none.own_fields.is_empty());
}

#[test]
fn every_wrong_dimension_is_named() {
    let problems = |dimensions: &str| {
        let wrong = load(&[DB, ("DIMENSIONS", dimensions)]).expect_err(dimensions).0;
        wrong.iter().map(|problem| problem.found.clone()).collect::<Vec<_>>()
    };
    for wrong in [
        "cdn",
        ":custom.cdn",
        "cdn:",
        "cdn:a..b",
        "cdn:timelineEvents.x",
        "Cdn:a",
        "1:a",
        "_a:a",
        "c-d:a",
        // Columns of sessions and of session_qoe, and names that mean something else.
        "content_id:a",
        "viewer_id:a",
        "dimension_1:a",
        "payload:a",
        "watched_ms:a",
        "failed:a",
        "stream_type:a",
        "tenant:a",
        "error:a",
        "error_category:a",
        "error_code:a",
        "timeline:a",
    ] {
        assert_eq!(problems(wrong), [format!("{wrong:?}")]);
    }
    assert_eq!(problems("a:a,b,c:c,a:d,"), [r#""b""#, r#""a:d""#, r#""""#]);
    let many = |count: usize| {
        let items: Vec<String> = (0..count).map(|n| format!("d{n}:d{n}")).collect();
        items.join(",")
    };
    assert_eq!(problems(&many(9)), ["a list of 9"]);
    assert!(load(&[DB, ("DIMENSIONS", &many(8))]).is_ok());
    let longest = "a".repeat(63);
    assert!(load(&[DB, ("DIMENSIONS", &format!("{longest}:a"))]).is_ok());
    assert_eq!(problems(&format!("{longest}a:a")).len(), 1);
}

#[test]
fn secrets_come_from_files_too() {
    let file = tempfile::NamedTempFile::new().expect("temp file");
    std::fs::write(file.path(), "from-file\n").expect("written");
    let path = file.path().to_str().expect("UTF-8").to_owned();
    let config = load(&[DB, ("M3W_API_KEY_FILE", &path)]).expect("valid");
    assert_eq!(config.api_key.expose(), "from-file");
    let both = load(&[DB, ("M3W_API_KEY_FILE", &path), ("M3W_API_KEY", "x")]);
    assert!(both.expect_err("both").to_string().contains("only one of it and M3W_API_KEY"));
    assert!(load(&[DB, ("M3W_API_KEY_FILE", "/does/not/exist")]).is_err());
}

#[test]
fn levels_in_any_case_and_filters_are_taken() {
    for level in ["info", "WARN", "Debug", "info,media3watch=debug", "media3watch::store=TRACE"] {
        assert!(load(&[DB, ("LOG_LEVEL", level)]).is_ok(), "{level}");
    }
}

#[test]
fn a_small_pool_takes_the_default_idle_along() {
    let config = load(&[DB, ("HIKARI_MAX_POOL_SIZE", "2")]).expect("valid");
    assert_eq!(config.pool, PoolSize { max: 2, min_idle: 2 });
}

#[test]
fn settings_show_sources_and_no_secrets() {
    let config = load(&[DB, ("PORT", "1234"), ("M3W_API_KEY", "canary")]).expect("valid");
    let shown = format!("{:?}", config.settings());
    assert!(!shown.contains("canary") && !format!("{config:?}").contains("canary"));
    let port = config.settings().iter().find(|s| s.name == "PORT").expect("there");
    assert_eq!((port.value.as_str(), &port.source), ("1234", &Source::Environment));
}
