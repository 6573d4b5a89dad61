//! The data sources, as provisioning YAML.

use secrecy::{ExposeSecret as _, SecretString};

use super::{File, MARK, Options, literal};

/// Uid of the PostgreSQL data source: frozen, since a Grafana that knows it by another one
/// would not start.
pub(super) const DATABASE_UID: &str = "media3watch-db";
/// Type of the PostgreSQL data source.
pub(super) const DATABASE_TYPE: &str = "grafana-postgresql-datasource";
/// Uid of the Prometheus data source.
pub(super) const PROMETHEUS_UID: &str = "media3watch-prometheus";

/// How Grafana reaches the database.
#[derive(Debug, Clone)]
pub struct Database {
    /// `host:port`, or the directory of a socket.
    pub address: String,
    /// Role to log in as.
    pub user: String,
    /// Its password; `None` leaves it to Grafana's environment, in `GRAFANA_DB_PASSWORD`.
    pub password: Option<SecretString>,
    /// Name of the database.
    pub name: String,
    /// Whether and how TLS is spoken.
    pub tls: Tls,
    /// Whether it becomes the data source that Grafana suggests. A Grafana with two of these
    /// does not start, so that only the one of `compose.yaml` is.
    pub is_default: bool,
}

/// TLS to the database, as Grafana's plugin knows it.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// `disable`, `require`, `verify-ca` or `verify-full`.
    pub mode: &'static str,
    /// Files on Grafana's machine: root certificate, client certificate, its key.
    pub root_certificate: Option<String>,
    /// Certificate that Grafana shows.
    pub certificate: Option<String>,
    /// Its key.
    pub key: Option<String>,
}

impl Database {
    /// The database of `compose.yaml`.
    #[must_use]
    pub fn compose() -> Self {
        Self {
            address: "postgres:5432".to_owned(),
            user: "grafana".to_owned(),
            password: None,
            name: "media3watch".to_owned(),
            tls: Tls { mode: "disable", ..Tls::default() },
            is_default: true,
        }
    }
}

impl Tls {
    /// Lines of `jsonData` for certificates in files.
    fn files(&self) -> String {
        let files = [
            ("sslRootCertFile", &self.root_certificate),
            ("sslCertFile", &self.certificate),
            ("sslKeyFile", &self.key),
        ];
        let lines = files.iter().filter_map(|(name, file)| {
            Some(format!("      {name}: {}\n", literal(file.as_deref()?)))
        });
        let lines: String = lines.collect();
        if lines.is_empty() {
            return lines;
        }
        format!("      tlsConfigurationMethod: file-path\n{lines}")
    }
}

pub(super) fn file(options: &Options) -> File {
    let Database { address, user, password, name, tls, is_default } = &options.database;
    let password_line = match password {
        Some(password) => literal(password.expose_secret()),
        None => "$GRAFANA_DB_PASSWORD".to_owned(),
    };
    let mut text = format!(
        "{MARK}
apiVersion: 1
datasources:
  - name: Media3Watch DB
    uid: {DATABASE_UID}
    type: {DATABASE_TYPE}
    access: proxy
    url: {}
    user: {}
    isDefault: {is_default}
    editable: false
    secureJsonData:
      password: {password_line}
    jsonData:
      database: {}
      sslmode: {}
{}      # Only steers the query builder.
      postgresVersion: 1600
      # Each panel takes a connection; the role has a limit too.
      maxOpenConns: 10
      maxIdleConns: 10
      connMaxLifetime: 14400
      timeInterval: 1m
",
        literal(address),
        literal(user),
        literal(name),
        tls.mode,
        tls.files(),
    );
    if let Some(url) = &options.prometheus {
        text += &format!(
            "  - name: Media3Watch Prometheus
    uid: {PROMETHEUS_UID}
    type: prometheus
    access: proxy
    url: {}
    isDefault: false
    editable: false
    jsonData:
      httpMethod: POST
      timeInterval: 15s
",
            literal(url)
        );
    }
    let is_secret = password.is_some();
    File { is_secret, ..File::new("provisioning/datasources/media3watch.yaml", text) }
}
