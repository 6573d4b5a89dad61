use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;
use std::process::Stdio;

use nix::unistd::{Gid, Uid, User};
use tokio::process::Command;

use super::error::Error;
use super::paths::Layout;

/// The unprivileged user PostgreSQL runs as when we are root: it refuses to run as root itself.
#[derive(Debug, Clone)]
pub(super) struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// Nothing for an ordinary user: PostgreSQL then runs as that user. For root the owner of an
    /// existing cluster, or of the data directory, so that an ordinary user who has begun, or will
    /// go on alone, keeps the data.
    pub(super) fn choose(layout: &Layout) -> Result<Option<Self>, Error> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        let owner = Self::other_owner(&layout.pgdata());
        if let Some(owner) = owner.or_else(|| Self::other_owner(&layout.root)) {
            return Ok(Some(owner));
        }
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .filter(|user| !user.uid.is_root())
            .map(|user| Some(Self { name: user.name, uid: user.uid.as_raw(), gid: gid(user.gid) }))
            .ok_or(Error::NoAccount)
    }

    /// For root, the owner of `path` where that is another user.
    pub(super) fn other_owner(path: &Path) -> Option<Self> {
        let meta = fs::symlink_metadata(path).ok()?;
        if !Uid::effective().is_root() || meta.uid() == 0 {
            return None;
        }
        let user = User::from_uid(Uid::from_raw(meta.uid())).ok().flatten();
        let name = user.map_or_else(|| meta.uid().to_string(), |user| user.name);
        Some(Self { name, uid: meta.uid(), gid: meta.gid() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes one file or directory its own.
    pub(super) fn own(&self, path: &Path) -> Result<(), Error> {
        lchown(path, Some(self.uid), Some(self.gid)).map_err(Error::io("change the owner of", path))
    }

    /// Makes a cluster its own that root has brought here, from a backup for example.
    pub(super) fn own_tree(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::io("change the owner of", path)(source);
        lchown(path, Some(self.uid), Some(self.gid)).map_err(failed)?;
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
            for entry in fs::read_dir(path).map_err(Error::io("read", path))? {
                self.own_tree(&entry.map_err(Error::io("read", path))?.path())?;
            }
        }
        Ok(())
    }

    /// Checks that every directory down to `path`, itself included, lets this user through.
    /// Looks at the permission bits only: they name the culprit, which a failed `initdb` does not.
    pub(super) fn check_reach(&self, path: &Path) -> Result<(), Error> {
        let mut dirs: Vec<&Path> = path.ancestors().collect();
        dirs.reverse();
        for dir in dirs {
            let meta = fs::metadata(dir).map_err(Error::io("look at", dir))?;
            let mode = meta.permissions().mode() & 0o777;
            if !self.may_enter(mode, meta.uid(), meta.gid()) {
                return Err(Error::Unreachable {
                    user: self.name.clone(),
                    dir: dir.to_owned(),
                    mode,
                    wanted: path.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn may_enter(&self, mode: u32, uid: u32, gid: u32) -> bool {
        let bit = match (uid == self.uid, gid == self.gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        mode & bit != 0
    }
}

fn gid(gid: Gid) -> u32 {
    gid.as_raw()
}

/// A tool of PostgreSQL, run as `account`, with an environment of its own: variables such as
/// `PGPORT` or `LANG` are meant for other programs.
pub(super) fn command(bin: &Path, tool: &str, account: Option<&Account>) -> Command {
    let mut command = Command::new(bin.join(tool));
    command
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/bin:/bin")
        // The directory we were started in may be closed to the account.
        .current_dir("/")
        .stdin(Stdio::null());
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permission_bits_are_read_as_the_kernel_reads_them() {
        let account = Account { name: "pg".to_owned(), uid: 101, gid: 104 };
        assert!(!account.may_enter(0o700, 0, 0));
        assert!(account.may_enter(0o711, 0, 0));
        assert!(account.may_enter(0o700, 101, 0));
        assert!(account.may_enter(0o710, 0, 104));
        // The owner's bits win, even when they are the narrower ones.
        assert!(!account.may_enter(0o011, 101, 104));
        assert!(!account.may_enter(0o701, 0, 104));
    }
}
