//! A database with a month of simulated sessions and an incident, and an empty one; both are read
//! as Grafana reads them, with the role that the server makes.

use std::process::Stdio;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::rollups::settle;
use crate::support::{Database, Server, ServerOptions, bin, now_ms};

/// What Grafana would see.
#[derive(Debug, Clone)]
pub struct Seen {
    pub options: PgConnectOptions,
    /// When it was filled.
    pub now_ms: i64,
}

impl Seen {
    /// Connections as Grafana has them, for the runtime of one test.
    pub fn pool(&self) -> PgPool {
        PgPoolOptions::new().max_connections(6).connect_lazy_with(self.options.clone())
    }
}

/// Ten minutes of a backend's life for every hour of a week, and two instances at the end: what
/// a server that has just started cannot have written.
const MINUTES: &str = r#"
INSERT INTO backend_minutes
SELECT 'backend-' || instance || ':8080', t, '0.1.0', date_trunc('day', t), 60, 600, 6, 1, 4, 9, 500, 60, 6, 3, 2,
       '{"INVALID_SCHEMA": 3, "INVALID_API_KEY": 1}', '{"DATABASE_ERROR": 1}', 50, 569, 3, 8, 2, 4096, 3, 5, 20,
       90000000, 1.5, 1000000000 + (extract(epoch FROM t - now()) * 1000)::bigint
FROM generate_series(now() - interval '7 days', now() - interval '2 minutes', interval '6 minutes') AS t,
     generate_series(1, 2) AS instance;
INSERT INTO job_runs (job, instance, started_at, finished_at, result, detail)
SELECT 'retention', 'backend-1:8080', now() - n * interval '1 minute',
       now() - n * interval '1 minute' + interval '250 milliseconds', 'ok', '3 sessions deleted'
FROM generate_series(1, 2000, 20) AS n"#;

async fn simulate(server: &Server, arguments: &[&str]) {
    let mut command = Command::from(bin());
    command.args(["simulate", "--url", &server.url(""), "--json", "--seed", "11"]).args(arguments);
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().await;
    let output = output.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn open(role: &str) -> (Server, Seen) {
    let database = Database::new().await;
    let env = vec![
        ("GRAFANA_DB_USER", role.to_owned()),
        ("GRAFANA_DB_PASSWORD", "for reading".to_owned()),
    ];
    let server = Server::with(ServerOptions { env, ..ServerOptions::default() }, &database).await;
    (server, Seen { options: database.options().username(role), now_ms: now_ms() })
}

/// Four thousand sessions of 30 days and six hundred of the last six hours, half of these in an
/// incident; live ones with timelines; refusals. Filled once for all tests.
pub async fn filled() -> &'static Seen {
    static FILLED: OnceCell<Seen> = OnceCell::const_new();
    let fill = async || {
        let (server, seen) = open("grafana_filled").await;
        simulate(&server, &["--history", "30d", "--sessions", "4000"]).await;
        let incident = ["--history", "6h", "--sessions", "600", "--incident", "error-spike"];
        simulate(&server, &incident).await;
        simulate(&server, &["--viewers", "12", "--for", "3s"]).await;
        for body in [r#"{"sessionId":"refused"}"#, r#"{"sessionId":"","timestamp":1}"#, "{"] {
            assert_eq!(server.post(body).await.status, 400);
        }
        let odd = r#"{"sessionId":"odd","timestamp":1,"rebufferRatio":1.5}"#;
        assert_eq!(server.post(odd).await.status, 200);
        server.database.execute(MINUTES).await;
        settle(&server.app).await;
        server.database.execute("ANALYZE").await;
        server.stop().await;
        Seen { now_ms: now_ms(), ..seen }
    };
    FILLED.get_or_init(fill).await
}

/// A database in which nothing has happened but the server's first start.
pub async fn empty() -> Seen {
    let (server, seen) = open("grafana_empty").await;
    let database = server.database.clone();
    server.stop().await;
    database.execute("TRUNCATE backend_minutes, job_runs").await;
    seen
}
