//! All metrics, in one place, in a registry of their own: there from the start, with 0.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::Totals;
use crate::auth::Tenant;
use crate::limit::Eviction;
use crate::report::{Dropped, NUMBER_FIELDS};

/// Requests and commits take from a fraction of a millisecond to the 8 s that a report is held.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const REPORTS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0];

/// Label values that are known beforehand, so that they can start at 0.
const INGESTED: [&str; 4] = ["stored", "updated", "duplicate", "stale"];
const FAILED: [&str; 3] = ["DATABASE_ERROR", "OVERLOADED", "INTERNAL_ERROR"];
const REJECTED: [&str; 7] = [
    "INVALID_SCHEMA",
    "UNSUPPORTED_SCHEMA_VERSION",
    "PAYLOAD_TOO_LARGE",
    "UNSUPPORTED_MEDIA_TYPE",
    "INVALID_API_KEY",
    "FORBIDDEN",
    "REQUEST_TIMEOUT",
];
const SET_ASIDE: [&str; 2] = ["locked", "partition"];
const QUERIES: [&str; 13] = [
    "clock",
    "upsert",
    "find_locked",
    "find_partitions",
    "make_functions",
    "sharding",
    "ping",
    "select_session",
    "keep_rejected",
    "make_partition",
    "prune",
    "record",
    "grant_reader",
];
const PRUNED: [&str; 6] = [
    "sessions",
    "timeline_chunks",
    "session_times",
    "rejected_reports",
    "backend_minutes",
    "job_runs",
];
const JOBS: [&str; 4] = ["partitions", "retention", "rollups", "own_dimensions"];

/// One for the process, as the log is.
pub(super) static LOG_LINES_LOST: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Log lines lost because standard error could not be written, or not fast enough";
    IntCounter::new("log_lines_lost_total", help).expect("valid options")
});

/// Handles to all metrics of one running server.
pub struct Metrics {
    registry: Registry,
    http_requests: IntCounterVec,
    http_duration: HistogramVec,
    pool_active: IntGauge,
    pool_idle: IntGauge,
    pool_max: IntGauge,
    db_query: HistogramVec,
    ingested: IntCounterVec,
    failed: IntCounterVec,
    rejected: IntCounterVec,
    rate_limited: IntCounterVec,
    /// Reports waiting for or in a batch.
    pub queue_reports: IntGauge,
    /// Bytes of those reports.
    pub queue_bytes: IntGauge,
    /// Reports whose session is locked, or whose month has no partition: they wait by themselves.
    pub set_aside_reports: IntGauge,
    set_aside: IntCounterVec,
    /// Reports per batch.
    pub batch_reports: Histogram,
    /// From a report's arrival in the queue to its outcome, seconds.
    pub commit_delay: Histogram,
    /// Client connections that are open.
    pub connections: IntGauge,
    /// Age of the oldest report that is not in the rollups yet, seconds.
    pub rollup_lag: Gauge,
    /// The database's clock minus the machine's, seconds.
    pub clock_difference: Gauge,
    connections_evicted: IntCounterVec,
    values_dropped: IntCounterVec,
    timeline_entries_dropped: IntCounterVec,
    job_runs: IntCounterVec,
    job_success: IntGaugeVec,
    pruned_rows: IntCounterVec,
    /// Monthly partitions dropped by retention.
    pub dropped_partitions: IntCounter,
}

impl Metrics {
    /// Registers everything. `tenants` and `routes` (method, template) are those known from
    /// the start.
    #[must_use]
    pub fn new<'a>(
        tenants: impl IntoIterator<Item = &'a Tenant>,
        routes: &[(&'static str, &'static str)],
    ) -> Self {
        let build = Builder(Registry::new());
        let metrics = Self {
            http_requests: build.counters(
                "http_server_requests_total",
                "Requests answered, by method, route template and status",
                &["method", "route", "status"],
            ),
            http_duration: build.histograms(
                "http_server_request_duration_seconds",
                "Time from a request's head to its answer's head",
                &["method", "route"],
            ),
            pool_active: build.gauge("db_connection_pool_active", "Database connections in use"),
            pool_idle: build.gauge("db_connection_pool_idle", "Database connections open and idle"),
            pool_max: build.gauge("db_connection_pool_max", "Database connections allowed"),
            db_query: build.histograms(
                "db_query_duration_seconds",
                "Time of database calls, waiting for locks and round trips included",
                &["query"],
            ),
            ingested: build.counters(
                "sessions_ingested_total",
                "Reports acknowledged, by tenant and what became of them",
                &["tenant", "outcome"],
            ),
            failed: build.counters(
                "sessions_failed_total",
                "Reports answered with 5xx, by error code; SDKs 1.x send them again",
                &["code"],
            ),
            rejected: build.counters(
                "sessions_rejected_total",
                "Reports (or requests with reports) refused with 4xx other than 429, by error code",
                &["code"],
            ),
            rate_limited: build.counters(
                "rate_limited_total",
                "Requests answered with 429, by tenant",
                &["tenant"],
            ),
            values_dropped: build.counters(
                "report_values_dropped_total",
                "Values of stored reports that cannot be and are NULL in their column, by field",
                &["field"],
            ),
            timeline_entries_dropped: build.counters(
                "timeline_entries_dropped_total",
                "Timeline entries not stored, by reason; invalid: it cannot be; thinned: the report \
                 brought more than 2,000; session_full: the session has 50,000, or 8 MiB",
                &["reason"],
            ),
            queue_reports: build.gauge("ingest_queue_reports", "Reports waiting for their commit"),
            set_aside_reports: build.gauge(
                "ingest_set_aside_reports",
                "Waiting reports that are set aside: of a session or partition that another transaction has locked, or of a month without a partition",
            ),
            set_aside: build.counters(
                "ingest_set_aside_total",
                "Reports that were set aside, by reason (locked, partition)",
                &["reason"],
            ),
            rollup_lag: build.keep(Gauge::new(
                "rollup_lag_seconds",
                "Age of the oldest report that is not in the rollups yet, 0 if none",
            )),
            clock_difference: build.keep(Gauge::new(
                "database_clock_difference_seconds",
                "The database's clock minus this machine's: the database's is the one that counts",
            )),
            queue_bytes: build.gauge("ingest_queue_bytes", "Memory of the waiting reports, bytes"),
            batch_reports: build.histogram(
                "ingest_batch_reports",
                "Reports per transaction",
                &REPORTS,
            ),
            commit_delay: build.histogram(
                "ingest_commit_delay_seconds",
                "Time from a report's arrival in the queue to its outcome",
                &SECONDS,
            ),
            connections: build.gauge("http_server_connections", "Client connections open"),
            connections_evicted: build.counters(
                "http_server_connections_evicted_total",
                "Idle client connections that gave way to new ones, by reason; full: every connection \
                 was taken; address: their address had its share",
                &["reason"],
            ),
            job_runs: build.counters(
                "job_runs_total",
                "Runs of background jobs: ok, failed, or skipped because another instance was at it",
                &["job", "result"],
            ),
            job_success: build.gauges(
                "job_last_success_timestamp_seconds",
                "When a background job last succeeded on this instance, Unix seconds",
                &["job"],
            ),
            pruned_rows: build.counters(
                "retention_deleted_rows_total",
                "Rows deleted by retention, partitions that were dropped whole not counted",
                &["table"],
            ),
            dropped_partitions: build.counter(
                "retention_dropped_partitions_total",
                "Monthly partitions dropped by retention",
            ),
            registry: build.0,
        };
        metrics.start_at_zero(tenants, routes);
        metrics
    }

    fn start_at_zero<'a>(
        &self,
        tenants: impl IntoIterator<Item = &'a Tenant>,
        routes: &[(&'static str, &'static str)],
    ) {
        let info = Opts::new("build_info", "Always 1; the labels say what is running")
            .const_label("version", crate::VERSION)
            .const_label("revision", crate::REVISION);
        let info = IntGauge::with_opts(info).expect("valid options");
        info.set(1);
        self.registry.register(Box::new(info)).expect("registered once");
        // Present on Linux only: the collector reads /proc.
        let process = ProcessCollector::for_self();
        self.registry.register(Box::new(process)).expect("registered once");

        self.registry.register(Box::new(LOG_LINES_LOST.clone())).expect("registered once");

        for tenant in tenants {
            for outcome in INGESTED {
                self.ingested.with_label_values(&[tenant.as_str(), outcome]);
            }
            self.rate_limited.with_label_values(&[tenant.as_str()]);
        }
        for code in FAILED {
            self.failed.with_label_values(&[code]);
        }
        for code in REJECTED {
            self.rejected.with_label_values(&[code]);
        }
        for field in NUMBER_FIELDS {
            self.values_dropped.with_label_values(&[field]);
        }
        for reason in ["invalid", "thinned", "session_full"] {
            self.timeline_entries_dropped.with_label_values(&[reason]);
        }
        for reason in SET_ASIDE {
            self.set_aside.with_label_values(&[reason]);
        }
        for reason in Eviction::ALL {
            self.connections_evicted.with_label_values(&[reason.as_str()]);
        }
        for query in QUERIES {
            self.db_query.with_label_values(&[query]);
        }
        for table in PRUNED {
            self.pruned_rows.with_label_values(&[table]);
        }
        for job in JOBS {
            for result in ["ok", "failed", "skipped"] {
                self.job_runs.with_label_values(&[job, result]);
            }
            self.job_success.with_label_values(&[job]);
        }
        for (method, route) in routes {
            self.http_requests.with_label_values(&[method, route, "200"]);
            self.http_duration.with_label_values(&[method, route]);
        }
    }

    /// Counts an answer. `method` and `route` must come from closed lists.
    pub fn http_request(&self, method: &str, route: &str, status: u16, took: Duration) {
        self.http_requests.with_label_values(&[method, route, &status.to_string()]).inc();
        self.http_duration.with_label_values(&[method, route]).observe(took.as_secs_f64());
    }

    /// Counts a connection that gave way.
    pub fn connection_evicted(&self, reason: Eviction) {
        self.connections_evicted.with_label_values(&[reason.as_str()]).inc();
    }

    /// Measures a database call.
    pub fn db_query(&self, query: &'static str, took: Duration) {
        self.db_query.with_label_values(&[query]).observe(took.as_secs_f64());
    }

    /// Counts an acknowledged report.
    pub fn ingested(&self, tenant: &Tenant, outcome: &'static str) {
        self.ingested.with_label_values(&[tenant.as_str(), outcome]).inc();
    }

    /// Counts a report that was answered with 5xx.
    pub fn failed(&self, code: &'static str) {
        self.failed.with_label_values(&[code]).inc();
    }

    /// Counts a report that was refused.
    pub fn rejected(&self, code: &'static str) {
        self.rejected.with_label_values(&[code]).inc();
    }

    /// Counts a request over its limit.
    pub fn rate_limited(&self, tenant: &Tenant) {
        self.rate_limited.with_label_values(&[tenant.as_str()]).inc();
    }

    /// Counts what of a report was not stored.
    pub fn dropped(&self, dropped: &Dropped) {
        for (field, values) in &dropped.values {
            self.values_dropped.with_label_values(&[field]).inc_by((*values).into());
        }
        for (reason, entries) in
            [("invalid", dropped.invalid_entries), ("thinned", dropped.thinned_entries)]
        {
            if entries > 0 {
                self.timeline_entries_dropped(reason, entries.into());
            }
        }
    }

    /// Counts timeline entries that were not stored.
    pub fn timeline_entries_dropped(&self, reason: &'static str, entries: u64) {
        self.timeline_entries_dropped.with_label_values(&[reason]).inc_by(entries);
    }

    /// Counts a report that is set aside.
    pub fn set_aside(&self, reason: &'static str) {
        self.set_aside.with_label_values(&[reason]).inc();
    }

    /// Counts a job's run.
    pub fn job_run(&self, job: &'static str, result: &'static str, now_seconds: i64) {
        self.job_runs.with_label_values(&[job, result]).inc();
        if result == "ok" {
            self.job_success.with_label_values(&[job]).set(now_seconds);
        }
    }

    /// Counts rows that retention deleted.
    pub fn pruned_rows(&self, table: &'static str, rows: u64) {
        self.pruned_rows.with_label_values(&[table]).inc_by(rows);
    }

    /// Everything in Prometheus' text format; `pool` is (active, idle, max).
    #[must_use]
    pub fn render(&self, pool: (u32, u32, u32)) -> String {
        self.pool_active.set(i64::from(pool.0));
        self.pool_idle.set(i64::from(pool.1));
        self.pool_max.set(i64::from(pool.2));
        let mut text = Vec::new();
        let encoded = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        encoded.expect("metrics with names and values encode");
        String::from_utf8(text).expect("the text format is UTF-8")
    }

    /// What all counters say now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals::of(&self.registry.gather())
    }

    /// The content type of [`Metrics::render`].
    pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;
}

/// Registers what it builds. Names and labels are constants, so nothing here can fail.
struct Builder(Registry);

impl Builder {
    fn keep<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        built: prometheus::Result<C>,
    ) -> C {
        let collector = built.expect("valid metric options");
        self.0.register(Box::new(collector.clone())).expect("a name of its own");
        collector
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.keep(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.keep(Histogram::with_opts(opts))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        self.keep(HistogramVec::new(opts, labels))
    }
}
