use std::borrow::Cow;
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::error::Error;
use super::files;
use super::install::DIR_MODE;
use crate::causes::chain;

/// Unpacks the `.txz` inside the jar into the new directory `into`. A leftover of an earlier
/// attempt is removed first.
pub(super) fn unpack(jar: &Path, into: &Path) -> Result<(), Error> {
    remove_dir_if_there(into)?;
    fs::create_dir(into).map_err(Error::io("create", into))?;
    let broken = |reason: String| Error::Archive { path: jar.to_owned(), reason };
    let file = File::open(jar).map_err(Error::io("open", jar))?;
    let mut zip =
        zip::ZipArchive::new(BufReader::new(file)).map_err(|error| broken(chain(&error)))?;
    let name = zip
        .file_names()
        .filter_map(Result::ok)
        .find(|name| name.ends_with(".txz"))
        .map(Cow::into_owned)
        .ok_or_else(|| broken("there is no .txz in it".to_owned()))?;
    let txz = zip.by_name(&name).map_err(|error| broken(chain(&error)))?;
    tar::Archive::new(liblzma::read::XzDecoder::new(txz))
        .unpack(into)
        .map_err(|error| broken(chain(&error)))?;
    settle(into)
}

/// Opens everything to the account PostgreSQL runs as and closes it to other writers, whatever
/// our umask is, and brings all files to the disk: after a power cut a renamed directory must not
/// hold empty files.
fn settle(dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::io("finish", dir)(source);
    set_mode(dir, DIR_MODE)?;
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, meta) = (entry.path(), entry.metadata().map_err(failed)?);
        if meta.is_dir() {
            settle(&path)?;
            continue;
        }
        if meta.is_file() {
            set_mode(&path, if meta.mode() & 0o100 == 0 { 0o644 } else { 0o755 })?;
            File::open(&path).and_then(|file| file.sync_all()).map_err(failed)?;
        }
        files::hand_over(&path)?;
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    files::hand_over(dir)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(Error::io("set the permissions of", path))
}

/// Removes a directory and all in it; none is fine.
pub(super) fn remove_dir_if_there(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", dir)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_programs_whatever_they_were() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).expect("created");
        let (tool, text) = (bin.join("postgres"), bin.join("readme"));
        for (path, mode) in [(&tool, 0o777), (&text, 0o606)] {
            fs::write(path, "").expect("written");
            set_mode(path, mode).expect("ours");
        }
        set_mode(&bin, 0o777).expect("ours");
        settle(dir.path()).expect("settled");
        for (path, mode) in [(&bin, 0o755), (&tool, 0o755), (&text, 0o644)] {
            assert_eq!(fs::metadata(path).expect("there").mode() & 0o7777, mode);
        }
    }
}
