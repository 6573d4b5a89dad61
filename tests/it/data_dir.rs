//! The files of the built-in PostgreSQL: their modes under any umask, links in their places, and
//! whose they are when root starts on the directory of another user.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use media3watch::managed_pg::{Error, MAVEN_CENTRAL, install};
use nix::sys::signal::Signal;
use nix::unistd::User;

use crate::managed_pg::{cache_dir, data_dir, end_owner, is_root, run_owner, start};
use crate::support::Binary;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("there").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
}

/// A data directory whose binaries need no download, as a start under some umask leaves it.
async fn installed(dir: &Path, cache_mode: u32) {
    let bin = install(&cache_dir(), MAVEN_CENTRAL, &|_| ()).await.expect("installed");
    let version = bin.parent().expect("a directory");
    let cache = dir.join("postgresql");
    fs::create_dir(&cache).expect("ours");
    symlink(version, cache.join(version.file_name().expect("a version"))).expect("ours");
    set_mode(&cache, cache_mode);
}

#[tokio::test]
async fn no_umask_stops_it_or_opens_it_to_others() {
    for (umask, of_cache, of_dir) in
        [("0077", 0o700, 0o755), ("0027", 0o750, 0o755), ("0000", 0o777, 0o777)]
    {
        let dir = data_dir();
        installed(dir.path(), of_cache).await;
        set_mode(dir.path(), of_dir);
        let mut command = Command::new("sh");
        let script = format!("umask {umask}; exec {}", env!("CARGO_BIN_EXE_media3watch"));
        command.env_clear().args(["-c", &script]);
        let path = dir.path().to_str().expect("text");
        let server = Binary::run(command, &[("M3W_DATA_DIR", path), ("PATH", "/usr/bin:/bin")]);
        server.signal(Signal::SIGTERM);
        let (status, log) = server.wait(Duration::from_secs(30));
        assert!(status.success(), "{log}");
        for (name, wanted) in [
            ("postgresql", 0o755),
            ("lock", 0o600),
            ("port", 0o644),
            ("postgres.log", 0o600),
            ("media3watch.pgpass", 0o600),
            ("postgres.pgpass", 0o600),
            ("pgdata", 0o700),
            ("pgdata/postgresql.conf", 0o600),
        ] {
            assert_eq!(mode(&dir.path().join(name)), wanted, "{name} under {umask}");
        }
        assert_eq!(mode(dir.path()) & 0o002, 0, "under {umask}");
    }
}

/// The target of a link is never written to.
#[tokio::test]
async fn links_are_not_followed() {
    let (dir, elsewhere) = (data_dir(), data_dir());
    // As it is named in messages.
    let root = dir.path().canonicalize().expect("there");
    let target = elsewhere.path().join("theirs");
    fs::write(&target, "theirs").expect("written");
    let link = |name: &str| symlink(&target, root.join(name)).expect("ours");
    // These are replaced.
    for name in ["port", "port.new", "media3watch.new", "postgres.new", "initdb.password"] {
        link(name);
    }
    // In the place of these a link is refused by name, and the start works once it is gone.
    for name in ["lock", "postgres.log", "postgres.pgpass", "media3watch.pgpass", "pgdata"] {
        let path = root.join(name);
        let aside = root.join("aside");
        let was_there = fs::rename(&path, &aside).is_ok();
        link(name);
        let error = start(&root).await.expect_err("a link");
        assert!(matches!(&error, Error::NotOurs { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{} is a link", path.display())), "{error}");
        fs::remove_file(&path).expect("there");
        if was_there {
            fs::rename(&aside, &path).expect("moved back");
        }
    }
    start(&root).await.expect("it starts").stop().await.expect("it stops");
    assert_eq!(fs::read_to_string(&target).expect("there"), "theirs");
    assert!(fs::symlink_metadata(root.join("port")).expect("there").is_file());
}

/// Who can open the lock file could keep the server out.
#[tokio::test]
async fn the_lock_is_its_owners_alone() {
    let dir = data_dir();
    let path = dir.path().join("lock");
    // Of a process that is long gone.
    let mut gone = Command::new("true").spawn().expect("it runs");
    fs::write(&path, format!("{}\n", gone.id())).expect("written");
    gone.wait().expect("ours");
    set_mode(&path, 0o644);
    let other = File::open(&path).expect("open to all");
    other.lock_shared().expect("free");
    let error = start(dir.path()).await.expect_err("locked").to_string();
    assert!(error.contains("in use by another process"), "{error}");
    assert_eq!(mode(&path), 0o600, "so that it does not happen again");
    drop(other);
    start(dir.path()).await.expect("it starts").stop().await.expect("it stops");
}

#[tokio::test]
async fn what_root_makes_in_the_directory_of_a_user_is_that_users() {
    if !is_root() {
        return;
    }
    let Some(user) = User::from_name("nobody").expect("a user database") else {
        return;
    };
    let dir = data_dir();
    chown(dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root may");
    let root = dir.path().join("new/data");
    start(&root).await.expect("root starts it").stop().await.expect("it stops");
    let mut open = vec![dir.path().join("new")];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).expect("there");
        assert_eq!(meta.uid(), user.uid.as_raw(), "{}", path.display());
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).expect("ours").flatten().map(|entry| entry.path()));
        }
    }
    let (child, _, _) = run_owner(&root, Some(&user));
    end_owner(child);
}
