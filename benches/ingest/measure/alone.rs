//! Measurements of Postgres without a server.

use anyhow::{Result, ensure};

use super::{BREATH, Bench, Values, What, base_ms};
use crate::baseline;
use crate::database::Database;
use crate::process::Meter;
use crate::reports::Kind;
use crate::sql;

impl Bench<'_> {
    pub(super) async fn baseline(
        &self,
        what: What,
        database: &Database<'_>,
        rate: Option<f64>,
    ) -> Result<Values> {
        let schema = database.schema();
        let mut values = Vec::new();
        if what.is_full() {
            let script = sql::row_script(schema);
            let first =
                baseline::pgbench(self.cluster, database, &script, self.seconds, None).await?;
            values.push(("first_rate", first.count as f64 / first.seconds));
            tokio::time::sleep(BREATH).await;
        }
        let base_ms = base_ms(what);
        let before = database.counters().await?;
        let meter = Meter::start(self.cluster.pid()?, Vec::new())?;
        let done = if what == What::Copy {
            baseline::copy(database, self.seconds).await?
        } else {
            let script = match what.kind() {
                Kind::Mix(entries) => sql::mix_script(schema, base_ms, entries),
                _ => sql::row_script(schema),
            };
            baseline::pgbench(self.cluster, database, &script, self.seconds, rate).await?
        };
        values.extend(meter.read_out()?);
        let after = database.counters().await?;

        let there = database.rows_since(base_ms).await?;
        // pgbench does not count what was under way when the time was up.
        let counted = done.count..=done.count + sql::CLIENTS;
        ensure!(
            counted.contains(&there.reports),
            "the baseline wrote {}, but there are {there:?}",
            done.count
        );
        let (all, updates) = (done.count as f64, after.updates - before.updates);
        values.extend([
            ("rate", all / done.seconds),
            ("reports", all),
            ("seconds", done.seconds),
            ("wal_bytes_per_report", (after.wal_bytes - before.wal_bytes) / all),
            ("deadlocks", after.deadlocks - before.deadlocks),
        ]);
        if let Some(rate) = rate {
            values.push(("wanted_rate", rate));
            values.push(("p50_ms", done.percentile_ms(50.0)));
            values.push(("p99_ms", done.percentile_ms(99.0)));
        }
        if updates > 0.0 {
            values.push(("hot", (after.hot_updates - before.hot_updates) / updates));
            values.push(("updates_per_report", updates / (all - there.sessions as f64)));
        }
        Ok(values)
    }
}
