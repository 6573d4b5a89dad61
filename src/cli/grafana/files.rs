//! The files of an export on disk: all of them or none, and none in the place of one that a
//! person has changed.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::grafana::File;

/// What an export wrote, in the form that `sha256sum --check` reads. At the top of the directory,
/// where Grafana does not look.
const MANIFEST: &str = ".exported.sha256";

/// What became of the files.
pub(super) struct Written {
    pub(super) written: Vec<PathBuf>,
    /// Left as they were, because no export wrote them so.
    pub(super) kept: Vec<PathBuf>,
}

/// Writes the files below `dir`. One that is there and that no export wrote so is kept, unless
/// `force`.
pub(super) fn write(dir: &Path, files: &[File], force: bool) -> anyhow::Result<Written> {
    let exported = Manifest::read(&dir.join(MANIFEST))?;
    let mut manifest = Manifest::default();
    let (mut staged, mut kept) = (Staged::default(), Vec::new());
    for file in files {
        let path = dir.join(&file.path);
        let is_changed = match read(&path)? {
            Some(text) => text != file.text.as_bytes() && !exported.has(&file.path, &text),
            None => false,
        };
        if is_changed && !force {
            manifest.0.extend(exported.0.get_key_value(&file.path).map(owned));
            kept.push(path);
        } else {
            manifest.0.insert(file.path.clone(), digest(file.text.as_bytes()));
            staged.add(path, file)?;
        }
    }
    let manifest = File {
        // The digest of a text with a password in it serves to guess the password.
        is_secret: files.iter().any(|file| file.is_secret),
        ..File::new(MANIFEST, manifest.text())
    };
    // Last: an export that is interrupted is completed by the same command.
    staged.add(dir.join(MANIFEST), &manifest)?;
    let mut written = staged.settle()?;
    written.pop();
    Ok(Written { written, kept })
}

/// SHA-256 in hex by path, relative to the directory of the export.
#[derive(Default)]
struct Manifest(BTreeMap<String, String>);

impl Manifest {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = read(path)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter_map(|line| line.split_once("  "));
        Ok(Self(lines.map(|(digest, path)| (path.to_owned(), digest.to_owned())).collect()))
    }

    fn has(&self, path: &str, text: &[u8]) -> bool {
        self.0.get(path).is_some_and(|exported| *exported == digest(text))
    }

    fn text(&self) -> String {
        let lines: Vec<_> =
            self.0.iter().map(|(path, digest)| format!("{digest}  {path}\n")).collect();
        lines.concat()
    }
}

fn owned((path, digest): (&String, &String)) -> (String, String) {
    (path.clone(), digest.clone())
}

fn digest(text: &[u8]) -> String {
    format!("{:x}", Sha256::digest(text))
}

fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Files that lie whole beside their places, and are removed again unless they are settled.
#[derive(Default)]
struct Staged(Vec<PathBuf>);

impl Staged {
    fn add(&mut self, path: PathBuf, file: &File) -> anyhow::Result<()> {
        let staged = stage(&beside(&path), file).with_context(|| {
            format!("cannot write {}: the export was left as it was", path.display())
        });
        self.0.push(path);
        staged
    }

    /// Renames, so that Grafana, which may look at any moment, finds each file old or new.
    fn settle(mut self) -> anyhow::Result<Vec<PathBuf>> {
        let paths = std::mem::take(&mut self.0);
        for (number, path) in paths.iter().enumerate() {
            if let Err(error) = fs::rename(beside(path), path) {
                self.0 = paths[number..].to_vec();
                return Err(error).with_context(|| format!("cannot replace {}", path.display()));
            }
        }
        Ok(paths)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(beside(path));
        }
    }
}

/// Grafana's providers pass over names that begin with a dot.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn stage(path: &Path, file: &File) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mode = if file.is_secret { 0o600 } else { 0o644 };
    let mut out = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    out.set_permissions(Permissions::from_mode(mode))?;
    out.write_all(file.text.as_bytes())?;
    // Some file systems say only now that they are full.
    out.sync_all()
}
