//! A Postgres of the benchmark's own, with default durability, gone when the benchmark ends.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::{Gid, Uid, User};

/// Everything that is not Postgres' default. Durability is: `fsync`, `synchronous_commit` and
/// `full_page_writes` are on. Checkpoints are made between measurements, not within.
pub const SETTINGS: [(&str, &str); 6] = [
    ("shared_buffers", "512MB"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "1h"),
    ("max_connections", "100"),
    ("unix_socket_directories", ""),
    ("listen_addresses", "127.0.0.1"),
];

/// A running Postgres.
pub struct Cluster {
    bin: PathBuf,
    pgbench: PathBuf,
    data: PathBuf,
    port: u16,
    // Held open: the watchdog stops Postgres and removes its data when it closes.
    life: Option<ChildStdin>,
    watchdog: Child,
}

impl Cluster {
    /// Makes a cluster in a temporary directory and starts it.
    pub fn start(pg_bin: Option<&Path>) -> Result<Self> {
        let bin = bin_dir(pg_bin)?;
        let pgbench = pgbench(&bin)?;
        let account = if Uid::effective().is_root() { Some(unprivileged()?) } else { None };
        let data = tempfile::Builder::new().prefix("m3w-bench-").tempdir()?.keep();
        if let Some((uid, gid)) = account {
            chown(&data, Some(uid.as_raw()), Some(gid.as_raw()))?;
        }
        let command = |program: &Path| {
            let mut command = Command::new(program);
            command.current_dir("/").env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
            if let Some((uid, gid)) = account {
                command.uid(uid.as_raw()).gid(gid.as_raw());
            }
            command
        };
        let mut initdb = command(&bin.join("initdb"));
        initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D"]);
        let done = initdb.arg(&data).output().context("initdb does not run")?;
        ensure!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));

        let port = unused_port()?;
        let settings = SETTINGS.map(|(name, value)| format!("-c {name}='{value}'")).join(" ");
        let at = data.display();
        let script = format!(
            "'{}' -D '{at}' -p {port} {settings} >/dev/null 2>'{at}/log' </dev/null & pg=$!; \
             read -r _; kill -INT $pg 2>/dev/null; wait $pg; rm -rf '{at}'",
            bin.join("postgres").display(),
        );
        // A process group of its own: Ctrl-C is for us, we then stop Postgres.
        let mut watchdog = command(Path::new("/bin/sh"))
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let life = watchdog.stdin.take();
        let cluster = Self { bin, pgbench, data, port, life, watchdog };
        let deadline = Instant::now() + Duration::from_secs(30);
        while cluster.pid().is_err() {
            ensure!(Instant::now() < deadline, "Postgres does not start: {}", cluster.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(cluster)
    }

    /// How to reach a database as superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The program pgbench.
    pub fn pgbench(&self) -> &Path {
        &self.pgbench
    }

    /// Directory of the programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The data directory, for files of our own too.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Process id of the postmaster, once it is ready.
    pub fn pid(&self) -> Result<i32> {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid"))?;
        let mut lines = text.lines();
        let pid = lines.next().context("no pid")?.trim().parse()?;
        ensure!(lines.nth(6).is_some_and(|status| status.trim() == "ready"), "not ready");
        Ok(pid)
    }

    /// Median time of one 8 kB write with fdatasync on the disk of the cluster, in microseconds.
    pub fn fsync_us(&self) -> Result<f64> {
        let path = self.data.join("bench-fsync");
        let mut file = File::create(&path)?;
        let page = [0_u8; 8192];
        let mut times = Vec::new();
        for _ in 0..101 {
            let started = Instant::now();
            file.write_all(&page)?;
            file.sync_data()?;
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
        std::fs::remove_file(path)?;
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.join("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.life.take());
        let _ = self.watchdog.wait();
    }
}

/// A port where nothing listens now.
pub fn unused_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn unprivileged() -> Result<(Uid, Gid)> {
    let user = ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok()?);
    let user = user.context("Postgres refuses root, and there is no user postgres or nobody")?;
    Ok((user.uid, user.gid))
}

fn on_path(program: &str) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "where to look for programs")]
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|dir| dir.join(program).is_file())
}

fn bin_dir(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(dir) = given {
        ensure!(dir.join("initdb").is_file(), "no initdb in {}", dir.display());
        return Ok(std::path::absolute(dir)?);
    }
    let debian = Path::new("/usr/lib/postgresql").read_dir().into_iter().flatten().flatten();
    let version = |dir: &PathBuf| dir.file_name()?.to_str()?.parse::<u32>().ok();
    let mut dirs: Vec<PathBuf> = debian.map(|entry| entry.path()).collect();
    dirs.retain(|dir| version(dir).is_some() && dir.join("bin/initdb").is_file());
    if let Some(newest) = dirs.iter().max_by_key(|dir| version(dir)) {
        return Ok(newest.join("bin"));
    }
    on_path("initdb").context(
        "no PostgreSQL here: install the package postgresql (Debian: postgresql-15 or newer), or \
         say --pg-bin DIR",
    )
}

fn pgbench(bin: &Path) -> Result<PathBuf> {
    let beside = bin.join("pgbench");
    if beside.is_file() {
        return Ok(beside);
    }
    let Some(dir) = on_path("pgbench") else {
        bail!(
            "no pgbench in {} or on the PATH: Debian has it in postgresql-15 and newer, Red Hat \
             in postgresql-contrib; the built-in PostgreSQL of the server lacks it",
            bin.display()
        );
    };
    Ok(dir.join("pgbench"))
}
