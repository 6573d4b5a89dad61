//! Configuration: the environment, read once, checked whole.
//!
//! Nothing outside this module reads the environment. [`Config::load`] reports every wrong
//! variable at once; [`Config::settings`] shows what holds and where it came from.

mod alerting;
mod database;
mod dimensions;
mod parameters;
mod source;
#[cfg(test)]
mod tests;
mod variables;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use tracing_subscriber::EnvFilter;
use url::Url;

pub use alerting::{ALERT_VARIABLES, alerting};
pub use database::DatabaseUrl;
pub(crate) use database::ssl_mode_name;
pub use source::{Environment, Problem, Setting, Source};
pub use variables::{VARIABLES, Variable};

use crate::auth::PlainKey;
use crate::limit::{RateLimit, TrustedProxies};
use crate::managed_pg;
use crate::report::{OwnField, Retention};
use crate::store::{PoolSize, Reader};
use crate::telemetry::LogFormat;
use source::{HIDDEN, Reader as EnvReader};
use variables as var;

const DEFAULT_KEY: &str = "dev-key";
const MAX_RETENTION_DAYS: u32 = 36_500;
/// A refused body of this size fits into the queue of bodies to be kept, an accepted one into
/// the queue of reports, both with room for others.
const MAX_MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// Everything that can be configured, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Key of tenant `default`.
    pub api_key: PlainKey,
    /// Where the sessions go.
    pub database: Database,
    /// Grafana's role in that database, if the server is to keep it.
    pub reader: Option<Reader>,
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Per key.
    pub rate_limit: RateLimit,
    /// Peers whose connections are those of many clients.
    pub trusted_proxies: TrustedProxies,
    /// Checked, and reserved.
    pub redis_url: Option<SecretString>,
    /// Fields of the reports that become columns: `DIMENSIONS`, then `VIEWER_ID`.
    pub own_fields: Vec<OwnField>,
    /// How long sessions are kept.
    pub retention: Retention,
    /// Database connections.
    pub pool: PoolSize,
    /// How logs look and what is in them.
    pub log: Log,
    /// Where metrics are served.
    pub metrics: MetricsAt,
    /// Largest report in bytes.
    pub max_body_bytes: usize,
    settings: Vec<Setting>,
}

/// Where the sessions go.
#[derive(Debug, Clone)]
pub enum Database {
    /// The built-in PostgreSQL.
    BuiltIn(managed_pg::Settings),
    /// A PostgreSQL that others run.
    Url(DatabaseUrl),
}

/// How logs look and what is in them.
#[derive(Debug, Clone)]
pub struct Log {
    /// JSON or text.
    pub format: LogFormat,
    /// A filter expression that has been checked.
    filter: String,
}

impl Log {
    /// The filter.
    #[must_use]
    pub fn filter(&self) -> EnvFilter {
        EnvFilter::new(&self.filter)
    }
}

/// Where metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsAt {
    /// Nowhere.
    Off,
    /// On the main listener.
    Main,
    /// On a listener of their own.
    Own(SocketAddr),
}

/// All wrong variables at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let variables = if count == 1 { "variable" } else { "variables" };
        write!(f, "{count} wrong environment {variables}:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

fn problem(name: &str, found: &str, expected: &str) -> Problem {
    let (name, found, expected) = (name.to_owned(), found.to_owned(), expected.to_owned());
    Problem { name, found, expected }
}

impl Config {
    /// Reads and checks the whole configuration.
    ///
    /// # Errors
    /// Every variable that is wrong, what it was, and what is allowed.
    pub fn load(environment: &Environment<'_>) -> Result<Self, ConfigError> {
        let mut reader = EnvReader::new(environment);
        let api_key = api_key(&mut reader);
        let database = database(&mut reader, environment);
        let grafana = grafana(&mut reader);
        let port = reader.value(var::PORT, 8080, number(0, u16::MAX));
        let host = reader.value(var::HOST, IpAddr::V4(Ipv4Addr::UNSPECIFIED), host);
        let requests = reader.value(var::RATE_LIMIT_REQUESTS, 100, number(1, u32::MAX));
        let window = reader.value(var::RATE_LIMIT_WINDOW_SEC, 60, number(1, 86_400));
        let trusted_proxies =
            reader.value(var::TRUSTED_PROXIES, TrustedProxies::default(), str::parse);
        let redis_url = redis_url(&mut reader);
        let own_fields = dimensions::own_fields(&mut reader);
        let days = reader.value(var::RETENTION_DAYS, 90, number(0, MAX_RETENTION_DAYS));
        let pool = pool(&mut reader);
        let filter = reader.value(var::LOG_LEVEL, "info".to_owned(), log_filter);
        let format = log_format(&mut reader);
        let metrics = metrics(&mut reader);
        let max_body_bytes =
            reader.value(var::MAX_BODY_BYTES, 1_048_576, number(1_024, MAX_MAX_BODY_BYTES));
        if !reader.problems.is_empty() {
            return Err(ConfigError(reader.problems));
        }
        Ok(Self {
            api_key,
            database: database.expect("None is a problem"),
            reader: grafana,
            listen: SocketAddr::new(host, port),
            rate_limit: RateLimit {
                requests: NonZeroU32::new(requests).expect("at least 1"),
                window: Duration::from_secs(window),
            },
            trusted_proxies,
            redis_url,
            own_fields,
            retention: Retention::days(days),
            pool,
            log: Log { format, filter },
            metrics,
            max_body_bytes,
            settings: reader.settings,
        })
    }

    /// What holds, variable by variable, and where it came from; secrets hidden.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// Where the key came from.
    #[must_use]
    pub fn api_key_source(&self) -> &Source {
        let key = |setting: &&Setting| setting.name == var::API_KEY.name;
        let setting = self.settings.iter().find(key);
        setting.map_or(&Source::Default, |setting| &setting.source)
    }

    /// Whether the key is the one that everybody knows.
    #[must_use]
    pub fn has_default_key(&self) -> bool {
        self.api_key.expose() == DEFAULT_KEY
    }
}

fn api_key(reader: &mut EnvReader<'_>) -> PlainKey {
    let Some((key, source)) = reader.raw(var::API_KEY) else {
        reader.setting(var::API_KEY, DEFAULT_KEY.to_owned(), Source::Default);
        return PlainKey::new(DEFAULT_KEY.to_owned());
    };
    let key = PlainKey::new(key);
    if !key.is_sendable() {
        reader.problem(var::API_KEY.name, HIDDEN, PlainKey::EXPECTED);
    }
    reader.setting(var::API_KEY, HIDDEN.to_owned(), source);
    key
}

fn database(reader: &mut EnvReader<'_>, environment: &Environment<'_>) -> Option<Database> {
    let url = reader.raw(var::DATABASE_URL);
    let user = reader.raw(var::DATABASE_USER);
    let password = reader.raw(var::DATABASE_PASSWORD);
    let data_dir = reader.raw(var::DATA_DIR);
    let Some((text, source)) = url else {
        let default = var::DATABASE_URL.default.to_owned();
        reader.setting(var::DATABASE_URL, default, Source::Default);
        return built_in(reader, environment, data_dir).map(Database::BuiltIn);
    };
    let parsed = match DatabaseUrl::parse(&text) {
        Ok(parsed) => parsed,
        Err(expected) => {
            reader.problem(var::DATABASE_URL.name, HIDDEN, &expected);
            return None;
        }
    };
    let value_of = |raw: &Option<(String, Source)>| raw.as_ref().map(|(value, _)| value.clone());
    let parsed = parsed.with_login(value_of(&user), value_of(&password));
    let home = environment.get("HOME").map(PathBuf::from);
    let parsed = parsed.with_home(home.as_deref());
    if let Err(expected) = parsed.check_files() {
        reader.problem(var::DATABASE_URL.name, HIDDEN, &expected);
        return None;
    }
    let Some(name) = parsed.user() else {
        reader.problem(var::DATABASE_USER.name, "unset", "a user, here or in DATABASE_URL");
        return None;
    };
    // What was not set by itself is in the URL, and comes from where that comes from.
    let source_of = |raw: Option<(String, Source)>| raw.map_or(source.clone(), |(_, own)| own);
    let (user_source, password_source) = (source_of(user), source_of(password));
    reader.setting(var::DATABASE_URL, parsed.to_string(), source);
    reader.setting(var::DATABASE_USER, name, user_source);
    if parsed.has_password() {
        reader.setting(var::DATABASE_PASSWORD, HIDDEN.to_owned(), password_source);
    } else {
        reader.setting(var::DATABASE_PASSWORD, "none".to_owned(), Source::Default);
    }
    Some(Database::Url(parsed))
}

/// Reads the URL of a database that a command is given beside the configured one.
///
/// # Errors
/// What is allowed; nothing of the URL, which may hold a password.
pub fn other_database(text: &str, environment: &Environment<'_>) -> Result<DatabaseUrl, String> {
    let home = environment.get("HOME").map(PathBuf::from);
    let url = DatabaseUrl::parse(text.trim())?.with_home(home.as_deref());
    url.check_files()?;
    match url.user() {
        Some(_) => Ok(url),
        None => Err("a user in it: postgresql://user:password@host:port/database".to_owned()),
    }
}

fn built_in(
    reader: &mut EnvReader<'_>,
    environment: &Environment<'_>,
    data_dir: Option<(String, Source)>,
) -> Option<managed_pg::Settings> {
    let path = |name| environment.get(name).map(PathBuf::from);
    let (dir, source) = if let Some((dir, source)) = data_dir {
        (Some(PathBuf::from(dir)), source)
    } else {
        let is_root = nix::unistd::geteuid().is_root();
        let (home, xdg) = (path("HOME"), path("XDG_DATA_HOME"));
        let default = managed_pg::default_data_dir(
            std::env::consts::OS,
            is_root,
            home.as_deref(),
            xdg.as_deref(),
        );
        (default, Source::Default)
    };
    let Some(dir) = dir else {
        let expected = "a directory for the built-in PostgreSQL, or DATABASE_URL set";
        reader.problem(var::DATA_DIR.name, "unset, and HOME too", expected);
        return None;
    };
    // Postgres runs in another working directory than we do.
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    reader.setting(var::DATA_DIR, dir.display().to_string(), source);
    Some(managed_pg::Settings::new(dir, environment.get("PATH").as_deref()))
}

/// A name that needs no quotes, in any tool.
fn role_name(text: &str) -> Result<String, String> {
    let is_name = text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !text.starts_with("pg_")
        && !matches!(text, "public" | "none");
    let expected =
        "a name of lower-case letters, digits and _ that Postgres does not keep for itself";
    is_name.then(|| text.to_owned()).ok_or_else(|| expected.to_owned())
}

fn grafana(reader: &mut EnvReader<'_>) -> Option<Reader> {
    let user = reader.value(var::GRAFANA_DB_USER, "grafana".to_owned(), role_name);
    let (password, source) = reader.raw(var::GRAFANA_DB_PASSWORD)?;
    reader.setting(var::GRAFANA_DB_PASSWORD, HIDDEN.to_owned(), source);
    Some(Reader { user, password: password.into() })
}

fn pool(reader: &mut EnvReader<'_>) -> PoolSize {
    let max = reader.value(var::MAX_POOL_SIZE, 20, number(1, 1_000));
    // The default makes way for a small maximum; a number that somebody chose does not.
    let min_idle = reader.value(var::MIN_IDLE, 5.min(max), number(0, max));
    PoolSize { max, min_idle }
}

fn redis_url(reader: &mut EnvReader<'_>) -> Option<SecretString> {
    let (url, source) = reader.raw(var::REDIS_URL)?;
    let is_redis = Url::parse(&url).is_ok_and(|url| matches!(url.scheme(), "redis" | "rediss"));
    if !is_redis {
        reader.problem(var::REDIS_URL.name, HIDDEN, "redis://host:port/db or rediss://…");
    }
    reader.setting(var::REDIS_URL, HIDDEN.to_owned(), source);
    Some(url.into())
}

fn metrics(reader: &mut EnvReader<'_>) -> MetricsAt {
    let is_on = reader.value(var::ENABLE_METRICS, true, boolean);
    let own = match reader.raw(var::METRICS_ADDR) {
        None => None,
        Some((text, source)) => {
            // A bare port means all addresses, as elsewhere.
            let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.clone() };
            if let Ok(address) = full.parse::<SocketAddr>() {
                reader.setting(var::METRICS_ADDR, address.to_string(), source);
                Some(address)
            } else {
                let expected = "an address with a port, such as 127.0.0.1:9090";
                reader.problem(var::METRICS_ADDR.name, &format!("{text:?}"), expected);
                None
            }
        }
    };
    match (is_on, own) {
        (false, _) => MetricsAt::Off,
        (true, None) => MetricsAt::Main,
        (true, Some(address)) => MetricsAt::Own(address),
    }
}

fn log_format(reader: &mut EnvReader<'_>) -> LogFormat {
    match reader.raw(var::LOG_FORMAT) {
        None => {
            let fitting = LogFormat::fitting();
            reader.setting(var::LOG_FORMAT, fitting.as_str().to_owned(), Source::Default);
            fitting
        }
        Some((text, source)) => {
            let format = match text.to_ascii_lowercase().as_str() {
                "json" => LogFormat::Json,
                "text" => LogFormat::Text,
                _ => {
                    reader.problem(var::LOG_FORMAT.name, &format!("{text:?}"), "text or json");
                    LogFormat::Json
                }
            };
            reader.setting(var::LOG_FORMAT, format.as_str().to_owned(), source);
            format
        }
    }
}

/// A level in any case, or a filter expression.
fn log_filter(text: &str) -> Result<String, String> {
    const EXPECTED: &str =
        "ERROR, WARN, INFO, DEBUG or TRACE, or a filter such as info,media3watch=debug";
    let is_expression = text.contains(['=', ',']);
    let is_level = tracing::level_filters::LevelFilter::from_str(text).is_ok();
    // A single word that is no level would be taken for the name of a module.
    if (is_expression || is_level) && EnvFilter::try_new(text.to_ascii_lowercase()).is_ok() {
        return Ok(text.to_ascii_lowercase());
    }
    Err(EXPECTED.to_owned())
}

fn host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().map_err(|_| "an IP address such as 0.0.0.0, 127.0.0.1 or ::".to_owned())
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

fn number<T>(min: T, max: T) -> impl FnOnce(&str) -> Result<T, String>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    move |text| match text.parse::<T>() {
        Ok(number) if number >= min && number <= max => Ok(number),
        _ => Err(format!("a whole number from {min} to {max}")),
    }
}
