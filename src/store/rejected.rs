//! Rejected bodies, kept for the operator: bounded, and expiring (see `prune`).

use std::time::Duration;

use super::types::PgTime;
use super::{Error, Store};
use crate::auth::Tenant;
use crate::report::{Rejection, UnixMs};

/// The newest that are kept, in all: so many, and so many bytes.
const MAX_ROWS: i64 = 10_000;
const MAX_BYTES: i64 = 128 * 1024 * 1024;
/// What is left once one of them is exceeded, in percent: deleting costs more than adding, so it is
/// done rarely.
const TRIMMED_TO: i64 = 95;

/// One instance at a time adds, so that what it counts is what there is.
const LOCK: &str = "SET LOCAL lock_timeout = '2s'; LOCK TABLE rejected_lock IN EXCLUSIVE MODE";

/// Deletes the oldest bodies of those tenants that have the most, until `$1` rows and `$2` bytes are
/// left. A tenant's share is measured in both: a row counts as much as `$2 / $1` bytes. The
/// tenant's newest body costs the least, then its second newest, and so on; what costs the most
/// goes.
const TRIM: &str = "
    DELETE FROM rejected_reports WHERE id IN (
      SELECT id FROM (
        SELECT id,
               row_number() OVER cheapest_first AS rows,
               sum(bytes) OVER cheapest_first AS bytes
        FROM (
          SELECT id, octet_length(body) AS bytes,
                 sum(octet_length(body) + $2 / $1) OVER (PARTITION BY tenant_id ORDER BY id DESC) AS cost
          FROM rejected_reports) AS costs
        WINDOW cheapest_first AS (ORDER BY cost, id DESC)) AS kept
      WHERE rows > $1 OR bytes > $2)";

/// A body that was rejected with 400, 413 or 415, and why.
#[derive(Debug)]
pub struct RejectedBody {
    /// Tenant of the key that sent it.
    pub tenant: Tenant,
    /// Database clock at receipt.
    pub at: UnixMs,
    /// What the response said.
    pub rejection: Rejection,
    /// The bytes after decompression, or as sent where that failed.
    pub body: bytes::Bytes,
}

impl Store {
    /// Keeps rejected bodies, and deletes older ones beyond the bound; returns once that is
    /// committed, or `limit` is over.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn keep_rejected(
        &self,
        bodies: &[&RejectedBody],
        limit: Duration,
    ) -> Result<(), Error> {
        let column = |field: fn(&RejectedBody) -> &str| -> Vec<&str> {
            bodies.iter().map(|body| field(body)).collect()
        };
        let keep = async {
            let mut lease = self.pool.take().await?;
            lease.begin(LOCK).await?;
            sqlx::query(
                "INSERT INTO rejected_reports (tenant_id, received_at, code, field, detail, body)
                 SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::bytea[])",
            )
            .bind(column(|body| body.tenant.as_str()))
            .bind(bodies.iter().map(|body| PgTime::from(body.at)).collect::<Vec<_>>())
            .bind(column(|body| body.rejection.code.as_str()))
            .bind(column(|body| &body.rejection.field))
            .bind(column(|body| &body.rejection.detail))
            .bind(bodies.iter().map(|body| &body.body[..]).collect::<Vec<_>>())
            .execute(&mut *lease)
            .await?;
            let (rows, bytes): (i64, i64) = sqlx::query_as(
                "SELECT count(*), coalesce(sum(octet_length(body)), 0) FROM rejected_reports",
            )
            .fetch_one(&mut *lease)
            .await?;
            if rows > MAX_ROWS || bytes > MAX_BYTES {
                sqlx::query(TRIM)
                    .bind(MAX_ROWS * TRIMMED_TO / 100)
                    .bind(MAX_BYTES * TRIMMED_TO / 100)
                    .execute(&mut *lease)
                    .await?;
            }
            lease.commit().await?;
            lease.finish();
            Ok(())
        };
        self.within(limit, "keep_rejected", keep).await
    }
}
