//! What went wrong with the database, classified once, from SQLSTATE.

use std::fmt;

/// What PgBouncer says of a connection that it will never make.
const POOLER_REFUSES: [&str; 5] = [
    "unsupported startup parameter",
    "no such database",
    "no such user",
    "password authentication failed",
    "statement pooling mode",
];

/// What functions.sql raises where own fields have other columns than the server thought.
pub(super) const OTHER_ASSIGNMENT: &str = "M3W01";

/// A database error by what to do about it.
///
/// `Display` says what happened without the values that were involved: Postgres puts those
/// into the detail and, for bad input, into the message.
#[derive(Debug)]
pub enum Error {
    /// Deadlock, lock or statement timeout, a partition that is not there yet: try again.
    Transient(Cause),
    /// The rows cannot be stored as they are: trying again does not help.
    Data(Cause),
    /// No usable connection: Postgres is away, full, shutting down or frozen.
    Unavailable(Cause),
    /// Schema, permissions or our SQL are wrong: an operator or a developer must look.
    Bug(Cause),
}

/// SQLSTATE where there is one, and a sentence for the log.
#[derive(Debug, Clone)]
pub struct Cause {
    /// Five characters, for example `40P01`.
    pub sqlstate: Option<String>,
    /// One line.
    pub message: String,
    /// Whether what was set is wrong, so that waiting mends nothing.
    is_permanent: bool,
}

impl Cause {
    const fn passing(message: String) -> Self {
        Self { sqlstate: None, message, is_permanent: false }
    }

    /// Whether Postgres had no better code for it.
    pub(super) fn is_internal(&self) -> bool {
        self.sqlstate.as_deref() == Some("XX000")
    }
}

impl Error {
    /// True where the same call may succeed later.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Transient(_) | Self::Unavailable(_))
    }

    /// A call that did not end in time.
    pub(super) fn timed_out(what: &str) -> Self {
        Self::Unavailable(Cause::passing(format!("{what} timed out")))
    }

    /// A setting that Postgres refuses: it is named, and no row is to blame.
    pub(super) fn of_setting(error: sqlx::Error) -> Self {
        match error.as_database_error() {
            Some(db) if db.code().is_some_and(|code| code.starts_with("22")) => Self::Bug(Cause {
                sqlstate: db.code().map(Into::into),
                message: one_line(db.message()),
                is_permanent: true,
            }),
            _ => error.into(),
        }
    }

    /// A condition that a second try sees differently.
    pub(super) fn transient(message: &str) -> Self {
        Self::Transient(Cause::passing(message.to_owned()))
    }

    /// Whether one row of many may be the reason, so that the others can be saved.
    #[must_use]
    pub fn may_be_one_row(&self) -> bool {
        match self {
            Self::Data(_) => true,
            // 42: the statement itself is wrong, for every row.
            Self::Bug(cause) => {
                cause.sqlstate.as_deref().is_some_and(|code| !code.starts_with("42"))
            }
            Self::Transient(_) | Self::Unavailable(_) => false,
        }
    }

    /// Own fields have other columns than this server thought.
    pub(super) fn other_assignment() -> Self {
        Self::Transient(Cause {
            sqlstate: Some(OTHER_ASSIGNMENT.to_owned()),
            message: "own dimensions were assigned anew".to_owned(),
            is_permanent: false,
        })
    }

    pub(super) fn is_other_assignment(&self) -> bool {
        self.cause().sqlstate.as_deref() == Some(OTHER_ASSIGNMENT)
    }

    /// Whether a view cannot be replaced because a column would go or change.
    pub(super) fn is_of_view_columns(&self) -> bool {
        self.cause().sqlstate.as_deref() == Some("42P16")
    }

    /// Whether somebody else holds a lock that was waited for, or not waited for.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        self.cause().sqlstate.as_deref() == Some("55P03")
    }

    /// Whether the target partition of an insert does not exist.
    pub(crate) fn is_missing_partition(&self) -> bool {
        matches!(self, Self::Transient(cause) if cause.sqlstate.as_deref() == Some("23514"))
    }

    /// Whether a table that a statement names does not exist.
    pub(super) fn is_missing_table(&self) -> bool {
        self.cause().sqlstate.as_deref() == Some("42P01")
    }

    /// Whether a function or a type that a statement names does not exist.
    pub(super) fn is_missing_function(&self) -> bool {
        let cause = self.cause();
        matches!(cause.sqlstate.as_deref(), Some("42883" | "42704"))
            // What a statement meets that was prepared before.
            || cause.is_internal() && cause.message.starts_with("cache lookup failed for")
    }

    /// Whether it is what statements for one Postgres end with once tables are distributed:
    /// they are not supported there, or fail on a node.
    pub(super) fn may_be_of_shards(&self) -> bool {
        let code = self.cause().sqlstate.as_deref();
        matches!(self, Self::Bug(_)) && matches!(code, Some("0A000" | "XX000"))
    }

    /// Whether a prepared statement is gone, or another client's: a pooler gives each transaction
    /// another connection.
    pub(super) fn is_of_pooler(&self) -> bool {
        matches!(self.cause().sqlstate.as_deref(), Some("42P05" | "26000"))
    }

    /// Whether waiting does not help: a wrong login or database, a certificate, a parameter. An
    /// operator may mend it while the server runs.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.cause().is_permanent
    }

    /// Whether a pooler gives each statement another connection, so that nothing can be one
    /// transaction.
    pub(super) fn is_statement_pooling(&self) -> bool {
        self.cause().message.contains("statement pooling mode")
    }

    /// Whether the role lacks a right, or the schema to make tables in is not there.
    pub(super) fn is_missing_right(&self) -> bool {
        matches!(self.cause().sqlstate.as_deref(), Some("42501" | "3F000"))
    }

    pub(super) const fn cause(&self) -> &Cause {
        match self {
            Self::Transient(cause)
            | Self::Data(cause)
            | Self::Unavailable(cause)
            | Self::Bug(cause) => cause,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let Some(db) = error.as_database_error() else {
            // The driver looks types up by itself; what Postgres would say of one that is not there.
            let is_missing_type = matches!(error, sqlx::Error::TypeNotFound { .. });
            let sqlstate = is_missing_type.then(|| "42704".to_owned());
            // A handshake that fails for what was set or sent; one that was cut off is an Io error.
            let is_permanent = matches!(error, sqlx::Error::Tls(_));
            let cause = Cause { sqlstate, message: one_line(&error.to_string()), is_permanent };
            return match error {
                sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::ColumnNotFound(_)
                | sqlx::Error::Decode(_)
                | sqlx::Error::Encode(_)
                | sqlx::Error::TypeNotFound { .. }
                | sqlx::Error::RowNotFound
                | sqlx::Error::Configuration(_) => Self::Bug(cause),
                _ => Self::Unavailable(cause),
            };
        };
        let code = db.code().unwrap_or_default().into_owned();
        // A row without a partition is a check violation too, of no constraint with a name.
        let missing_partition = code == "23514" && db.constraint().is_none();
        let is_data = !missing_partition
            && ["21", "22", "23", "54"].iter().any(|class| code.starts_with(class));
        // Messages on bad input quote it.
        let message =
            if is_data { "the row was refused".to_owned() } else { one_line(db.message()) };
        // 08P01: PgBouncer's code for everything, of which it says in words what will stay so.
        let is_permanent = match code.as_str() {
            "3D000" => true,
            "08P01" => POOLER_REFUSES.iter().any(|text| message.contains(text)),
            code => code.starts_with("28"),
        };
        let cause = Cause { sqlstate: Some(code.clone()), message, is_permanent };
        if is_data {
            return Self::Data(cause);
        }
        match code.as_str() {
            // 42P05, 26000: a pooler gave the transaction another connection.
            "23514" | "40001" | "40P01" | "55P03" | "55006" | "57014" | "42P05" | "26000"
            | OTHER_ASSIGNMENT => Self::Transient(cause),
            // Read-only: a standby that has not been promoted yet. 3D000, 28*: no such database
            // or login, which an operator may be about to mend.
            "25006" | "25P03" | "25P04" | "3D000" | "XX001" | "XX002" => Self::Unavailable(cause),
            _ => match code.get(..2) {
                Some("08" | "28" | "53" | "57" | "58") => Self::Unavailable(cause),
                _ => Self::Bug(cause),
            },
        }
    }
}

fn one_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().chars().take(200).collect()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = self.cause();
        match &cause.sqlstate {
            Some(code) => write!(f, "{} (SQLSTATE {code})", cause.message),
            None => f.write_str(&cause.message),
        }
    }
}

impl std::error::Error for Error {}
