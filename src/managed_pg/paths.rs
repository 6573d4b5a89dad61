use std::path::{Path, PathBuf};

/// The directory of the built-in PostgreSQL when the operator names none.
///
/// Pure: the caller gives what it knows of the environment. Nothing comes back for an ordinary
/// user without a home. An empty or relative `xdg_data_home` counts as none, as the XDG base
/// directory specification wants it.
///
/// ```
/// # use std::path::Path;
/// let dir = media3watch::managed_pg::default_data_dir(
///     "linux", false, Some(Path::new("/home/ada")), None);
/// assert_eq!(dir.as_deref(), Some(Path::new("/home/ada/.local/share/media3watch")));
/// ```
pub fn default_data_dir(
    os: &str,
    is_root: bool,
    home: Option<&Path>,
    xdg_data_home: Option<&Path>,
) -> Option<PathBuf> {
    let home = home.filter(|home| home.is_absolute());
    if os == "macos" {
        // Root's home on macOS is closed to others, and PostgreSQL does not run as root.
        return if is_root {
            Some(PathBuf::from("/Library/Application Support/media3watch"))
        } else {
            home.map(|home| home.join("Library/Application Support/media3watch"))
        };
    }
    if is_root {
        return Some(PathBuf::from("/var/lib/media3watch"));
    }
    xdg_data_home
        .filter(|dir| dir.is_absolute())
        .map(Path::to_owned)
        .or_else(|| home.map(|home| home.join(".local/share")))
        .map(|dir| dir.join("media3watch"))
}

/// What lies where in the data directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) root: PathBuf,
}

impl Layout {
    /// The cluster. It has this name only when `initdb` is through.
    pub(super) fn pgdata(&self) -> PathBuf {
        self.root.join("pgdata")
    }

    /// The cluster while `initdb` is at work.
    pub(super) fn pgdata_new(&self) -> PathBuf {
        self.root.join("pgdata.new")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn port(&self) -> PathBuf {
        self.root.join("port")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    /// The password of `media3watch`, in the form of a psql password file.
    pub(super) fn app_password(&self) -> PathBuf {
        self.root.join("media3watch.pgpass")
    }

    /// The password of `postgres`, in the form of a psql password file.
    pub(super) fn superuser_password(&self) -> PathBuf {
        self.root.join("postgres.pgpass")
    }
}

/// Quotes a path for a POSIX shell, when it needs that.
pub(crate) fn shell_quote(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(os: &str, root: bool, home: Option<&str>, xdg: Option<&str>) -> Option<String> {
        default_data_dir(os, root, home.map(Path::new), xdg.map(Path::new))
            .map(|dir| dir.to_string_lossy().into_owned())
    }

    #[test]
    fn the_data_dir_follows_the_platform() {
        let home = Some("/home/ada");
        for (given, wanted) in [
            (dir("linux", true, Some("/root"), Some("/root/x")), Some("/var/lib/media3watch")),
            (dir("linux", false, home, None), Some("/home/ada/.local/share/media3watch")),
            (dir("linux", false, home, Some("/data")), Some("/data/media3watch")),
            (dir("linux", false, home, Some("")), Some("/home/ada/.local/share/media3watch")),
            (dir("linux", false, home, Some("rel")), Some("/home/ada/.local/share/media3watch")),
            (dir("linux", false, None, None), None),
            (dir("linux", false, Some(""), None), None),
            (
                dir("macos", false, Some("/Users/ada"), Some("/data")),
                Some("/Users/ada/Library/Application Support/media3watch"),
            ),
            (dir("macos", true, None, None), Some("/Library/Application Support/media3watch")),
        ] {
            assert_eq!(given.as_deref(), wanted);
        }
    }

    #[test]
    fn a_shell_sees_one_word() {
        assert_eq!(shell_quote(Path::new("/var/lib/m3w")), "/var/lib/m3w");
        assert_eq!(shell_quote(Path::new("/a b/c")), "'/a b/c'");
        assert_eq!(shell_quote(Path::new("/it's")), r"'/it'\''s'");
    }
}
