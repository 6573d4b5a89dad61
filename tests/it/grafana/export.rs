//! `media3watch grafana export`, and the directory `grafana/` that is its output.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use media3watch::grafana::{self, Options};
use tempfile::TempDir;

use crate::support::bin;

fn export(arguments: &[&str]) -> Output {
    bin().args(["grafana", "export"]).args(arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_owned()).expect("UTF-8")
}

/// A directory to export to, and its path.
fn directory() -> (TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("new/export").to_str().expect("UTF-8").to_owned();
    (dir, path)
}

const DATASOURCE: &str = "provisioning/datasources/media3watch.yaml";

#[test]
fn the_directory_in_the_repository_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana");
    let mut stale = Vec::new();
    for file in grafana::files(&Options::compose()) {
        let path = root.join(&file.path);
        if fs::read_to_string(&path).unwrap_or_default() == file.text {
            continue;
        }
        if std::env::var_os("M3W_UPDATE_DOCS").is_some() {
            fs::create_dir_all(path.parent().expect("a directory")).expect("created");
            fs::write(&path, &file.text).expect("written");
        } else {
            stale.push(file.path);
        }
    }
    assert!(
        stale.is_empty(),
        "not what the code says: {stale:?}; refresh with\n  \
         M3W_UPDATE_DOCS=1 cargo test --test it grafana::export"
    );
    // And nothing else lies there.
    let known: Vec<String> =
        grafana::files(&Options::compose()).into_iter().map(|file| file.path).collect();
    let mut open = vec![root.clone()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).expect("within").to_str().expect("UTF-8");
            assert!(known.iter().any(|known| known == name), "grafana/{name} is not exported");
        }
    }
}

#[test]
fn the_directory_in_the_repository_is_what_the_command_writes() {
    let (_dir, path) = directory();
    let prometheus = ["--prometheus", "http://prometheus:9090"];
    let dashboards = ["--dashboards-path", "/etc/media3watch/dashboards"];
    let done = export(&[&[path.as_str()][..], &prometheus, &dashboards].concat());
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let files = grafana::files(&Options::compose());
    let printed = text(&done.stdout);
    assert_eq!(printed.lines().count(), files.len());
    for file in files {
        let written = fs::read_to_string(Path::new(&path).join(&file.path)).expect("written");
        assert!(written == file.text, "{}", file.path);
        assert!(printed.contains(&file.path));
    }
}

#[test]
fn a_database_url_fills_the_data_source() {
    let (_dir, path) = directory();
    let url = "jdbc:postgresql://viewer@db.example.com:5433/watch?sslmode=verify-full\
               &sslrootcert=/etc/ssl/$root.pem";
    let done = export(&[&path, "--db", url]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let file = Path::new(&path).join(DATASOURCE);
    let yaml = fs::read_to_string(&file).expect("written");
    for line in [
        "url: \"db.example.com:5433\"",
        "user: \"viewer\"",
        "database: \"watch\"",
        "sslmode: verify-full",
        "sslRootCertFile: \"/etc/ssl/$$root.pem\"",
        "tlsConfigurationMethod: file-path",
        "password: $GRAFANA_DB_PASSWORD",
        "isDefault: false",
    ] {
        assert!(yaml.contains(line), "{line} in\n{yaml}");
    }
    assert!(!yaml.contains("prometheus"));
    let provider = Path::new(&path).join("provisioning/dashboards/media3watch.yaml");
    let provider = fs::read_to_string(provider).expect("written");
    assert!(provider.contains(&format!("path: \"{path}/dashboards\"")), "{provider}");
    assert!(text(&done.stderr).contains("GRAFANA_DB_PASSWORD"));
}

#[test]
fn a_password_goes_into_a_file_for_its_owner_alone_and_nowhere_else() {
    let (_dir, path) = directory();
    let file = Path::new(&path).join(DATASOURCE);
    // Over one that everybody may read.
    assert_eq!(export(&[&path]).status.code(), Some(0));
    let mode = |file: &Path| file.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o644);
    let url = "postgresql://grafana:se%24cret%22%27%5C%3A%20@h/watch";
    let done = export(&[&path, "--db", url]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let yaml = fs::read_to_string(&file).expect("written");
    assert!(yaml.contains(r#"password: "se$$cret\"'\\: ""#), "{yaml}");
    assert!(yaml.contains("sslmode: require"), "the default elsewhere");
    assert_eq!(mode(&file), 0o600);
    // Where others must read the files, as in compose, it is refused.
    let (_dir, path) = directory();
    let refused = export(&[&path, "--db", url, "--no-password"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!Path::new(&path).join(DATASOURCE).exists());
    for printed in [&done.stdout, &done.stderr, &refused.stdout, &refused.stderr] {
        assert!(!text(printed).contains("cret"), "{}", text(printed));
    }
}

#[test]
fn files_of_others_are_left_alone() {
    let (_dir, path) = directory();
    let root = Path::new(&path);
    fs::create_dir_all(root.join("dashboards")).expect("created");
    let (theirs, beside) =
        (root.join("dashboards/overview.json"), root.join("dashboards/theirs.json"));
    fs::write(&theirs, r#"{"uid": "theirs"}"#).expect("written");
    fs::write(&beside, "{}").expect("written");

    let kept = export(&[&path]);
    assert_eq!(kept.status.code(), Some(1));
    let said = text(&kept.stderr);
    assert!(said.contains(&format!("kept {}: ", theirs.display())), "{said}");
    assert!(said.ends_with("the export is incomplete: --force replaces what was kept\n"), "{said}");
    assert!(!text(&kept.stdout).contains("overview.json"));
    assert_eq!(fs::read_to_string(&theirs).expect("there"), r#"{"uid": "theirs"}"#);
    assert!(root.join("dashboards/breakdown.json").exists(), "the others were written");

    assert_eq!(export(&[&path, "--force"]).status.code(), Some(0));
    assert!(fs::read_to_string(&theirs).expect("there").contains("m3w-overview"));
    // Ours are written over without a word.
    let again = export(&[&path]);
    assert_eq!((again.status.code(), text(&again.stderr).contains("kept")), (Some(0), false));
    assert_eq!(fs::read_to_string(&beside).expect("there"), "{}");
    let left = fs::read_dir(root.join("dashboards")).expect("there").count();
    assert_eq!(left, 7, "no temporary files");
}

/// An older export is replaced, what a person has changed since is not.
#[test]
fn edited_files_are_kept_and_older_exports_are_not() {
    let (_dir, path) = directory();
    let root = Path::new(&path);
    let other_paths = ["--dashboards-path", "/elsewhere"];
    assert_eq!(export(&[&[path.as_str()][..], &other_paths].concat()).status.code(), Some(0));
    let (edited, provider) = (
        root.join("dashboards/overview.json"),
        root.join("provisioning/dashboards/media3watch.yaml"),
    );
    let exported = fs::read_to_string(&edited).expect("there");
    fs::write(&edited, exported.replace("Media3Watch", "Our films")).expect("written");

    for _ in 0..2 {
        let kept = export(&[&path]);
        assert_eq!(kept.status.code(), Some(1), "and again");
        assert_eq!(text(&kept.stderr).matches("kept").count(), 2, "{}", text(&kept.stderr));
        assert!(fs::read_to_string(&edited).expect("there").contains("Our films"));
        let provider = fs::read_to_string(&provider).expect("there");
        assert!(!provider.contains("/elsewhere"), "what nobody changed is replaced");
    }
    // Changed back, it is an export again, though one of other options.
    fs::write(&edited, exported).expect("written");
    assert_eq!(export(&[&path]).status.code(), Some(0));

    // What says so can be checked by others.
    let sums = fs::read_to_string(root.join(".exported.sha256")).expect("there");
    assert_eq!(sums.lines().count(), grafana::files(&Options::compose()).len());
    if let Ok(checked) =
        Command::new("sha256sum").args(["--check", ".exported.sha256"]).current_dir(root).output()
    {
        assert!(checked.status.success(), "{}", text(&checked.stdout));
    }
    // An export from before there was such a file.
    fs::remove_file(root.join(".exported.sha256")).expect("there");
    assert_eq!(export(&[&path]).status.code(), Some(0), "the same");
    fs::remove_file(root.join(".exported.sha256")).expect("there");
    assert_eq!(export(&[&[path.as_str()][..], &other_paths].concat()).status.code(), Some(1));
}

/// All of it or nothing, and no debris.
#[test]
fn a_full_disk_leaves_the_export_as_it_was() {
    let (_dir, path) = directory();
    let root = Path::new(&path);
    assert_eq!(export(&[&path]).status.code(), Some(0));
    let before = listing(root);
    // Smaller than the largest dashboards, which come after the small files.
    let script = format!(
        "ulimit -f 40; trap '' XFSZ; exec {} grafana export {path} \
         --dashboards-path /elsewhere",
        env!("CARGO_BIN_EXE_media3watch")
    );
    let full = Command::new("sh").args(["-c", &script]).output().expect("a shell");
    assert_eq!(full.status.code(), Some(1), "{}", text(&full.stderr));
    let said = text(&full.stderr);
    assert!(said.contains("the export was left as it was"), "{said}");
    assert_eq!(said.matches("os error").count(), 1, "{said}");
    assert!(full.stdout.is_empty());
    assert!(listing(root) == before, "{said}");
}

/// Names and contents below a directory.
fn listing(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut open, mut files) = (vec![root.to_owned()], BTreeMap::new());
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.insert(path.clone(), fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

#[test]
fn mistakes_are_told_without_writing() {
    let (_dir, path) = directory();
    for arguments in [
        &[][..],
        &[path.as_str(), "--db", "mysql://h/d"],
        &[&path, "--db", "postgresql://u:canary@h/d?sslmode=prefer"],
        &[&path, "--db", "postgresql://u:canary@h/"],
        &[&path, "--prometheus", "prometheus:9090"],
        &[&path, "--prometheus", "http://u:canary@p:9090"],
        &[&path, "--dashboards-path", "dashboards"],
    ] {
        let done = export(arguments);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}");
        assert!(done.stdout.is_empty() && !done.stderr.is_empty());
        if arguments.contains(&"--db") {
            assert!(!text(&done.stderr).contains("canary"), "{}", text(&done.stderr));
        }
        assert!(!Path::new(&path).exists());
    }
    let done = export(&["/dev/null/here"]);
    assert_eq!(done.status.code(), Some(1));
}
