//! What the benchmark asks Postgres, and how tables are emptied and filled.

use anyhow::{Context as _, Result, ensure};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection};

use super::cluster::Cluster;
use super::sql::{self, Schema};

/// What is counted before and after a measurement.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    /// Write-ahead log, in bytes.
    pub wal_bytes: f64,
    /// Updates of `sessions`.
    pub updates: f64,
    /// Those of them that touched no index.
    pub hot_updates: f64,
    /// Deadlocks in the database.
    pub deadlocks: f64,
}

/// Rows since a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Sessions.
    pub sessions: u64,
    /// Reports applied to them.
    pub reports: u64,
    /// Timeline entries.
    pub entries: u64,
}

/// A database of the cluster.
pub struct Database<'a> {
    cluster: &'a Cluster,
    name: String,
    /// What baselines write to.
    schema: Schema,
    /// Tables that a new database has no rows in; the others hold what servers need.
    empty: Vec<String>,
}

impl<'a> Database<'a> {
    /// A new, empty database.
    pub async fn create(cluster: &'a Cluster, name: String) -> Result<Self> {
        let with = |name| Self { cluster, name, schema: Schema::default(), empty: Vec::new() };
        with("postgres".to_owned()).execute(&format!("CREATE DATABASE {name}")).await?;
        Ok(with(name))
    }

    /// Learns the tables that a server has made, and which of them are empty.
    pub async fn learn(&mut self) -> Result<()> {
        let schema = Schema {
            has_key: !self.texts(sql::SESSION_KEY).await?.is_empty(),
            chunks: self.texts(sql::CHUNKS).await?.pop(),
            times: self.texts(sql::TIMES).await?.pop(),
        };
        let mut empty = Vec::new();
        for table in self.texts(sql::TABLES).await? {
            let [rows] = self.numbers(["count(*)"], &table).await?;
            if rows < 1.0 {
                empty.push(table);
            }
        }
        (self.schema, self.empty) = (schema, empty);
        Ok(())
    }

    /// What baselines write to.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// How to reach it.
    pub fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<PgConnection> {
        let options: PgConnectOptions = self.url().parse()?;
        Ok(options.connect().await?)
    }

    /// Runs statements, each in a transaction of its own.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        let mut connection = self.connect().await?;
        for statement in sql.split(";\n") {
            let run = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
            run.execute(&mut connection).await.with_context(|| statement.to_owned())?;
        }
        Ok(())
    }

    /// The numbers of a query with one row.
    async fn numbers<const N: usize>(&self, columns: [&str; N], from: &str) -> Result<[f64; N]> {
        let columns = columns.join(")::float8, (");
        let sql = format!("SELECT ARRAY[({columns})::float8] FROM {from}");
        let mut connection = self.connect().await?;
        let asked = sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_one(&mut connection);
        let numbers: Vec<f64> = asked.await.with_context(|| sql.clone())?;
        numbers.try_into().ok().context("as many as asked for")
    }

    /// The text of a query with one value.
    pub async fn text(&self, sql: &str) -> Result<String> {
        let mut connection = self.connect().await?;
        let sql = AssertSqlSafe(sql.to_owned());
        Ok(sqlx::query_scalar(sql).fetch_one(&mut connection).await?)
    }

    async fn texts(&self, sql: &str) -> Result<Vec<String>> {
        let mut connection = self.connect().await?;
        let sql = AssertSqlSafe(sql.to_owned());
        Ok(sqlx::query_scalar(sql).fetch_all(&mut connection).await?)
    }

    /// Empties the tables that were empty at first.
    pub async fn empty(&self) -> Result<()> {
        self.execute(&format!("TRUNCATE {}", self.empty.join(", "))).await
    }

    /// Bytes on disk, by table (partitions together) and heap, TOAST, or kind of index.
    pub async fn sizes(&self) -> Result<Vec<(String, f64)>> {
        let mut connection = self.connect().await?;
        Ok(sqlx::query_as(sql::SIZES).fetch_all(&mut connection).await?)
    }

    /// Writes what is dirty, so that no checkpoint falls into the next measurement.
    pub async fn checkpoint(&self) -> Result<()> {
        self.execute("CHECKPOINT").await
    }

    /// The counters, once all other connections have ended and told theirs: Postgres adds
    /// what a connection did to its statistics late, but at its end for certain.
    pub async fn counters(&self) -> Result<Counters> {
        for _ in 0..200 {
            let others = "pg_stat_activity WHERE datname = current_database() \
                          AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
            let [others] = self.numbers(["count(*)"], others).await?;
            if others < 1.0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        self.counters_now().await
    }

    /// The counters as they are.
    pub async fn counters_now(&self) -> Result<Counters> {
        let tables = "pg_stat_user_tables WHERE relid IN (SELECT relid FROM \
                      pg_partition_tree('sessions'))";
        let [wal_bytes, updates, hot_updates, deadlocks] = self
            .numbers(
                [
                    "pg_current_wal_insert_lsn() - '0/0'::pg_lsn",
                    "coalesce(sum(n_tup_upd), 0)",
                    "coalesce(sum(n_tup_hot_upd), 0)",
                    "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
                ],
                tables,
            )
            .await?;
        Ok(Counters { wal_bytes, updates, hot_updates, deadlocks })
    }

    /// What lies at or after a moment.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    pub async fn rows_since(&self, unix_ms: u64) -> Result<Rows> {
        let since = format!("WHERE \"timestamp\" >= to_timestamp({unix_ms} / 1000.0)");
        let entries = format!("SELECT count(*) FROM session_timeline {since}");
        let columns = ["count(*)", "coalesce(sum(report_count), 0)", entries.as_str()];
        let [sessions, reports, entries] =
            self.numbers(columns, &format!("sessions {since}")).await?;
        Ok(Rows { sessions: sessions as u64, reports: reports as u64, entries: entries as u64 })
    }

    /// Fills the tables with sessions: half of them in this month up to now, half in the month
    /// before, at even distances, with random ids. Two connections do it at once.
    pub async fn fill(&self, sessions: u64) -> Result<()> {
        let half = sessions / 2;
        let part = |months: [&str; 2], salt: &str| {
            let [from, to] = months;
            let id = format!("md5('{salt}' || n)::uuid::text");
            let at = format!("{from} + ({to} - {from}) * (n::float8 / {half})");
            let values = sql::values_a(&self.schema, &id, &at);
            format!(
                "INSERT INTO sessions ({}) SELECT {values} FROM generate_series(0, {half} - 1) n",
                sql::columns(&self.schema)
            )
        };
        let this = "date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'";
        let before = format!("({this} - interval '27 days')");
        let (this_month, month_before) =
            (part([this, "now()"], "this"), part([&before, this], "before"));
        tokio::try_join!(self.execute(&this_month), self.execute(&month_before))?;
        if let Some(times) = &self.schema.times {
            self.execute(&format!(
                "INSERT INTO {times} SELECT session_key(tenant_id, session_id), \"timestamp\" \
                 FROM sessions"
            ))
            .await?;
        }
        self.execute("VACUUM (ANALYZE)").await?;
        let [filled] = self.numbers(["count(*)"], "sessions").await?;
        ensure!(filled >= half as f64 * 2.0, "{filled} sessions of {sessions} were filled in");
        Ok(())
    }
}
