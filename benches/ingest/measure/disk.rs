//! What sessions take on disk, as SDKs leave them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use super::{Bench, Subject};
use crate::database::Database;
use crate::progress;
use crate::server::Server;

/// The simulator of this source, whichever server is measured: all get the same reports.
const SIMULATOR: &str = env!("CARGO_BIN_EXE_media3watch");

impl Bench<'_> {
    /// Fills a new database with 60 days of simulated sessions, every report of them, and weighs
    /// its tables.
    pub(super) async fn disk(
        &self,
        subject: &Subject<'_>,
        binary: usize,
    ) -> Result<BTreeMap<String, f64>> {
        let sessions = self.disk_sessions;
        progress(&format!("sending every report of {sessions} sessions"));
        let database = Database::create(self.cluster, format!("bench_disk_{binary}")).await?;
        let log = self.cluster.data().join("bench-server-0.log");
        let server = Server::start(&subject.binary, &database.url(), &log).await?;
        let until = jiff::Timestamp::from_millisecond(i64::try_from(self.disk_until_ms)?)?;
        let run = Command::new(Path::new(SIMULATOR))
            .env_clear()
            .arg("simulate")
            .args(["--url", &format!("http://{}", server.address()), "--key", "dev-key"])
            .args(["--history", "60d", "--sessions", &sessions.to_string()])
            .args(["--until", &until.to_string(), "--seed", "1", "--every-report", "--json"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let run = run.await.context("the simulator does not run")?;
        let complaint = String::from_utf8_lossy(&run.stderr);
        ensure!(run.status.success(), "simulate: {complaint}");
        server.kill().await?;
        let summary: Value = serde_json::from_slice(&run.stdout)?;
        let reports = summary["reports"]["sent"].as_u64().context("no count of reports")?;

        let there = database.rows_since(0).await?;
        ensure!(
            there.sessions == sessions && there.reports == reports,
            "sent were {sessions} sessions in {reports} reports, but there are {there:?}"
        );
        database.execute("VACUUM (ANALYZE)").await?;
        database.checkpoint().await?;
        let mut values = BTreeMap::from([
            ("sessions".to_owned(), sessions as f64),
            ("reports".to_owned(), reports as f64),
            ("entries".to_owned(), there.entries as f64),
            ("fill_seconds".to_owned(), summary["elapsed_s"].as_f64().context("no time")?),
        ]);
        let mut all = 0.0;
        for (part, bytes) in database.sizes().await? {
            all += bytes;
            values.insert(format!("bytes {part}"), bytes / sessions as f64);
        }
        values.insert("bytes_per_session".to_owned(), all / sessions as f64);
        Ok(values)
    }
}
