//! `sslmode` against a real server with real certificates. The verdicts are psql's: where an
//! installed psql is found, every one is compared with it.

#![expect(clippy::print_stderr, reason = "a test that cannot run here says so")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use media3watch::config::DatabaseUrl;
use media3watch::report::Retention;
use media3watch::store::{PoolSize, Store, Target};
use media3watch::telemetry::Metrics;
use sqlx::{AssertSqlSafe, ConnectOptions};
use tempfile::TempDir;

use crate::support::{Cluster, Database, bin};

/// No rule before the one that lets everybody in.
const OPEN: &str = "";

/// Certificates and keys, made with openssl.
struct Authority {
    dir: TempDir,
}

fn has_openssl() -> bool {
    let has = Command::new("openssl").arg("version").output().is_ok();
    if !has {
        eprintln!("not tested: openssl is not installed");
    }
    has
}

/// What a certificate says. Without extensions it is X.509 v1.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    name: &'a str,
    subject: &'a str,
    issuer: Option<&'a str>,
    extensions: &'a [&'a str],
    days: i32,
    key: &'a str,
}

const CA: &[&str] = &["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"];
const FOR_LOCALHOST: &[&str] = &["subjectAltName=DNS:localhost,IP:127.0.0.1"];
const EC: &str = "EC -pkeyopt ec_paramgen_curve:P-256";
const RSA: &str = "RSA -pkeyopt rsa_keygen_bits:2048";

impl Wanted<'static> {
    const SERVER: Self = Self {
        name: "",
        subject: "/CN=localhost",
        issuer: Some("root"),
        extensions: FOR_LOCALHOST,
        days: 10,
        key: EC,
    };
    const ROOT: Self =
        Self { subject: "/O=Test/CN=Root", issuer: None, extensions: CA, ..Self::SERVER };
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // The machine's own configuration must not add extensions.
        std::fs::write(dir.path().join("empty.cnf"), "[req]\ndistinguished_name=dn\n[dn]\n")
            .expect("ours");
        Self { dir }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path(file)).expect(file)
    }

    fn openssl(&self, arguments: &str) -> String {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(self.dir.path()).env("OPENSSL_CONF", "empty.cnf");
        let done = openssl.args(arguments.split_whitespace()).output().expect("openssl runs");
        let err = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "openssl {arguments}: {err}");
        String::from_utf8(done.stdout).expect("text")
    }

    fn make(&self, wanted: Wanted<'_>) {
        let Wanted { name, subject, issuer, extensions, days, key } = wanted;
        self.openssl(&format!("genpkey -algorithm {key} -out {name}.key"));
        self.openssl(&format!("req -new -key {name}.key -subj {subject} -out {name}.csr"));
        let signer = issuer.map_or(format!("-signkey {name}.key"), |issuer| {
            format!("-CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial")
        });
        let mut command =
            format!("x509 -req -in {name}.csr -days {days} -out {name}.crt -sha256 {signer}");
        if !extensions.is_empty() {
            std::fs::write(self.path("extensions"), extensions.join("\n")).expect("ours");
            command.push_str(" -extfile extensions");
        }
        self.openssl(&command);
        let mut text = self.openssl(&format!("x509 -in {name}.crt -noout -text"));
        if extensions.is_empty() && !text.contains("Version: 1") {
            // Newer versions of openssl make X.509 v1 only on request.
            let signer = issuer.map_or(format!("-key {name}.key"), |issuer| {
                format!("-key {name}.key -CA {issuer}.crt -CAkey {issuer}.key")
            });
            self.openssl(&format!(
                "req -x509 -x509v1 -subj {subject} -days {days} -out {name}.crt -sha256 {signer}"
            ));
            text = self.openssl(&format!("x509 -in {name}.crt -noout -text"));
        }
        let version = if extensions.is_empty() { "Version: 1" } else { "Version: 3" };
        assert!(text.contains(version), "{name} is not of {version}: {text}");
    }
}

/// How a connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Tls,
    Plain,
    Refused,
}
use Verdict::{Plain, Refused, Tls};

struct Server {
    cluster: Cluster,
    certificates: Authority,
    psql: Option<PathBuf>,
}

impl Server {
    /// `None`, and a line on standard error, if the machine lacks something.
    async fn start() -> Option<Self> {
        if !has_openssl() {
            return None;
        }
        let cluster = tokio::task::spawn_blocking(Cluster::start).await.expect("a cluster");
        let admin = Database { url: cluster.url("postgres") };
        if admin.value("SELECT current_setting('ssl_library')").await.as_deref() != Some("OpenSSL")
        {
            eprintln!("not tested: this PostgreSQL has no TLS");
            return None;
        }
        admin.execute("CREATE ROLE app LOGIN").await;
        let given = std::env::var_os("M3W_TEST_PG_BIN").map(|bin| Path::new(&bin).join("psql"));
        let installed =
            (15..=18).map(|v| PathBuf::from(format!("/usr/lib/postgresql/{v}/bin/psql")));
        let psql = given.into_iter().chain(installed).find(|path| path.exists());
        if psql.is_none() {
            eprintln!("not compared with psql: it is not installed");
        }
        Some(Self { cluster, certificates: Authority::new(), psql })
    }

    /// Lets the server use a certificate, or no TLS, and `rules` of `pg_hba.conf`.
    async fn use_certificate(&self, chain: Option<&[&str]>, rules: &str, settings: &str) {
        static GENERATION: AtomicUsize = AtomicUsize::new(1);
        let mut conf = settings.to_owned();
        if let Some(chain) = chain {
            let text: Vec<u8> = chain
                .iter()
                .flat_map(|name| self.certificates.read(&format!("{name}.crt")))
                .collect();
            self.cluster.write("server.crt", &text);
            self.cluster.write("server.key", &self.certificates.read(&format!("{}.key", chain[0])));
            conf.push_str("\nssl = on\n");
        }
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed).to_string();
        conf.push_str(&format!("m3w.generation = {generation}\n"));
        self.cluster.write("postgresql.conf", conf.as_bytes());
        let rules = format!(
            "host all postgres 127.0.0.1/32 trust\n{rules}\nhost all all 127.0.0.1/32 trust\n"
        );
        self.cluster.write("pg_hba.conf", rules.as_bytes());
        self.cluster.reload();
        let deadline = Instant::now() + Duration::from_secs(10);
        let query = "SELECT current_setting('m3w.generation', true)";
        while self.admin().value(query).await.as_deref() != Some(&generation) {
            assert!(Instant::now() < deadline, "no reload: {}", self.cluster.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn admin(&self) -> Database {
        Database { url: format!("{}?sslmode=disable", self.cluster.url("postgres")) }
    }

    fn url(&self, host: &str, parameters: &str) -> String {
        format!("postgresql://app@{host}:{}/postgres?{parameters}", self.cluster.port())
    }

    /// What becomes of a connection of ours.
    async fn ours(&self, url: &str) -> (Verdict, String) {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let name = format!("tls_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let options = DatabaseUrl::parse(url).expect(url).options().application_name(&name);
        let size = PoolSize { max: 1, min_idle: 0 };
        let metrics = Arc::new(Metrics::new([], &[]));
        let target = Target { is_pooled: Some(false), ..options.into() };
        let store = Store::new(target, size, Retention::days(0), Vec::new(), metrics);
        let pinged = store.ping(Duration::from_secs(10)).await;
        let query = format!(
            "SELECT bool_or(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name = '{name}'"
        );
        let verdict = match (pinged, self.admin().value(&query).await.as_deref()) {
            (Err(error), _) => (Refused, error.to_string()),
            (Ok(()), Some("true")) => (Tls, String::new()),
            (Ok(()), _) => (Plain, String::new()),
        };
        store.close().await;
        verdict
    }

    /// What becomes of one of psql's.
    fn psql(&self, url: &str) -> Option<(Verdict, String)> {
        let mut psql = Command::new(self.psql.as_ref()?);
        psql.env_clear().env("HOME", self.certificates.dir.path());
        let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let done = psql.args(["-X", "-A", "-t", "-w", "-c", query, url]).output().expect("it runs");
        let verdict = match (done.status.success(), done.stdout.starts_with(b"t")) {
            (false, _) => Refused,
            (true, is_tls) => {
                if is_tls {
                    Tls
                } else {
                    Plain
                }
            }
        };
        Some((verdict, String::from_utf8_lossy(&done.stderr).into_owned()))
    }

    async fn expect(&self, what: &str, url: &str, expected: Verdict, wrong: &mut Vec<String>) {
        let (found, why) = self.ours(url).await;
        if found != expected {
            wrong.push(format!("{what}: {url}: {found:?}, expected {expected:?}: {why}"));
        }
        if let Some((found, why)) = self.psql(url)
            && found != expected
        {
            wrong.push(format!("{what}: {url}: psql: {found:?}, expected {expected:?}: {why}"));
        }
    }
}

/// A server's certificate, and what verification makes of it.
struct Case {
    /// The certificates that the server sends, its own first.
    chain: &'static [&'static str],
    root: &'static str,
    /// `verify-ca`, `verify-full` for localhost, and `verify-full` for 127.0.0.1.
    is_accepted: [bool; 3],
}

const fn case(chain: &'static [&'static str], root: &'static str, is_accepted: [bool; 3]) -> Case {
    Case { chain, root, is_accepted }
}

const ALL: [bool; 3] = [true, true, true];
const NONE: [bool; 3] = [false, false, false];
const CA_ONLY: [bool; 3] = [true, false, false];
const LOCALHOST: [bool; 3] = [true, true, false];

fn make_certificates(all: &Authority) {
    let server = Wanted::SERVER;
    let root = Wanted::ROOT;
    all.make(Wanted { name: "root", ..root });
    all.make(Wanted { name: "other-root", ..root });
    all.make(Wanted { name: "v1-root", subject: "/CN=V1", extensions: &[], ..root });
    all.make(Wanted { name: "expired-root", subject: "/CN=Old", days: -1, ..root });
    all.make(Wanted {
        name: "leaf-root",
        subject: "/CN=Leaf",
        extensions: &["basicConstraints=CA:FALSE"],
        ..root
    });
    let between = Wanted { issuer: Some("root"), ..root };
    all.make(Wanted { name: "between", subject: "/CN=Between", ..between });
    all.make(Wanted { name: "v1-between", subject: "/CN=V1-between", extensions: &[], ..between });
    all.make(Wanted {
        name: "no-sign",
        subject: "/CN=No-sign",
        extensions: &["basicConstraints=CA:TRUE", "keyUsage=digitalSignature"],
        ..between
    });
    all.make(Wanted {
        name: "last",
        subject: "/CN=Last",
        extensions: &["basicConstraints=critical,CA:TRUE,pathlen:0"],
        ..between
    });
    all.make(Wanted { name: "below-last", subject: "/CN=Below", issuer: Some("last"), ..root });
    all.make(Wanted {
        name: "named",
        subject: "/CN=Named",
        extensions: &[
            "basicConstraints=CA:TRUE",
            "nameConstraints=critical,permitted;DNS:localhost,permitted;IP:127.0.0.0/255.0.0.0",
        ],
        ..between
    });
    all.make(Wanted {
        name: "elsewhere",
        subject: "/CN=Elsewhere",
        extensions: &[
            "basicConstraints=CA:TRUE",
            "nameConstraints=critical,permitted;DNS:example.com",
        ],
        ..between
    });
    all.make(Wanted {
        name: "not-here",
        subject: "/CN=Not-here",
        extensions: &[
            "basicConstraints=CA:TRUE",
            "nameConstraints=critical,excluded;DNS:localhost",
        ],
        ..between
    });

    all.make(Wanted { name: "good", ..server });
    all.make(Wanted { name: "rsa", key: RSA, ..server });
    all.make(Wanted { name: "ed25519", key: "ED25519", ..server });
    all.make(Wanted { name: "p521", key: "EC -pkeyopt ec_paramgen_curve:P-521", ..server });
    all.make(Wanted { name: "v1", key: RSA, extensions: &[], ..server });
    all.make(Wanted { name: "v1-ec", extensions: &[], ..server });
    all.make(Wanted { name: "v1-self", key: RSA, issuer: None, extensions: &[], ..server });
    all.make(Wanted { name: "self", issuer: None, ..server });
    all.make(Wanted {
        name: "self-ca",
        issuer: None,
        extensions: &["basicConstraints=CA:TRUE", "subjectAltName=DNS:localhost"],
        ..server
    });
    all.make(Wanted { name: "expired", days: -1, ..server });
    all.make(Wanted { name: "expired-self", days: -1, issuer: None, ..server });
    all.make(Wanted {
        name: "wrong-host",
        extensions: &["subjectAltName=DNS:db.example.com"],
        subject: "/CN=db.example.com",
        ..server
    });
    all.make(Wanted { name: "cn", extensions: &["basicConstraints=CA:FALSE"], ..server });
    all.make(Wanted {
        name: "cn-ip",
        subject: "/CN=127.0.0.1",
        extensions: &["subjectAltName=DNS:localhost"],
        ..server
    });
    all.make(Wanted {
        name: "cn-hidden",
        extensions: &["subjectAltName=DNS:db.example.com"],
        ..server
    });
    all.make(Wanted {
        name: "cn-beside-ip",
        extensions: &["subjectAltName=IP:10.0.0.1"],
        ..server
    });
    all.make(Wanted {
        name: "cn-beside-mail",
        extensions: &["subjectAltName=email:a@example.com"],
        ..server
    });
    all.make(Wanted {
        name: "client",
        extensions: &["extendedKeyUsage=clientAuth", FOR_LOCALHOST[0]],
        ..server
    });
    all.make(Wanted {
        name: "any-use",
        extensions: &["extendedKeyUsage=anyExtendedKeyUsage", FOR_LOCALHOST[0]],
        ..server
    });
    all.make(Wanted {
        name: "server-use",
        extensions: &[
            "extendedKeyUsage=serverAuth",
            "keyUsage=critical,digitalSignature",
            FOR_LOCALHOST[0],
        ],
        ..server
    });
    all.make(Wanted {
        name: "sign-only",
        extensions: &["keyUsage=critical,nonRepudiation", FOR_LOCALHOST[0]],
        ..server
    });
    all.make(Wanted {
        name: "critical",
        extensions: &["1.2.3.4=critical,ASN1:NULL", FOR_LOCALHOST[0]],
        ..server
    });
    all.make(Wanted {
        name: "ca-server",
        extensions: &["basicConstraints=critical,CA:TRUE", FOR_LOCALHOST[0]],
        ..server
    });
    for issuer in [
        "v1-root",
        "expired-root",
        "leaf-root",
        "between",
        "v1-between",
        "no-sign",
        "below-last",
        "last",
        "named",
        "elsewhere",
        "not-here",
        "good",
    ] {
        all.make(Wanted { name: &format!("by-{issuer}"), issuer: Some(issuer), ..server });
    }
}

const CASES: &[Case] = &[
    case(&["good"], "root", ALL),
    case(&["rsa"], "root", ALL),
    case(&["ed25519"], "root", ALL),
    case(&["v1"], "root", LOCALHOST),
    case(&["v1-ec"], "root", LOCALHOST),
    case(&["v1-self"], "v1-self", LOCALHOST),
    case(&["v1-self"], "root", NONE),
    case(&["self"], "self", ALL),
    case(&["self-ca"], "self-ca", LOCALHOST),
    case(&["self"], "root", NONE),
    // Not self-signed, so it is no root, though it is the server's own.
    case(&["good"], "good", NONE),
    case(&["good"], "other-root", NONE),
    case(&["expired"], "root", NONE),
    case(&["expired-self"], "expired-self", NONE),
    case(&["wrong-host"], "root", CA_ONLY),
    case(&["cn"], "root", LOCALHOST),
    case(&["cn-ip"], "root", ALL),
    case(&["cn-hidden"], "root", CA_ONLY),
    case(&["cn-beside-ip"], "root", LOCALHOST),
    case(&["cn-beside-mail"], "root", LOCALHOST),
    case(&["client"], "root", NONE),
    case(&["any-use"], "root", NONE),
    case(&["server-use"], "root", ALL),
    case(&["sign-only"], "root", NONE),
    case(&["critical"], "root", NONE),
    case(&["ca-server"], "root", ALL),
    case(&["by-v1-root"], "v1-root", ALL),
    case(&["by-expired-root"], "expired-root", NONE),
    case(&["by-leaf-root"], "leaf-root", NONE),
    case(&["by-between", "between"], "root", ALL),
    // The root, too, may be sent.
    case(&["by-between", "between", "root"], "root", ALL),
    case(&["by-between"], "root", NONE),
    case(&["by-between", "between"], "between", NONE),
    case(&["by-v1-between", "v1-between"], "root", NONE),
    case(&["by-no-sign", "no-sign"], "root", NONE),
    case(&["by-last", "last"], "root", ALL),
    case(&["by-below-last", "below-last", "last"], "root", NONE),
    case(&["by-named", "named"], "root", ALL),
    case(&["by-elsewhere", "elsewhere"], "root", NONE),
    case(&["by-not-here", "not-here"], "root", NONE),
    case(&["by-good", "good"], "root", NONE),
];

#[tokio::test]
async fn certificates_are_judged_as_psql_judges_them() {
    let Some(server) = Server::start().await else { return };
    make_certificates(&server.certificates);
    let mut wrong = Vec::new();
    for Case { chain, root, is_accepted } in CASES {
        server.use_certificate(Some(chain), OPEN, "").await;
        let what = format!("{chain:?} below {root}");
        let root = server.certificates.path(&format!("{root}.crt"));
        let root = root.display();
        for mode in ["prefer", "require"] {
            let url = server.url("localhost", &format!("sslmode={mode}"));
            server.expect(&what, &url, Tls, &mut wrong).await;
        }
        let verified = [
            ("localhost", "require", is_accepted[0]),
            ("localhost", "verify-ca", is_accepted[0]),
            ("localhost", "verify-full", is_accepted[1]),
            ("127.0.0.1", "verify-full", is_accepted[2]),
        ];
        for (host, mode, is_accepted) in verified {
            let url = server.url(host, &format!("sslmode={mode}&sslrootcert={root}"));
            let expected = if is_accepted { Tls } else { Refused };
            server.expect(&what, &url, expected, &mut wrong).await;
        }
    }
    // A key that we cannot verify signatures of.
    server.use_certificate(Some(&["p521"]), OPEN, "").await;
    server.expect("p521", &server.url("localhost", ""), Tls, &mut wrong).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn encryption_is_negotiated_as_psql_does_it() {
    const TLS_ONLY: &str = "hostssl all app all trust\nhost all app all reject";
    const PLAIN_ONLY: &str = "hostnossl all app all trust\nhost all app all reject";
    const NEITHER: &str = "host all app all reject";
    /// What no client of today speaks.
    const OLD: &str = "ssl_min_protocol_version = 'TLSv1'\nssl_max_protocol_version = 'TLSv1.1'";
    const MODES: [&str; 5] = ["disable", "allow", "prefer", "require", "verify-full"];
    let Some(server) = Server::start().await else { return };
    server.certificates.make(Wanted { name: "root", ..Wanted::ROOT });
    server.certificates.make(Wanted { name: "good", ..Wanted::SERVER });
    let root = server.certificates.path("root.crt");
    let mut wrong = Vec::new();
    for (has_tls, rules, settings, expected) in [
        (true, OPEN, "", [Plain, Plain, Tls, Tls, Tls]),
        (true, OPEN, "ssl_max_protocol_version = 'TLSv1.2'", [Plain, Plain, Tls, Tls, Tls]),
        (false, OPEN, "", [Plain, Plain, Plain, Refused, Refused]),
        (true, OPEN, OLD, [Plain, Plain, Plain, Refused, Refused]),
        (true, TLS_ONLY, "", [Refused, Tls, Tls, Tls, Tls]),
        (true, PLAIN_ONLY, "", [Plain, Plain, Plain, Refused, Refused]),
        (true, NEITHER, "", [Refused; 5]),
        (true, TLS_ONLY, OLD, [Refused; 5]),
        (false, NEITHER, "", [Refused; 5]),
    ] {
        let chain: &[&str] = &["good"];
        server.use_certificate(has_tls.then_some(chain), rules, settings).await;
        for (mode, expected) in MODES.into_iter().zip(expected) {
            // `require` must not find a root certificate, or it would verify.
            let root = match mode {
                "verify-full" => format!("&sslrootcert={}", root.display()),
                _ => String::new(),
            };
            let url = server.url("localhost", &format!("sslmode={mode}{root}"));
            let what = format!("TLS {has_tls}, {rules:?}, {settings:?}");
            server.expect(&what, &url, expected, &mut wrong).await;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn client_certificates_let_in() {
    let Some(server) = Server::start().await else { return };
    let all = &server.certificates;
    all.make(Wanted { name: "root", ..Wanted::ROOT });
    all.make(Wanted { name: "good", ..Wanted::SERVER });
    let app = Wanted { subject: "/CN=app", ..Wanted::SERVER };
    all.make(Wanted { name: "app", extensions: &["basicConstraints=CA:FALSE"], ..app });
    all.make(Wanted { name: "app-v1", extensions: &[], key: RSA, ..app });
    all.make(Wanted { name: "app-self", issuer: None, ..app });
    all.make(Wanted { name: "other", subject: "/CN=other", ..app });
    all.openssl("rsa -in app-v1.key -traditional -out app-v1-pkcs1.key");
    all.openssl("ec -in app.key -out app-sec1.key");
    let ca = server.cluster.write("ca.crt", &all.read("root.crt"));
    let settings = format!("ssl_ca_file = '{}'", ca.display());
    let rules = "hostssl all app all cert\nhost all app all reject";
    server.use_certificate(Some(&["good"]), rules, &settings).await;
    let mut wrong = Vec::new();
    for (certificate, key, expected) in [
        ("app", "app", Tls),
        ("app", "app-sec1", Tls),
        ("app-v1", "app-v1", Tls),
        ("app-v1", "app-v1-pkcs1", Tls),
        ("app-self", "app-self", Refused),
        ("other", "other", Refused),
    ] {
        for mode in ["prefer", "require", "verify-full"] {
            let path = |file: String| all.path(&file).display().to_string();
            let url = server.url(
                "localhost",
                &format!(
                    "sslmode={mode}&sslcert={}&sslkey={}&sslrootcert={}",
                    path(format!("{certificate}.crt")),
                    path(format!("{key}.key")),
                    path("root.crt".to_owned()),
                ),
            );
            server.expect("client certificate", &url, expected, &mut wrong).await;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// More than the buffers of rustls and of the socket hold, in both directions.
#[tokio::test]
async fn large_values_pass_through_tls() {
    let Some(server) = Server::start().await else { return };
    server.certificates.make(Wanted {
        name: "v1",
        extensions: &[],
        issuer: None,
        ..Wanted::SERVER
    });
    server.use_certificate(Some(&["v1"]), OPEN, "").await;
    let url = server.url("localhost", "sslmode=require");
    let mut connection =
        DatabaseUrl::parse(&url).expect("valid").options().connect().await.expect("it connects");
    for length in [1, 16_384, 65_536, 65_537, 8_000_000] {
        let text = "x".repeat(length);
        let back: String = sqlx::query_scalar(AssertSqlSafe("SELECT $1::text || 'y'".to_owned()))
            .bind(&text)
            .fetch_one(&mut connection)
            .await
            .expect("it answers");
        assert_eq!((back.len(), back.ends_with("xy")), (length + 1, true));
    }
}

/// All at once at the start, with the parameter and the path, and nothing else of the URL.
#[test]
fn missing_files_are_configuration_errors() {
    if !has_openssl() {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let empty = home.path().join("empty.pem");
    std::fs::write(&empty, "").expect("ours");
    let empty = empty.display();
    let authority = Authority::new();
    authority.make(Wanted { name: "root", ..Wanted::ROOT });
    let root = authority.path("root.crt");
    let root = root.display();
    for (parameters, expected) in [
        ("sslmode=require&sslrootcert=/no/root.crt".to_owned(), Some("sslrootcert=/no/root.crt")),
        ("sslmode=prefer&sslrootcert=/no/root.crt".to_owned(), Some("sslrootcert=/no/root.crt")),
        ("sslcert=/no/a.crt&sslkey=/no/a.key".to_owned(), Some("sslcert=/no/a.crt")),
        (format!("sslmode=verify-ca&sslrootcert={empty}"), Some("empty.pem")),
        (format!("sslmode=verify-ca&sslrootcert={root}"), None),
        (format!("sslcert={root}"), Some("sslkey with sslcert")),
        (format!("sslmode=verify-ca&sslrootcert={root}&sslcrl=/no.crl"), Some("no sslcrl")),
        ("sslmode=verify-full".to_owned(), Some("sslrootcert with sslmode=verify-full")),
        ("ssl=true".to_owned(), Some("sslrootcert with sslmode=verify-full")),
        ("sslmode=require&sslrootcert=system".to_owned(), Some("sslmode=verify-full with")),
        ("sslmode=verify-full&sslrootcert=system".to_owned(), None),
        ("sslrootcert=system".to_owned(), None),
        ("sslmode=disable&sslrootcert=/no/root.crt".to_owned(), None),
        ("sslmode=verify-full&host=/run/postgresql".to_owned(), None),
    ] {
        let host = if parameters.contains("host=") { "" } else { "app:hidden@localhost" };
        let url = format!("postgresql://{host}/db?user=app&{parameters}");
        let mut command = bin();
        command.env("HOME", home.path()).env("DATABASE_URL", &url).args(["config", "check"]);
        let done = command.output().expect("it runs");
        let err = String::from_utf8_lossy(&done.stderr);
        let Some(expected) = expected else {
            assert_eq!(done.status.code(), Some(0), "{url}: {err}");
            continue;
        };
        assert_eq!(done.status.code(), Some(2), "{url}: {err}");
        assert!(err.contains("DATABASE_URL") && err.contains(expected), "{url}: {err}");
        assert!(!err.contains("app:hidden"), "{err}");
    }
}

/// libpq's default files count as if they were named.
#[tokio::test]
async fn certificates_in_the_home_directory_are_found() {
    let Some(server) = Server::start().await else { return };
    let all = &server.certificates;
    all.make(Wanted { name: "root", ..Wanted::ROOT });
    all.make(Wanted { name: "other-root", ..Wanted::ROOT });
    all.make(Wanted { name: "good", ..Wanted::SERVER });
    server.use_certificate(Some(&["good"]), OPEN, "").await;
    let home = all.dir.path();
    std::fs::create_dir(home.join(".postgresql")).expect("ours");
    for (root, expected) in [("root", Tls), ("other-root", Refused)] {
        std::fs::copy(all.path(&format!("{root}.crt")), home.join(".postgresql/root.crt"))
            .expect("ours");
        for mode in ["require", "verify-ca", "verify-full"] {
            let url = server.url("localhost", &format!("sslmode={mode}"));
            let options = DatabaseUrl::parse(&url).expect("valid").with_home(Some(home)).options();
            let found = if options.connect().await.is_ok() { Tls } else { Refused };
            assert_eq!(found, expected, "{root} {mode}");
            if let Some((found, why)) = server.psql(&url) {
                assert_eq!(found, expected, "psql: {root} {mode}: {why}");
            }
        }
    }
}
