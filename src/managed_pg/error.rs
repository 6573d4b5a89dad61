use std::io;
use std::path::{Path, PathBuf};

/// Why the built-in PostgreSQL cannot be had. Each text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Something else stands where a file or directory of ours belongs.
    #[error(
        "{} is a link, or no file of this program's, and is not followed, so that nothing else is overwritten; move it away",
        path.display()
    )]
    NotOurs {
        /// What stands there.
        path: PathBuf,
    },
    /// Another instance of this program uses the data directory.
    #[error(
        "the data directory {} is in use by {}; stop that one, or give this one a directory of its own in M3W_DATA_DIR",
        data_dir.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The directory both want.
        data_dir: PathBuf,
        /// Who has it, if the lock file names a process that runs.
        pid: Option<i32>,
    },
    /// The archive could not be fetched.
    #[error(
        "cannot download PostgreSQL from {url}: {reason}; check the network (HTTPS_PROXY is honoured), or set DATABASE_URL to a PostgreSQL of your own, or install PostgreSQL 15 or newer on this machine"
    )]
    Download {
        /// What was asked for.
        url: String,
        /// The causes, outermost first.
        reason: String,
    },
    /// What came is not what was pinned.
    #[error(
        "refused the download from {url}: its SHA-256 is {found}, expected {expected}; something on the way has changed it. Try again, or set DATABASE_URL to a PostgreSQL of your own, or install PostgreSQL 15 or newer on this machine"
    )]
    Checksum {
        /// Where it came from.
        url: String,
        /// The pinned digest, in hex.
        expected: &'static str,
        /// The digest of what came, in hex.
        found: String,
    },
    /// The archive is the pinned one and still cannot be unpacked.
    #[error("cannot unpack {}: {reason}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What the unpacker said.
        reason: String,
    },
    /// There are no binaries to download for this machine.
    #[error(
        "there is no built-in PostgreSQL for {os} on {arch}; set DATABASE_URL to a PostgreSQL of your own, or install PostgreSQL 15 or newer on this machine"
    )]
    Platform {
        /// The operating system.
        os: &'static str,
        /// The processor.
        arch: &'static str,
    },
    /// The binaries are there and do not run.
    #[error(
        "the PostgreSQL in {} does not run on this machine: {reason}; set DATABASE_URL to a PostgreSQL of your own, or install PostgreSQL 15 or newer with the system's packages",
        bin.display()
    )]
    Unusable {
        /// The directory of the binaries.
        bin: PathBuf,
        /// What happened when they were run.
        reason: String,
    },
    /// The data was written by a major version that is not at hand.
    #[error(
        "the data in {} was written by PostgreSQL {found} and opens with no other major version; install PostgreSQL {found} on this machine, or move the data to PostgreSQL {built_in} by pg_dump",
        pgdata.display()
    )]
    Version {
        /// The cluster.
        pgdata: PathBuf,
        /// The major version that wrote it.
        found: u32,
        /// The major version this program brings.
        built_in: u32,
    },
    /// The cluster's directory holds something else.
    #[error(
        "{} is neither empty nor the data of a PostgreSQL; move it away, or choose another M3W_DATA_DIR",
        pgdata.display()
    )]
    NotACluster {
        /// The directory in question.
        pgdata: PathBuf,
    },
    /// We are root, PostgreSQL is not, and it cannot get at its directory.
    #[error(
        "PostgreSQL does not run as root, and the user {user} it would run as cannot enter {} (mode {mode:03o}), so {} is out of its reach; set M3W_DATA_DIR to a directory that is not, such as /var/lib/media3watch",
        dir.display(),
        wanted.display()
    )]
    Unreachable {
        /// The account that cannot get in.
        user: String,
        /// The directory that stops it.
        dir: PathBuf,
        /// The permissions of that directory.
        mode: u32,
        /// Where it has to go.
        wanted: PathBuf,
    },
    /// We are root and there is no unprivileged account.
    #[error(
        "PostgreSQL does not run as root, and this machine has neither a user postgres nor a user nobody; create one, or start this program as an ordinary user"
    )]
    NoAccount,
    /// A tool of PostgreSQL failed.
    #[error("{tool} failed ({status}): {output}")]
    Tool {
        /// Its name.
        tool: &'static str,
        /// How it ended.
        status: String,
        /// The end of what it said.
        output: String,
    },
    /// The server did not come up.
    #[error("PostgreSQL did not start ({reason}); the end of its log {}:\n{tail}", log.display())]
    Start {
        /// What was seen of it.
        reason: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of that log.
        tail: String,
    },
    /// The server died again and again.
    #[error(
        "PostgreSQL ended {crashes} times in a row, each time within {seconds} s, and is not started again; the last time: {last}. Its log is {}",
        log.display()
    )]
    CrashLoop {
        /// How often.
        crashes: u32,
        /// How soon after its start.
        seconds: u64,
        /// Its log.
        log: PathBuf,
        /// How it ended the last time.
        last: String,
    },
    /// The server did not go down.
    #[error("PostgreSQL (process {pid}) did not stop within {seconds} s")]
    Stop {
        /// The postmaster.
        pid: i32,
        /// How long we waited.
        seconds: u64,
    },
    /// The superuser's password does not open the cluster.
    #[error(
        "the password in {} does not open the cluster beside it; put the file back that was made with the cluster",
        path.display()
    )]
    Password {
        /// The password file of the superuser.
        path: PathBuf,
    },
    /// Setting up the role and the database failed.
    #[error("cannot set up the database media3watch: {0}")]
    Database(#[from] sqlx::Error),
}

impl Error {
    /// Names the operation and the path of a failed file operation.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// Whether a PostgreSQL already on the machine is the answer to this.
    pub(super) fn is_no_binaries(&self) -> bool {
        matches!(
            self,
            Self::Download { .. }
                | Self::Checksum { .. }
                | Self::Platform { .. }
                | Self::Unusable { .. }
        )
    }
}
