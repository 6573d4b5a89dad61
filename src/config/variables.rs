//! Every environment variable there is: name, default, and what it means.

/// One environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// As in the environment.
    pub name: &'static str,
    /// What holds when it is unset, in words where it depends.
    pub default: &'static str,
    /// Whether its value must not be shown, and may come from a file named by `NAME_FILE`.
    pub is_secret: bool,
    /// One sentence, for help and documentation.
    pub meaning: &'static str,
}

macro_rules! variables {
    ($($constant:ident = $name:literal, $default:literal, $is_secret:literal, $meaning:literal;)*) => {
        $(pub(super) const $constant: Variable = Variable {
            name: $name, default: $default, is_secret: $is_secret, meaning: $meaning,
        };)*
        /// All of them, in the order of the documentation.
        pub const VARIABLES: &[Variable] = &[$($constant),*];
    };
}

variables! {
    API_KEY = "M3W_API_KEY", "dev-key", true,
        "API key of tenant `default`, scopes ingest and read. Change it before anyone else can reach the server.";
    DATABASE_URL = "DATABASE_URL", "the built-in PostgreSQL", true,
        "PostgreSQL 15 or newer: `postgresql://…`, `postgres://…` or `jdbc:postgresql://…`, parameters such as `sslmode` included.";
    DATABASE_USER = "DATABASE_USER", "from DATABASE_URL", true,
        "Database user; wins over the one in the URL.";
    DATABASE_PASSWORD = "DATABASE_PASSWORD", "from DATABASE_URL", true,
        "Database password; wins over the one in the URL.";
    GRAFANA_DB_PASSWORD = "GRAFANA_DB_PASSWORD", "none", true,
        "Password of the database role that Grafana reads with. When set, the server creates that role, which may read what dashboards show, and sets its password anew at each start.";
    GRAFANA_DB_USER = "GRAFANA_DB_USER", "grafana", false,
        "Name of that role.";
    PORT = "PORT", "8080", false,
        "Port of the HTTP server; 0 picks a free one.";
    HOST = "HOST", "0.0.0.0", false,
        "Address to listen on; 127.0.0.1 keeps the server to this machine.";
    RATE_LIMIT_REQUESTS = "RATE_LIMIT_REQUESTS", "100", false,
        "Requests per window and key. A viewer of SDK 1.x posts at least four a minute.";
    RATE_LIMIT_WINDOW_SEC = "RATE_LIMIT_WINDOW_SEC", "60", false,
        "Length of that window in seconds.";
    TRUSTED_PROXIES = "TRUSTED_PROXIES", "none", false,
        "Addresses or networks of proxies and load balancers in front of the server, separated by commas, such as `10.0.0.0/8,192.0.2.7`. Any other address may have an eighth of all connections.";
    REDIS_URL = "REDIS_URL", "none", true,
        "Reserved for limits shared by several instances: checked, but not used by this version, which counts per instance.";
    DIMENSIONS = "DIMENSIONS", "none", false,
        "Fields of your own reports that become columns of `session_qoe`, as `name:path` separated by commas, such as `cdn:custom.cdn,plan:custom.plan`; at most 8. Keys of a path are separated by dots.";
    VIEWER_ID = "VIEWER_ID", "none", false,
        "Path of the field that says who watched, such as `custom.userRef`; it becomes the column `viewer_id`, which has an index.";
    RETENTION_DAYS = "RETENTION_DAYS", "90", false,
        "Sessions older than this are deleted; 0 keeps everything.";
    MAX_POOL_SIZE = "HIKARI_MAX_POOL_SIZE", "20", false,
        "Database connections at most.";
    MIN_IDLE = "HIKARI_MIN_IDLE", "5", false,
        "Database connections that are kept open; at most HIKARI_MAX_POOL_SIZE.";
    LOG_LEVEL = "LOG_LEVEL", "INFO", false,
        "`ERROR`, `WARN`, `INFO`, `DEBUG`, `TRACE`, or a filter such as `info,media3watch=debug`.";
    LOG_FORMAT = "LOG_FORMAT", "text on a terminal, else json", false,
        "`text` or `json`.";
    ENABLE_METRICS = "ENABLE_METRICS", "true", false,
        "Whether `/metrics` is answered.";
    METRICS_ADDR = "METRICS_ADDR", "none", false,
        "A listener of its own for `/metrics`, for example `127.0.0.1:9090`; the main one then answers 404 there.";
    MAX_BODY_BYTES = "MAX_BODY_BYTES", "1048576", false,
        "Largest report in bytes, before and after decompression.";
    DATA_DIR = "M3W_DATA_DIR", "the platform's data directory", false,
        "Where the built-in PostgreSQL keeps its binaries and data.";
}
