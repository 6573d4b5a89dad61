//! What the counters say at one moment, and the difference between two such moments.

use std::collections::BTreeMap;

use prometheus::proto::{Bucket, Metric, MetricFamily, MetricType};

/// The routes that take reports.
const INGEST_ROUTES: [&str; 2] = ["/v1/sessions", "/v1/sessions/batch"];

/// All counters at one moment.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Totals {
    requests: u64,
    client_errors: u64,
    server_errors: u64,
    answers: Buckets,
    ingested: BTreeMap<String, u64>,
    limited: u64,
    rejected: BTreeMap<String, u64>,
    failed: BTreeMap<String, u64>,
    values_dropped: BTreeMap<String, u64>,
    entries_dropped: BTreeMap<String, u64>,
    batches: Buckets,
    commits: Buckets,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<i64>,
    queue_reports: i64,
    queue_bytes: i64,
}

/// What happened between two moments, and how things stand at the second one.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Activity {
    /// Requests answered on the routes that take reports.
    pub requests: u64,
    /// Of these, with 4xx.
    pub client_errors: u64,
    /// Of these, with 5xx.
    pub server_errors: u64,
    /// Time to answer them.
    pub answers: Timing,
    /// Reports acknowledged, by outcome: stored, updated, duplicate, stale.
    pub ingested: BTreeMap<String, u64>,
    /// Requests answered with 429.
    pub limited: u64,
    /// Reports refused with 4xx other than 429, by code; codes without any are left out.
    pub rejected: BTreeMap<String, u64>,
    /// Reports answered with 5xx, by code; codes without any are left out.
    pub failed: BTreeMap<String, u64>,
    /// Values of stored reports that were dropped, by field; fields without any are left out.
    pub values_dropped: BTreeMap<String, u64>,
    /// Timeline entries that were dropped, by reason; reasons without any are left out.
    pub entries_dropped: BTreeMap<String, u64>,
    /// Transactions in which reports were written.
    pub batches: u64,
    /// Reports in them.
    pub batch_reports: u64,
    /// Time from a report's arrival in the queue to its outcome.
    pub commits: Timing,
    /// Processor time of the process, where the system tells.
    pub cpu_seconds: Option<f64>,
    /// Resident memory now, where the system tells.
    pub memory_bytes: Option<i64>,
    /// Reports that wait for their commit now.
    pub queue_reports: i64,
    /// Memory of these.
    pub queue_bytes: i64,
}

/// Mean and 95th percentile in milliseconds; `None` where nothing was measured.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Sum / count.
    pub mean_ms: Option<f64>,
    /// Read off the histogram, linear within a bucket.
    pub p95_ms: Option<f64>,
}

impl Totals {
    pub(super) fn of(families: &[MetricFamily]) -> Self {
        let mut totals = Self::default();
        for family in families {
            let name = family.name();
            for metric in family.get_metric() {
                totals.add(name, family.get_field_type(), metric);
            }
        }
        totals
    }

    fn add(&mut self, family: &str, kind: MetricType, metric: &Metric) {
        let value = match kind {
            MetricType::COUNTER => metric.get_counter().get_value(),
            MetricType::GAUGE => metric.get_gauge().get_value(),
            _ => 0.0,
        };
        #[expect(clippy::cast_possible_truncation, reason = "counts, far below 2^53")]
        #[expect(clippy::cast_sign_loss, reason = "counters do not go below 0")]
        let (count, level) = (value as u64, value as i64);
        let is_ingest = || INGEST_ROUTES.contains(&label(metric, "route"));
        match family {
            "http_server_requests_total" if is_ingest() => {
                self.requests += count;
                match label(metric, "status").as_bytes().first() {
                    Some(b'4') => self.client_errors += count,
                    Some(b'5') => self.server_errors += count,
                    _ => {}
                }
            }
            "http_server_request_duration_seconds" if is_ingest() => self.answers.add(metric),
            "sessions_ingested_total" => add(&mut self.ingested, label(metric, "outcome"), count),
            "rate_limited_total" => self.limited += count,
            "sessions_rejected_total" => add(&mut self.rejected, label(metric, "code"), count),
            "sessions_failed_total" => add(&mut self.failed, label(metric, "code"), count),
            "report_values_dropped_total" => {
                add(&mut self.values_dropped, label(metric, "field"), count);
            }
            "timeline_entries_dropped_total" => {
                add(&mut self.entries_dropped, label(metric, "reason"), count);
            }
            "ingest_batch_reports" => self.batches.add(metric),
            "ingest_commit_delay_seconds" => self.commits.add(metric),
            "process_cpu_seconds_total" => self.cpu_seconds = Some(value),
            "process_resident_memory_bytes" => self.memory_bytes = Some(level),
            "ingest_queue_reports" => self.queue_reports = level,
            "ingest_queue_bytes" => self.queue_bytes = level,
            _ => {}
        }
    }

    /// What happened since `earlier`, which must be of the same server.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Activity {
        let batches = self.batches.since(&earlier.batches);
        #[expect(clippy::cast_possible_truncation, reason = "a sum of whole numbers")]
        #[expect(clippy::cast_sign_loss, reason = "batches have no negative size")]
        let batch_reports = batches.sum.round() as u64;
        Activity {
            requests: self.requests.saturating_sub(earlier.requests),
            client_errors: self.client_errors.saturating_sub(earlier.client_errors),
            server_errors: self.server_errors.saturating_sub(earlier.server_errors),
            answers: self.answers.since(&earlier.answers).timing(),
            ingested: since(&self.ingested, &earlier.ingested),
            limited: self.limited.saturating_sub(earlier.limited),
            rejected: since(&self.rejected, &earlier.rejected),
            failed: since(&self.failed, &earlier.failed),
            values_dropped: since(&self.values_dropped, &earlier.values_dropped),
            entries_dropped: since(&self.entries_dropped, &earlier.entries_dropped),
            batches: batches.count,
            batch_reports,
            commits: self.commits.since(&earlier.commits).timing(),
            cpu_seconds: self.cpu_seconds.map(|now| now - earlier.cpu_seconds.unwrap_or(0.0)),
            memory_bytes: self.memory_bytes,
            queue_reports: self.queue_reports,
            queue_bytes: self.queue_bytes,
        }
    }
}

/// A histogram: cumulative counts by upper bound.
#[derive(Debug, Default, Clone, PartialEq)]
struct Buckets {
    upper: Vec<f64>,
    cumulative: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Buckets {
    fn add(&mut self, metric: &Metric) {
        let histogram = metric.get_histogram();
        let buckets = histogram.get_bucket();
        if self.upper.is_empty() {
            self.upper = buckets.iter().map(Bucket::upper_bound).collect();
            self.cumulative = vec![0; buckets.len()];
        }
        for (sum, bucket) in self.cumulative.iter_mut().zip(buckets) {
            *sum += bucket.cumulative_count();
        }
        self.count += histogram.get_sample_count();
        self.sum += histogram.get_sample_sum();
    }

    fn since(&self, earlier: &Self) -> Self {
        let before = earlier.cumulative.iter().copied().chain(std::iter::repeat(0));
        Self {
            upper: self.upper.clone(),
            cumulative: self
                .cumulative
                .iter()
                .zip(before)
                .map(|(now, then)| now.saturating_sub(then))
                .collect(),
            count: self.count.saturating_sub(earlier.count),
            sum: self.sum - earlier.sum,
        }
    }

    fn timing(&self) -> Timing {
        if self.count == 0 {
            return Timing::default();
        }
        let mean_ms = Some(self.sum / self.count as f64 * 1_000.0);
        Timing { mean_ms, p95_ms: self.quantile(0.95).map(|seconds| seconds * 1_000.0) }
    }

    /// As Prometheus' `histogram_quantile`: linear within the bucket, and the highest bound for
    /// what lies beyond it.
    fn quantile(&self, q: f64) -> Option<f64> {
        let rank = q * self.count as f64;
        let (mut below, mut lower) = (0, 0.0);
        for (&upper, &cumulative) in self.upper.iter().zip(&self.cumulative) {
            if cumulative as f64 >= rank {
                let inside = (cumulative - below) as f64;
                let share = if inside > 0.0 { (rank - below as f64) / inside } else { 0.0 };
                return Some(lower + (upper - lower) * share);
            }
            (below, lower) = (cumulative, upper);
        }
        self.upper.last().copied()
    }
}

fn label<'a>(metric: &'a Metric, name: &str) -> &'a str {
    let found = metric.get_label().iter().find(|label| label.name() == name);
    found.map_or("", |label| label.value())
}

fn add(counts: &mut BTreeMap<String, u64>, key: &str, count: u64) {
    *counts.entry(key.to_owned()).or_default() += count;
}

fn since(now: &BTreeMap<String, u64>, earlier: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut counts = now.clone();
    for (key, count) in &mut counts {
        *count = count.saturating_sub(earlier.get(key).copied().unwrap_or(0));
    }
    counts.retain(|_, count| *count > 0);
    counts
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::Tenant;
    use crate::telemetry::Metrics;

    #[test]
    fn the_difference_of_two_moments_is_what_happened_between_them() {
        let tenant = Tenant::new("default");
        let metrics = Metrics::new([&tenant], &[]);
        metrics.ingested(&tenant, "stored");
        metrics.http_request("POST", "/v1/sessions", 200, Duration::from_millis(700));
        let before = metrics.totals();
        for _ in 0..19 {
            metrics.ingested(&tenant, "updated");
            metrics.http_request("POST", "/v1/sessions", 200, Duration::from_millis(2));
        }
        metrics.rejected("INVALID_SCHEMA");
        metrics.http_request("POST", "/v1/sessions", 400, Duration::from_millis(2));
        metrics.http_request("GET", "/health", 503, Duration::from_secs(3));
        metrics.batch_reports.observe(19.0);
        let activity = metrics.totals().since(&before);
        assert_eq!((activity.requests, activity.client_errors, activity.server_errors), (20, 1, 0));
        assert_eq!(activity.ingested, BTreeMap::from([("updated".to_owned(), 19)]));
        assert_eq!(activity.rejected, BTreeMap::from([("INVALID_SCHEMA".to_owned(), 1)]));
        assert_eq!((activity.batches, activity.batch_reports), (1, 19));
        assert_eq!(activity.commits, Timing::default());
        let mean_ms = activity.answers.mean_ms.expect("measured");
        assert!((mean_ms - 2.0).abs() < 1e-6, "{mean_ms}");
        // All lie between 1 and 2.5 ms, and 95 % of that way is assumed.
        let p95_ms = activity.answers.p95_ms.expect("measured");
        assert!((p95_ms - 2.425).abs() < 1e-6, "{p95_ms}");
    }

    #[test]
    fn quantiles_beyond_the_last_bound_are_that_bound() {
        let buckets =
            Buckets { upper: vec![1.0, 2.0], cumulative: vec![0, 1], count: 10, sum: 50.0 };
        assert_eq!(buckets.quantile(0.95), Some(2.0));
        assert_eq!(buckets.quantile(0.05), Some(1.5));
    }
}
