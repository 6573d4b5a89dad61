use std::borrow::Cow;
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::error::{Error, chain};

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
    settle(into).map_err(Error::io("finish", into))
}

/// Opens the directories to the account PostgreSQL runs as, whatever our umask is, and brings
/// all files to the disk: after a power cut a renamed directory must not hold empty files.
fn settle(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            settle(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
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
