use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What the server writes about itself into `postmaster.pid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Postmaster {
    pub(super) pid: i32,
    pub(super) port: u16,
    pub(super) ready: bool,
}

impl Postmaster {
    /// The server that runs on `pgdata`. A file left by a server that is gone counts as none,
    /// also when its process id now belongs to something else.
    pub(super) fn running(pgdata: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(pgdata.join("postmaster.pid")).ok()?;
        parse(&text).filter(|found| is_alive(found.pid) && is_postgres_of(found.pid, pgdata))
    }

    /// Removes the file of a server that is gone. PostgreSQL does that itself, except where the
    /// process id has gone to another process of the same user, as happens after a reboot. Call
    /// only with the lock held and [`Postmaster::running`] giving none; the server's own check
    /// of its shared memory still guards the data.
    pub(super) fn clear_stale(pgdata: &Path) {
        let path = pgdata.join("postmaster.pid");
        match std::fs::remove_file(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed a stale file"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // The server will say what it thinks of it.
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot remove a stale file");
            }
        }
    }

    /// Whether the file still names this server. The server removes it as its last act, so this
    /// also holds where nobody collects the exited process.
    pub(super) fn still_there(pgdata: &Path, pid: i32) -> bool {
        is_alive(pid)
            && std::fs::read_to_string(pgdata.join("postmaster.pid"))
                .is_ok_and(|text| parse_pid(&text) == Some(pid))
    }
}

/// Sends a signal; a process that is gone already is fine.
pub(super) fn signal(pid: i32, signal: Signal) {
    if let Err(error) = kill(Pid::from_raw(pid), signal)
        && error != Errno::ESRCH
    {
        tracing::warn!(pid, %signal, %error, "cannot signal postgres");
    }
}

/// Ends the processes that a dead server has left behind: one that is busy would hold its shared
/// memory, without which no other starts. Call only with the lock held and no server running.
#[cfg(target_os = "linux")]
pub(super) fn kill_orphans(pgdata: &Path) {
    if Postmaster::running(pgdata).is_some() {
        return;
    }
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if is_postgres_of(pid, pgdata) {
            signal(pid, Signal::SIGQUIT);
        }
    }
}

/// Elsewhere they are waited for: they notice by themselves, once they are idle.
#[cfg(not(target_os = "linux"))]
pub(super) fn kill_orphans(_: &Path) {}

/// Whether there is such a process, ours or not.
pub(super) fn is_alive(pid: i32) -> bool {
    !matches!(kill(Pid::from_raw(pid), None), Err(Errno::ESRCH))
}

fn parse_pid(text: &str) -> Option<i32> {
    text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 1)
}

/// The lines are: pid, data directory, start time, port, socket directory, address, shared
/// memory, state. They are written one after the other while the server comes up.
fn parse(text: &str) -> Option<Postmaster> {
    let mut lines = text.lines().skip(3);
    Some(Postmaster {
        pid: parse_pid(text)?,
        port: lines.next().and_then(|line| line.trim().parse().ok()).unwrap_or(0),
        ready: lines.nth(3).is_some_and(|line| line.trim() == "ready"),
    })
}

/// A server works in its data directory, whichever way it was started.
#[cfg(target_os = "linux")]
fn is_postgres_of(pid: i32, pgdata: &Path) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    // Older majors may have been started as `postmaster`.
    (name.starts_with("postgres") || name.starts_with("postmaster"))
        && std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|dir| dir == pgdata)
}

/// Without a /proc the command line has to do: we start the server with its directory in it.
#[cfg(not(target_os = "linux"))]
fn is_postgres_of(pid: i32, pgdata: &Path) -> bool {
    let output = std::process::Command::new("/bin/ps")
        .args(["-ww", "-o", "command=", "-p", &pid.to_string()])
        .output();
    output.is_ok_and(|output| {
        let line = String::from_utf8_lossy(&output.stdout);
        line.contains("postgres") && line.contains(&*pgdata.to_string_lossy())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = "4711\n/d/pgdata\n1700000000\n20123\n\n127.0.0.1\n  1 2\nready   \n";

    #[test]
    fn the_file_is_read_at_every_stage() {
        let at = |text: &str| parse(text).map(|p| (p.pid, p.port, p.ready));
        assert_eq!(at(READY), Some((4711, 20123, true)));
        assert_eq!(at(&READY.replace("ready   ", "starting")), Some((4711, 20123, false)));
        assert_eq!(at("4711\n/d/pgdata\n1700000000\n"), Some((4711, 0, false)));
        assert_eq!(at(""), None);
        // Zero and negative numbers would signal whole process groups.
        assert_eq!(at("0\n"), None);
        assert_eq!(at("-1\n"), None);
    }

    #[test]
    fn a_pid_that_belongs_to_something_else_is_no_server() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let text = READY.replace("4711", &std::process::id().to_string());
        std::fs::write(dir.path().join("postmaster.pid"), text).expect("written");
        assert_eq!(Postmaster::running(dir.path()), None);
    }
}
