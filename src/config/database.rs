//! The database URL: as Postgres and as JDBC write it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::store::Target;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

const EXPECTED: &str = "postgresql://user:password@host:port/database?sslmode=…, \
                        or the same with jdbc: before it";

const DEFAULT_PORT: u16 = 5432;

/// `sslrootcert` for the authorities that the system trusts.
const SYSTEM: &str = native_tls::SYSTEM;

/// Where the database is and how to log in.
#[derive(Clone)]
pub struct DatabaseUrl {
    url: Url,
    /// Where libpq's default certificates are.
    certificates: Option<PathBuf>,
    user: Option<String>,
    password: Option<String>,
}

impl DatabaseUrl {
    /// Reads a URL in either notation.
    ///
    /// # Errors
    /// What is allowed; nothing of the URL, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = text.strip_prefix("jdbc:").unwrap_or(text);
        // JDBC's short form without a host means the local one.
        let long = match plain.strip_prefix("postgresql:") {
            Some(rest) if !rest.starts_with("//") => {
                format!("postgresql://localhost/{}", rest.trim_start_matches('/'))
            }
            _ => plain.to_owned(),
        };
        let url = Url::parse(&long).map_err(|error| match error {
            url::ParseError::InvalidPort if long.contains(',') => {
                "one host: several are not supported".to_owned()
            }
            error => format!("{EXPECTED} ({error})"),
        })?;
        if !matches!(url.scheme(), "postgresql" | "postgres") {
            return Err(EXPECTED.to_owned());
        }
        if url.host_str().is_some_and(|host| host.contains(',') || host.contains("%2C")) {
            return Err("one host: several are not supported".to_owned());
        }
        let parsed = Self { url, certificates: None, user: None, password: None };
        parsed.ssl_mode()?;
        parsed.check_parameters()?;
        parsed.port()?;
        Self::decoded(parsed.url.username())?;
        Self::decoded(parsed.url.password().unwrap_or_default())?;
        Ok(parsed)
    }

    /// With user and password that win over those in the URL.
    #[must_use]
    pub fn with_login(mut self, user: Option<String>, password: Option<String>) -> Self {
        self.user = user;
        self.password = password;
        self
    }

    /// With the certificates that libpq finds in a home directory, if the URL names no others.
    #[must_use]
    pub fn with_home(mut self, home: Option<&Path>) -> Self {
        self.certificates = home.map(|home| home.join(".postgresql"));
        self
    }

    /// Reads the files of certificates and keys that a connection will need.
    ///
    /// # Errors
    /// The parameter that is wrong, its path, and what is allowed.
    pub fn check_files(&self) -> Result<(), String> {
        let mode = self.options().get_ssl_mode();
        if matches!(mode, PgSslMode::Disable) {
            return Ok(());
        }
        let is_verified = matches!(mode, PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        for unsupported in ["sslcrl", "sslcrldir"] {
            if is_verified && self.parameter(unsupported).is_some() {
                return Err(format!("no {unsupported}: revocation lists are not supported"));
            }
        }
        match self.root_certificate().as_deref() {
            Some(SYSTEM) if !matches!(mode, PgSslMode::VerifyFull) => {
                return Err("sslmode=verify-full with sslrootcert=system".to_owned());
            }
            None if is_verified => {
                let name = ssl_mode_name(mode);
                return Err(format!(
                    "sslrootcert with sslmode={name}: a file of certificates in PEM, or system"
                ));
            }
            Some(SYSTEM) | None => {}
            Some(path) => check_certificate("sslrootcert", path)?,
        }
        match (self.client_file("sslcert"), self.client_file("sslkey")) {
            (Some(certificate), Some(key)) => {
                check_certificate("sslcert", &certificate)?;
                read("sslkey", &key).map(drop)
            }
            (Some(_), None) => Err("sslkey with sslcert: the file of its key in PEM".to_owned()),
            (None, _) => Ok(()),
        }
    }

    fn root_certificate(&self) -> Option<String> {
        self.parameter("sslrootcert").or_else(|| self.default_file("root.crt"))
    }

    /// The file of `sslcert` or `sslkey`.
    fn client_file(&self, parameter: &str) -> Option<String> {
        let default = if parameter == "sslcert" { "postgresql.crt" } else { "postgresql.key" };
        self.parameter(parameter).or_else(|| self.default_file(default))
    }

    fn default_file(&self, name: &str) -> Option<String> {
        let path = self.certificates.as_ref()?.join(name);
        path.is_file().then(|| path.display().to_string())
    }

    /// The user, wherever it comes from.
    #[must_use]
    pub fn user(&self) -> Option<String> {
        let from_url = || Self::decoded(self.url.username()).ok().filter(|user| !user.is_empty());
        self.user.clone().or_else(|| self.parameter("user")).or_else(from_url)
    }

    /// Whether there is a password, wherever it comes from.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.password().is_some()
    }

    /// The password, wherever it comes from.
    pub(crate) fn password(&self) -> Option<String> {
        let from_url = || self.url.password().and_then(|password| Self::decoded(password).ok());
        self.password.clone().or_else(|| self.parameter("password")).or_else(from_url)
    }

    /// What sqlx connects with.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        let mut options = PgConnectOptions::new_without_pgpass()
            .port(self.port().unwrap_or(DEFAULT_PORT))
            // Poolers refuse a start-up parameter that they do not know.
            .extra_float_digits(None)
            .application_name("media3watch")
            .disable_statement_logging();
        let host = self.url.host_str().filter(|host| !host.is_empty());
        // Parameters win, as for libpq.
        let host = self.parameter("host").or_else(|| host.map(str::to_owned));
        options = match host {
            Some(path) if path.starts_with('/') => options.socket(path),
            Some(host) => options.host(host.trim_start_matches('[').trim_end_matches(']')),
            None => options.host("localhost"),
        };
        if let Some(user) = self.user() {
            options = options.username(&user);
        }
        if let Some(password) = self.password() {
            options = options.password(&password);
        }
        let database = Self::decoded(self.url.path().trim_start_matches('/')).unwrap_or_default();
        let database = Some(database).filter(|name| !name.is_empty());
        if let Some(database) = self.parameter("dbname").or(database) {
            options = options.database(&database);
        }
        let root = self.root_certificate();
        let mode = self.effective_ssl_mode(options.get_socket().is_some(), root.as_deref());
        options = options.ssl_mode(mode);
        options = match root {
            Some(root) if root == SYSTEM => options.ssl_root_cert_from_pem(root.into_bytes()),
            Some(root) => options.ssl_root_cert(root),
            None => options,
        };
        let client = (self.client_file("sslcert"), self.client_file("sslkey"));
        if let (Some(certificate), Some(key)) = client {
            options = options.ssl_client_cert(certificate).ssl_client_key(key);
        }
        for name in ["application_name", "ApplicationName"] {
            if let Some(name) = self.parameter(name) {
                options = options.application_name(&name);
            }
        }
        options
    }

    /// What a store connects to.
    #[must_use]
    pub fn target(&self) -> Target {
        Target {
            options: self.options(),
            // Checked when the URL was parsed.
            settings: self.settings().unwrap_or_default(),
            is_pooled: self.is_pooled().unwrap_or_default(),
        }
    }

    fn port(&self) -> Result<u16, String> {
        match self.parameter("port") {
            Some(port) => port.parse().map_err(|_| "port to be a number".to_owned()),
            None => Ok(self.url.port().unwrap_or(DEFAULT_PORT)),
        }
    }

    /// What libpq makes of `sslmode`.
    fn effective_ssl_mode(&self, is_socket: bool, root: Option<&str>) -> PgSslMode {
        if is_socket {
            return PgSslMode::Disable;
        }
        match (self.ssl_mode().ok().flatten(), root) {
            (None, Some(SYSTEM)) => PgSslMode::VerifyFull,
            (Some(PgSslMode::Require), Some(_)) => PgSslMode::VerifyCa,
            (mode, _) => mode.unwrap_or(PgSslMode::Prefer),
        }
    }

    /// What is asked for, where something is.
    pub(crate) fn ssl_mode(&self) -> Result<Option<PgSslMode>, String> {
        if let Some(mode) = self.parameter("sslmode") {
            let parsed = PgSslMode::from_str(&mode);
            return parsed.map(Some).map_err(|_| {
                "sslmode to be disable, allow, prefer, require, verify-ca or verify-full".to_owned()
            });
        }
        // As the JDBC driver does.
        let is_on = self.parameter("ssl").is_some_and(|ssl| ssl.is_empty() || ssl == "true");
        Ok(is_on.then_some(PgSslMode::VerifyFull))
    }

    /// What follows the question mark under a name; the last one counts.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let given = self.parameters().filter(|(key, _)| key == name);
        given.last().map(|(_, value)| value.into_owned())
    }

    /// Everything that follows the question mark.
    pub(super) fn parameters(&self) -> url::form_urlencoded::Parse<'_> {
        self.url.query_pairs()
    }

    fn decoded(part: &str) -> Result<String, String> {
        // Decoding by way of a query keeps us from a crate of its own; a plus is a plus here.
        let query = format!("x={}", part.replace('+', "%2B").replace('&', "%26"));
        let decoded = url::form_urlencoded::parse(query.as_bytes()).next();
        let decoded = decoded.map(|(_, value)| value.into_owned()).unwrap_or_default();
        if decoded.contains('\u{fffd}') { Err(EXPECTED.to_owned()) } else { Ok(decoded) }
    }
}

fn check_certificate(parameter: &str, path: &str) -> Result<(), String> {
    let text = read(parameter, path)?;
    match CertificateDer::from_pem_slice(&text) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{parameter}={path} to be a file of certificates in PEM")),
    }
}

fn read(parameter: &str, path: &str) -> Result<Vec<u8>, String> {
    let expected = |error| format!("{parameter}={path} to be a file that can be read ({error})");
    std::fs::read(path).map_err(expected)
}

/// Without the password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = self.options();
        let user = self.user().unwrap_or_default();
        write!(f, "postgresql://{user}@{}:{}", options.get_host(), options.get_port())?;
        write!(f, "/{}", options.get_database().unwrap_or_default())?;
        match self.ssl_mode() {
            Ok(Some(mode)) => write!(f, "?sslmode={}", ssl_mode_name(mode)),
            _ => Ok(()),
        }
    }
}

pub(crate) const fn ssl_mode_name(mode: PgSslMode) -> &'static str {
    match mode {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        DatabaseUrl::parse(text).expect(text).to_string()
    }

    #[test]
    fn both_notations_say_the_same() {
        for text in [
            "postgresql://m3w:pw@db:5433/media3watch?sslmode=require",
            "postgres://m3w:pw@db:5433/media3watch?sslmode=require",
            "jdbc:postgresql://db:5433/media3watch?user=m3w&password=pw&sslmode=require",
        ] {
            assert_eq!(shown(text), "postgresql://m3w@db:5433/media3watch?sslmode=require");
        }
        assert_eq!(
            shown("jdbc:postgresql:media3watch?user=m3w"),
            "postgresql://m3w@localhost:5432/media3watch"
        );
        assert!(shown("jdbc:postgresql://db/x?user=u&ssl=true").ends_with("verify-full"));
        assert_eq!(shown("postgresql:///x?host=db&user=u"), "postgresql://u@db:5432/x");
    }

    #[test]
    fn passwords_may_hold_anything_and_never_show() {
        let url = DatabaseUrl::parse("postgresql://u:p%40%2F%2B+%26w@h/d").expect("valid");
        assert_eq!(
            DatabaseUrl::decoded(url.url.password().expect("given")).expect("text"),
            "p@/++&w"
        );
        assert!(!format!("{url} {url:?}").contains("p%40"));
    }

    #[test]
    fn separate_login_wins() {
        let url = DatabaseUrl::parse("postgresql://u:p@h/d").expect("valid");
        let url = url.with_login(Some("other".to_owned()), None);
        assert_eq!(url.to_string(), "postgresql://other@h:5432/d");
    }

    #[test]
    fn nonsense_is_refused_without_being_quoted() {
        for text in [
            "secret",
            "mysql://h/d",
            "postgresql://h:port/d",
            "postgresql://a:1,b:2/d",
            "postgresql://h/d?sslmode=maybe",
        ] {
            let refused = DatabaseUrl::parse(text).expect_err(text);
            assert!(!refused.contains("secret") && !refused.is_empty());
        }
    }
}
