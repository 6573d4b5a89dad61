//! Files and directories in the data directory. Root may start on the directory of another user,
//! under any umask, so: modes are set and not inherited, links are not followed, and what root
//! makes in a directory belongs to that directory's owner, who can then start alone.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown,
};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::Uid;

use super::error::Error;

const PERMISSIONS: u32 = 0o7777;
const STICKY: u32 = 0o1000;
const WRITABLE_BY_ALL: u32 = 0o002;

/// Opens a file for as long as the server runs, making it if need be.
pub(super) fn open(path: &Path, mode: u32, options: &mut OpenOptions) -> Result<File, Error> {
    let file = open_plain(path, options.create(true).mode(mode))?;
    let meta = file.metadata().map_err(Error::io("look at", path))?;
    // That of a file that was there, or of a new one under another umask. A file of somebody
    // else's, which we may write to, keeps its mode.
    if meta.mode() & PERMISSIONS != mode && may_change(&meta) {
        let permissions = Permissions::from_mode(mode);
        file.set_permissions(permissions).map_err(Error::io("set the permissions of", path))?;
    }
    if let Some((uid, gid)) = owner_beside(path)
        && (meta.uid(), meta.gid()) != (uid, gid)
    {
        fchown(&file, Some(uid), Some(gid)).map_err(Error::io("change the owner of", path))?;
    }
    Ok(file)
}

/// Reads a small file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    let mut text = String::new();
    match open_plain(path, OpenOptions::new().read(true)) {
        Ok(mut file) => file.read_to_string(&mut text).map_err(Error::io("read", path))?,
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(text))
}

/// Writes a new file in the place of whatever is there, whole or not at all.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let new = path.with_extension("new");
    write_new(&new, text, mode)?;
    fs::rename(&new, path).map_err(Error::io("rename", &new))
}

/// Writes a file that was not there; one that a killed owner has left is removed.
pub(super) fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    remove_if_there(path)?;
    let mut file = open(path, mode, OpenOptions::new().write(true).create_new(true))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::io("write", path))
}

/// Removes a file, or a link; none is fine.
pub(super) fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Makes a directory, and those above it that are missing, with `mode`.
pub(super) fn make_dirs(dir: &Path, mode: u32) -> Result<(), Error> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_dirs(parent, mode)?;
    }
    match DirBuilder::new().mode(mode).create(dir) {
        // By another process.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => return Ok(()),
        done => done.map_err(Error::io("create", dir))?,
    }
    fs::set_permissions(dir, Permissions::from_mode(mode))
        .map_err(Error::io("set the permissions of", dir))?;
    hand_over(dir)
}

/// Gives what root has made to the owner of the directory that it is in.
pub(super) fn hand_over(path: &Path) -> Result<(), Error> {
    let Some((uid, gid)) = owner_beside(path) else { return Ok(()) };
    lchown(path, Some(uid), Some(gid)).map_err(Error::io("change the owner of", path))
}

/// Takes the right to write from all who are neither owner nor group of a directory of ours. A
/// sticky one, such as `/tmp`, is meant to be so.
pub(super) fn close_to_others(dir: &Path) -> Result<(), Error> {
    let meta = fs::metadata(dir).map_err(Error::io("look at", dir))?;
    let mode = meta.mode() & PERMISSIONS;
    if mode & WRITABLE_BY_ALL == 0 || mode & STICKY != 0 || !may_change(&meta) {
        return Ok(());
    }
    tracing::warn!(dir = %dir.display(), "everybody could write to this directory; no longer");
    fs::set_permissions(dir, Permissions::from_mode(mode & !WRITABLE_BY_ALL))
        .map_err(Error::io("set the permissions of", dir))
}

/// Gives a directory that this program has made its mode, where another umask made another. One
/// that is not there, is a link, or is another user's is left alone.
pub(super) fn mend_dir(dir: &Path, mode: u32) -> Result<(), Error> {
    match fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_dir() && may_change(&meta) && meta.mode() & PERMISSIONS != mode => {
            fs::set_permissions(dir, Permissions::from_mode(mode))
                .map_err(Error::io("set the permissions of", dir))
        }
        _ => Ok(()),
    }
}

/// An error for a link where a file or directory of ours belongs.
pub(super) fn refuse_link(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_symlink() => Err(Error::NotOurs { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// An error for a link that another user has made.
pub(super) fn refuse_foreign_link(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_symlink() && meta.uid() != Uid::effective().as_raw() => {
            Err(Error::NotOurs { path: path.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Opens a regular file that is no link.
fn open_plain(path: &Path, options: &mut OpenOptions) -> Result<File, Error> {
    // A FIFO would be waited for.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let not_ours = || Error::NotOurs { path: path.to_owned() };
    let file =
        options.custom_flags(flags.bits()).open(path).map_err(|error: io::Error| {
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ELOOP | Errno::ENXIO | Errno::EISDIR) => not_ours(),
                _ => Error::io("open", path)(error),
            }
        })?;
    let meta = file.metadata().map_err(Error::io("look at", path))?;
    // A second name for a file of somebody else's.
    let is_foreign =
        owner_beside(path).is_some_and(|(uid, _)| meta.uid() != uid && meta.nlink() > 1);
    if meta.is_file() && !is_foreign { Ok(file) } else { Err(not_ours()) }
}

/// For root, the owner of the directory that `path` is in, where that is another user.
fn owner_beside(path: &Path) -> Option<(u32, u32)> {
    if !Uid::effective().is_root() {
        return None;
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let meta = fs::metadata(parent.unwrap_or(Path::new("."))).ok()?;
    (meta.uid() != 0).then(|| (meta.uid(), meta.gid()))
}

fn may_change(meta: &fs::Metadata) -> bool {
    let me = Uid::effective();
    me.is_root() || me.as_raw() == meta.uid()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("there").mode() & PERMISSIONS
    }

    #[test]
    fn modes_are_set_and_mended() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("file");
        fs::write(&path, "kept").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("ours");
        open(&path, 0o600, OpenOptions::new().append(true)).expect("opened");
        assert_eq!((mode(&path), read(&path).expect("read").as_deref()), (0o600, Some("kept")));
        replace(&path, "new", 0o644).expect("replaced");
        assert_eq!((mode(&path), read(&path).expect("read").as_deref()), (0o644, Some("new")));
        assert!(matches!(read(&dir.path().join("none")), Ok(None)));

        let deep = dir.path().join("a/b");
        make_dirs(&deep, 0o711).expect("made");
        assert_eq!((mode(&deep), mode(&dir.path().join("a"))), (0o711, 0o711));
        fs::set_permissions(&deep, Permissions::from_mode(0o777)).expect("ours");
        close_to_others(&deep).expect("ours");
        assert_eq!(mode(&deep), 0o775);
        mend_dir(&deep, 0o755).expect("ours");
        assert_eq!(mode(&deep), 0o755);
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "theirs").expect("written");
        symlink(&target, &link).expect("linked");
        let opened = open(&link, 0o600, OpenOptions::new().append(true));
        assert!(matches!(opened, Err(Error::NotOurs { .. })), "{opened:?}");
        assert!(matches!(read(&link), Err(Error::NotOurs { .. })));
        assert!(matches!(refuse_link(&link), Err(Error::NotOurs { .. })));
        // A link in the way of the new file, and one in the place of the old one.
        symlink(&target, dir.path().join("link.new")).expect("linked");
        replace(&link, "ours", 0o600).expect("replaced");
        assert_eq!(fs::read_to_string(&target).expect("there"), "theirs");
        assert_eq!(read(&link).expect("read").as_deref(), Some("ours"));
        assert!(matches!(read(dir.path()), Err(Error::NotOurs { .. })), "a directory");
    }
}
