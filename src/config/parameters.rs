//! What the parameters of a database URL mean: as libpq, or JDBC's driver, means them. One that
//! changes where or how data is kept is honoured or refused, never ignored.

use super::database::DatabaseUrl;

/// Parameters that say where the database is, how to log in, and how TLS is spoken.
const CONNECTION: [&str; 15] = [
    "ApplicationName",
    "application_name",
    "dbname",
    "host",
    "password",
    "port",
    "ssl",
    "sslcert",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
    "fallback_application_name",
];

/// Tuning of other clients' connections. This server has limits of its own for all of it.
const TUNING: [&str; 28] = [
    "assumeMinServerVersion",
    "binaryTransfer",
    "cancelSignalTimeout",
    "client_encoding",
    "connectTimeout",
    "connect_timeout",
    "connection_limit",
    "defaultRowFetchSize",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "logUnclosedConnections",
    "loginTimeout",
    "pool_timeout",
    "preparedStatementCacheQueries",
    "preparedStatementCacheSizeMiB",
    "reWriteBatchedInserts",
    "socketTimeout",
    "sslcompression",
    "sslsni",
    "statement_cache_size",
    "stringtype",
    "tcpKeepAlive",
    "tcp_user_timeout",
];

/// Parameters of which some values ask for nothing that is not done anyway, and what to do about
/// all others.
const HARMLESS: [(&str, &[&str], &str); 5] = [
    (
        "channel_binding",
        &["disable", "prefer"],
        "channel_binding=prefer: channel binding is not supported, sslmode=verify-full proves the \
         server's identity",
    ),
    ("gssencmode", &["disable", "prefer", "allow"], "gssencmode=disable: GSSAPI is not supported"),
    ("readOnly", &["false"], "readOnly=false: this server writes"),
    (
        "targetServerType",
        &["any", "primary", "master", "preferSecondary", "preferPrimary"],
        "targetServerType=primary: this server writes",
    ),
    (
        "target_session_attrs",
        &["any", "read-write", "primary", "prefer-standby"],
        "target_session_attrs=read-write: this server writes",
    ),
];

impl DatabaseUrl {
    /// Checks that each parameter is known and has a value that can be honoured.
    pub(super) fn check_parameters(&self) -> Result<(), String> {
        for (name, value) in self.parameters() {
            let name = name.as_ref();
            if CONNECTION.contains(&name) || TUNING.contains(&name) {
                continue;
            }
            if let Some((_, harmless, instead)) = HARMLESS.iter().find(|(known, ..)| *known == name)
            {
                if harmless.contains(&value.as_ref()) {
                    continue;
                }
                return Err((*instead).to_owned());
            }
            match name {
                "currentSchema" | "search_path" | "schema" | "options" | "pgbouncer"
                | "prepare" | "prepareThreshold" => {}
                "hostaddr" => return Err("host instead of hostaddr".to_owned()),
                "passfile" | "service" | "servicefile" => {
                    return Err(format!(
                        "no {name}: name host and user here, and a file with the password in \
                         DATABASE_PASSWORD_FILE"
                    ));
                }
                _ => {
                    // It may be the tail of a password with an unescaped &, which has no value.
                    let is_word = |c: char| c.is_ascii_alphabetic() || c == '_';
                    let is_shown = !value.is_empty() && name.chars().all(is_word);
                    let name = if is_shown { name } else { "of that name" };
                    return Err(format!(
                        "no parameter {name}, which is not supported; docs/configuration.md lists \
                         those that are"
                    ));
                }
            }
        }
        self.settings()?;
        self.is_pooled().map(drop)
    }

    /// Server settings that the URL asks for: those of `options`, and the schema.
    pub(super) fn settings(&self) -> Result<Vec<(String, String)>, String> {
        let mut settings = match self.parameter("options") {
            Some(options) => of_options(&options)?,
            None => Vec::new(),
        };
        for name in ["schema", "currentSchema", "search_path"] {
            if let Some(schema) = self.parameter(name) {
                settings.push(("search_path".to_owned(), schema));
            }
        }
        Ok(settings)
    }

    /// Whether the URL says that a pooler gives each transaction another server connection, in
    /// the words of several clients.
    pub(super) fn is_pooled(&self) -> Result<Option<bool>, String> {
        let flag = |name: &str| match self.parameter(name).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(format!("{name} to be true or false")),
        };
        let (pgbouncer, prepare) = (flag("pgbouncer")?, flag("prepare")?);
        let never = self.parameter("prepareThreshold").as_deref() == Some("0");
        Ok(pgbouncer.or(prepare.map(|prepare| !prepare)).or(never.then_some(true)))
    }
}

/// The settings in `options`, which libpq takes as command-line arguments of a server process:
/// `-c name=value` and `--name=value`, separated by spaces; a backslash takes the next character
/// as it is.
fn of_options(options: &str) -> Result<Vec<(String, String)>, String> {
    let mut arguments = vec![String::new()];
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        let last = arguments.last_mut().expect("never empty");
        match character {
            '\\' => last.extend(characters.next()),
            _ if character.is_whitespace() => arguments.push(String::new()),
            _ => last.push(character),
        }
    }
    arguments.retain(|argument| !argument.is_empty());
    let mut arguments = arguments.into_iter();
    let mut settings = Vec::new();
    while let Some(argument) = arguments.next() {
        let attached = argument.strip_prefix("--").or_else(|| argument.strip_prefix("-c"));
        let setting = match attached {
            Some("") => arguments.next().unwrap_or_default(),
            attached => attached.unwrap_or_default().to_owned(),
        };
        let is_name = |name: &str| {
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
        };
        match setting.split_once('=') {
            Some((name, value)) if is_name(name) => {
                settings.push((name.replace('-', "_"), value.to_owned()));
            }
            _ => return Err("options of the form -c name=value".to_owned()),
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(query: &str) -> Result<Vec<(String, String)>, String> {
        DatabaseUrl::parse(&format!("postgresql://h/d?{query}"))?.settings()
    }

    fn list(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn settings_are_read_as_libpq_reads_them() {
        for schema in [
            "options=-c%20search_path%3Dqoe",
            "options=-csearch_path%3Dqoe",
            "options=--search_path%3Dqoe",
            "options=--search-path%3Dqoe",
            "search_path=qoe",
            "currentSchema=qoe",
            "schema=qoe",
        ] {
            assert_eq!(settings(schema), Ok(list(&[("search_path", "qoe")])), "{schema}");
        }
        assert_eq!(
            settings("options=-c%20a.b%3D1%5C%202%20%20-c%20c%3D%27x%3Dy%27"),
            Ok(list(&[("a.b", "1 2"), ("c", "'x=y'")]))
        );
        for wrong in ["-e", "-c", "-c x", "search_path=qoe", "-c =1", "-c a;b=1"] {
            let encoded: String = url::form_urlencoded::byte_serialize(wrong.as_bytes()).collect();
            assert!(settings(&format!("options={encoded}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pooler_is_named_in_several_ways() {
        let pooled =
            |query: &str| DatabaseUrl::parse(&format!("postgresql://h/d?{query}"))?.is_pooled();
        for yes in ["pgbouncer=true", "prepare=false", "prepareThreshold=0"] {
            assert_eq!(pooled(yes), Ok(Some(true)), "{yes}");
        }
        for no in ["pgbouncer=false", "prepare=true"] {
            assert_eq!(pooled(no), Ok(Some(false)), "{no}");
        }
        assert_eq!(pooled("sslmode=disable"), Ok(None));
        assert!(pooled("pgbouncer=maybe").is_err());
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (query, said) in [
            ("target_session_attrs=standby", "target_session_attrs=read-write"),
            ("channel_binding=require", "channel_binding=prefer"),
            ("hostaddr=10.0.0.1", "hostaddr"),
            ("service=x", "service"),
            ("serch_path=qoe", "serch_path"),
            ("readOnly=true", "readOnly=false"),
        ] {
            let refused =
                DatabaseUrl::parse(&format!("postgresql://h/d?{query}")).expect_err(query);
            assert!(refused.contains(said), "{refused}");
        }
        for fine in [
            "connect_timeout=10&keepalives=1",
            "target_session_attrs=read-write",
            "gssencmode=disable",
        ] {
            DatabaseUrl::parse(&format!("postgresql://h/d?{fine}")).expect(fine);
        }
    }
}
