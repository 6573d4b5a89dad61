//! What every connection is set to, and how a transaction begins and ends.
//!
//! Behind a pooler that gives each transaction another server connection, nothing may outlive a
//! transaction: settings would reach other clients, and a prepared statement is not there any
//! more, or is another client's. There, everything runs in transactions that set what they need
//! and leave nothing behind.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

/// The timeouts keep a statement that nobody waits for any more from holding locks. That for locks
/// is short: a batch that meets a session which somebody else has locked leaves it out, so that the
/// others do not wait.
const OWN: [(&str, &str); 5] = [
    ("TimeZone", "UTC"),
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", "6s"),
    ("lock_timeout", "250ms"),
    ("idle_in_transaction_session_timeout", "15s"),
];

/// How to reach the database, and what its URL says about connections.
#[derive(Clone)]
pub struct Target {
    /// Host, login and TLS.
    pub options: PgConnectOptions,
    /// Server settings that the URL asks for, such as `search_path`. Ours win over them.
    pub settings: Vec<(String, String)>,
    /// Whether a pooler is in between that gives each transaction another server connection;
    /// `None` finds out.
    pub is_pooled: Option<bool>,
}

impl Target {
    /// Statements that set what the URL asks for, in a transaction.
    pub(super) fn asked_for(&self) -> String {
        let settings = self.settings.iter().map(|(name, value)| (&**name, &**value));
        set_configs(settings, true)
    }
}

impl From<PgConnectOptions> for Target {
    fn from(options: PgConnectOptions) -> Self {
        Self { options, settings: Vec::new(), is_pooled: None }
    }
}

/// The settings of a store's connections.
pub(super) struct Settings {
    asked_for: Vec<(String, String)>,
    is_pooled: AtomicBool,
    /// Cancelled once it is known whether there is a pooler: before that, a connection must not be
    /// set to anything.
    decided: CancellationToken,
}

impl Settings {
    pub(super) fn of(target: &Target) -> Self {
        let is_pooled = AtomicBool::new(target.is_pooled.unwrap_or(false));
        let settings = Self {
            asked_for: target.settings.clone(),
            is_pooled,
            decided: CancellationToken::new(),
        };
        if target.is_pooled.is_some() {
            settings.decide();
        }
        settings
    }

    /// It is known now whether there is a pooler.
    pub(super) fn decide(&self) {
        self.decided.cancel();
    }

    pub(super) fn is_decided(&self) -> bool {
        self.decided.is_cancelled()
    }

    /// Returns when it is known whether there is a pooler.
    pub(super) async fn decided(&self) {
        self.decided.cancelled().await;
    }

    /// Whether each transaction may have another server connection.
    pub(super) fn is_pooled(&self) -> bool {
        self.is_pooled.load(Ordering::Relaxed)
    }

    pub(super) fn set_pooled(&self) {
        self.is_pooled.store(true, Ordering::Relaxed);
    }

    /// What a connection of its own is set to once; nothing behind a pooler.
    pub(super) fn of_session(&self) -> String {
        if self.is_pooled() { String::new() } else { self.statements(false) }
    }

    /// Begins a transaction that `how`, further statements, is a part of.
    pub(super) fn begin(&self, how: &str) -> String {
        const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
        if !self.is_pooled() {
            return format!("{BEGIN}; {how}");
        }
        // The driver names its statements alike on all connections.
        format!("{BEGIN}; DEALLOCATE ALL; {} {how}", self.statements(true))
    }

    pub(super) fn commit(&self) -> &'static str {
        if self.is_pooled() { "DEALLOCATE ALL; COMMIT" } else { "COMMIT" }
    }

    /// Ends a transaction that may have failed.
    pub(super) fn rollback(&self) -> &'static str {
        if self.is_pooled() { "ROLLBACK; DEALLOCATE ALL" } else { "ROLLBACK" }
    }

    fn statements(&self, local: bool) -> String {
        let asked_for = self.asked_for.iter().map(|(name, value)| (&**name, &**value));
        let mut sql = set_configs(asked_for.chain(OWN), local);
        // A 200 promises a durable commit, whatever the defaults of server, database and role are.
        // Set also where they are good: what is set here, a later change of them does not reach.
        sql.push_str(&format!(
            "SELECT set_config('synchronous_commit',
                 CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply'
                 ELSE 'on' END, {local});"
        ));
        sql
    }
}

fn set_configs<'a>(settings: impl Iterator<Item = (&'a str, &'a str)>, local: bool) -> String {
    let set = |(name, value)| {
        format!("SELECT set_config({}, {}, {local});", literal(name), literal(value))
    };
    settings.map(set).collect()
}

/// A text as an SQL literal, whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
