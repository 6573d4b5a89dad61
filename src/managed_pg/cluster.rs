use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::account::{Account, command};
use super::error::Error;
use super::files;
use super::paths::Layout;
use super::unpack::remove_dir_if_there;

/// Mode of what is its owner's alone.
const SECRET: u32 = 0o600;

/// The superuser. The application never works as this one.
pub(super) const SUPERUSER: &str = "postgres";

/// What a laptop can spare. Everything about durability stays as PostgreSQL ships it: on. An
/// operator may edit the file; only the address and the port come from the command line.
const CONFIGURATION: &str = "
# --- media3watch: written once, when the cluster was made; edit at will ---
max_connections = 60              # the pool, the jobs, Grafana and a psql or two
shared_buffers = 128MB
effective_cache_size = 1GB
maintenance_work_mem = 64MB
max_wal_size = 512MB
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
log_checkpoints = off             # two lines every five minutes, for ever, in a file nobody turns over
";

/// The major version of the cluster, nothing if there is none yet.
pub(super) fn major(layout: &Layout) -> Result<Option<u32>, Error> {
    let pgdata = layout.pgdata();
    let path = pgdata.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(major) => Ok(Some(major)),
            Err(_) => Err(Error::NotACluster { pgdata }),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // Gone if it was empty, which is as good as not there.
            match fs::remove_dir(&pgdata) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(Error::NotACluster { pgdata })
                }
                _ => Ok(None),
            }
        }
        Err(error) => Err(Error::io("read", &path)(error)),
    }
}

/// Makes the cluster under another name and renames it, so that `pgdata` is always whole.
///
/// The locale is C with UTF-8, on every major version: text sorts by code point, the same on
/// every system, and an update of the C library cannot break an index. `C.UTF-8` would know upper
/// and lower case beyond ASCII, but before 17 it comes from the system, which may lack it.
pub(super) async fn create(
    layout: &Layout,
    bin: &Path,
    account: Option<&Account>,
) -> Result<(), Error> {
    let password = password(&layout.superuser_password(), SUPERUSER)?;
    let new = layout.pgdata_new();
    remove_dir_if_there(&new)?;
    fs::DirBuilder::new().mode(0o700).create(&new).map_err(Error::io("create", &new))?;

    // initdb reads the password itself, so the file must be its user's.
    let pwfile = layout.root.join("initdb.password");
    files::write_new(&pwfile, password.expose_secret(), SECRET)?;
    if let Some(account) = account {
        account.own(&new)?;
        account.own(&pwfile)?;
    }
    let output = command(bin, "initdb", account)
        .arg("--pgdata")
        .arg(&new)
        .arg("--pwfile")
        .arg(&pwfile)
        .args(["--username", SUPERUSER, "--encoding=UTF8", "--locale=C", "--data-checksums"])
        .args(["--auth-local=scram-sha-256", "--auth-host=scram-sha-256"])
        .kill_on_drop(true)
        .output()
        .await;
    let _ = fs::remove_file(&pwfile);
    let output = output.map_err(Error::io("run", &bin.join("initdb")))?;
    if !output.status.success() {
        return Err(Error::Tool {
            tool: "initdb",
            status: output.status.to_string(),
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }

    let path = new.join("postgresql.conf");
    let mut file = files::open(&path, SECRET, OpenOptions::new().append(true))?;
    file.write_all(CONFIGURATION.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", &path))?;
    fs::rename(&new, layout.pgdata()).map_err(Error::io("rename", &new))?;
    fs::File::open(&layout.root)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io("sync", &layout.root))
}

/// The password of `user` from its file; made up and kept there if there is none.
///
/// The file has the form of a psql password file, good for any port, and is open to us alone.
pub(super) fn password(path: &Path, user: &str) -> Result<SecretString, Error> {
    // Ours contain neither colons nor backslashes, so there is nothing to unescape.
    if let Some(text) = files::read(path)?
        && let Some((_, password)) = text.trim().rsplit_once(':')
        && !password.is_empty()
    {
        return Ok(SecretString::from(password.to_owned()));
    }
    let password = format!("{:032x}", rand::random::<u128>());
    files::replace(path, &format!("127.0.0.1:*:*:{user}:{password}\n"), SECRET)?;
    Ok(SecretString::from(password))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_password_is_made_once_and_closed_to_others() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("app.pgpass");
        let first = password(&path, "media3watch").expect("made");
        let again = password(&path, "media3watch").expect("read");
        assert_eq!(first.expose_secret(), again.expose_secret());
        assert_eq!(first.expose_secret().len(), 32);
        let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let text = fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with("127.0.0.1:*:*:media3watch:"), "{text}");
    }

    #[test]
    fn a_foreign_directory_is_not_a_cluster() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout { root: dir.path().to_owned() };
        assert!(matches!(major(&layout), Ok(None)));
        fs::create_dir(layout.pgdata()).expect("created");
        assert!(matches!(major(&layout), Ok(None)), "an empty one is as good as none");
        fs::create_dir(layout.pgdata()).expect("created");
        fs::write(layout.pgdata().join("photo.jpg"), "x").expect("written");
        assert!(matches!(major(&layout), Err(Error::NotACluster { .. })));
        fs::write(layout.pgdata().join("PG_VERSION"), "15\n").expect("written");
        assert!(matches!(major(&layout), Ok(Some(15))));
    }
}
