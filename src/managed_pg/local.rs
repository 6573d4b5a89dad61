use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::account::{Account, command};
use super::error::Error;
use super::install::{self, MAJOR};
use super::progress::OnProgress;
use super::{Settings, paths::Layout};

/// The oldest major version the project's SQL runs on.
const OLDEST: u32 = 15;

/// The directories with a PostgreSQL server on this machine: those on `path` (the value of
/// `PATH`), then the places where distributions and Homebrew keep them.
pub fn installed_bin_dirs(path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = path.map(std::env::split_paths).into_iter().flatten().collect();
    for (parent, prefix, rest) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
    ] {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        dirs.extend(
            entries
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
                .map(|entry| entry.path().join(rest)),
        );
    }
    let mut found = Vec::new();
    for dir in dirs {
        // `initdb` looks for the rest beside itself, so links on PATH are followed.
        let Some(bin) = dir.join("initdb").canonicalize().ok().and_then(|tool| {
            let bin = tool.parent()?.to_owned();
            bin.join("postgres").is_file().then_some(bin)
        }) else {
            continue;
        };
        if !found.contains(&bin) {
            found.push(bin);
        }
    }
    found
}

/// The version of the `postgres` in `bin`, for example 18.6 as `(18, 6)`. Runs it.
pub(super) async fn version(bin: &Path) -> Result<(u32, u32), Error> {
    let unusable = |reason: String| Error::Unusable { bin: bin.to_owned(), reason };
    // Root does not run what another user may have put there.
    let account = Account::other_owner(bin);
    let output = command(bin, "postgres", account.as_ref())
        .arg("--version")
        .output()
        .await
        .map_err(|error| unusable(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        unusable(format!("{}: {}", output.status, said.trim()))
    })
}

/// Reads what `postgres --version` prints. A beta has the minor version 0.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let version = text.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
    let digits = |part: &str| -> Option<u32> {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().ok()
    };
    let mut parts = version.split('.');
    Some((digits(parts.next()?)?, parts.next().and_then(digits).unwrap_or(0)))
}

/// Finds the binaries for a cluster, and downloads them if need be. `existing` is the major
/// version of a cluster that is there: only that one will do, and nothing is downloaded as long
/// as this machine has it.
pub(super) async fn binaries(
    settings: &Settings,
    layout: &Layout,
    existing: Option<u32>,
    on: OnProgress<'_>,
) -> Result<PathBuf, Error> {
    let wanted = |major: u32| existing.is_none_or(|existing| existing == major);
    if wanted(MAJOR)
        && let Some(bin) = install::cached(&settings.cache_dir)
    {
        return Ok(bin);
    }
    if let Some(existing) = existing {
        if let Some((bin, _)) = newest(&settings.installed, wanted).await {
            tracing::info!(bin = %bin.display(), "using the postgres of this machine");
            return Ok(bin);
        }
        if existing != MAJOR {
            let pgdata = layout.pgdata();
            return Err(Error::Version { pgdata, found: existing, built_in: MAJOR });
        }
    }
    let error = match install::install(&settings.cache_dir, &settings.repository, on).await {
        Err(error) if error.is_no_binaries() => error,
        done => return done,
    };
    if existing.is_none()
        && let Some((bin, (major, minor))) = newest(&settings.installed, |_| true).await
    {
        tracing::warn!(
            bin = %bin.display(),
            version = %format_args!("{major}.{minor}"),
            %error,
            "no download, using the postgres of this machine"
        );
        return Ok(bin);
    }
    Err(error)
}

/// The newest of these that runs and is wanted.
async fn newest(dirs: &[PathBuf], wanted: impl Fn(u32) -> bool) -> Option<(PathBuf, (u32, u32))> {
    let mut best: Option<(PathBuf, (u32, u32))> = None;
    for bin in dirs {
        match version(bin).await {
            Ok(found) if found.0 >= OLDEST && wanted(found.0) => {
                if best.as_ref().is_none_or(|(_, best)| found > *best) {
                    best = Some((bin.clone(), found));
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "passed over a postgres"),
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_packagers_are_read() {
        for (text, version) in [
            ("postgres (PostgreSQL) 18.6\n", Some((18, 6))),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some((15, 18))),
            ("postgres (PostgreSQL) 17.5 (Homebrew)\n", Some((17, 5))),
            ("postgres (PostgreSQL) 19beta1\n", Some((19, 0))),
            ("postgres (Other) 1.2\n", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), version, "{text}");
        }
    }
}
