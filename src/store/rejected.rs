//! Refused bodies, kept for the operator: bounded per tenant, expiring (see `prune`).

use std::time::Duration;

use super::types::PgTime;
use super::{Error, Store};
use crate::auth::Tenant;
use crate::report::{Rejection, UnixMs};

/// The newest of each tenant that are kept: so many, and so many bytes.
const MAX_ROWS: i64 = 10_000;
const MAX_BYTES: i64 = 128 * 1024 * 1024;

const TRIM_TIMEOUT: Duration = Duration::from_secs(5);

/// A body that was rejected with 400, 413 or 415, and why.
#[derive(Debug)]
pub struct RejectedBody {
    /// Tenant of the key that sent it.
    pub tenant: Tenant,
    /// Server clock at receipt.
    pub at: UnixMs,
    /// What the answer said.
    pub rejection: Rejection,
    /// The bytes after decompression, or as sent where that failed.
    pub body: bytes::Bytes,
}

impl Store {
    /// Keeps refused bodies; returns once they are committed, or `limit` is over.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn keep_rejected(
        &self,
        bodies: &[RejectedBody],
        limit: Duration,
    ) -> Result<(), Error> {
        fn column<'a>(
            bodies: &'a [RejectedBody],
            field: impl Fn(&'a RejectedBody) -> &'a str,
        ) -> Vec<&'a str> {
            bodies.iter().map(field).collect()
        }
        let insert = sqlx::query(
            "INSERT INTO rejected_reports (tenant_id, received_at, code, field, detail, body)
             SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::bytea[])",
        )
        .bind(column(bodies, |body| body.tenant.as_str()))
        .bind(bodies.iter().map(|body| PgTime::from(body.at)).collect::<Vec<_>>())
        .bind(column(bodies, |body| body.rejection.code.as_str()))
        .bind(column(bodies, |body| &body.rejection.field))
        .bind(column(bodies, |body| &body.rejection.detail))
        .bind(bodies.iter().map(|body| &body.body[..]).collect::<Vec<_>>());
        self.execute(limit, "keep_rejected", insert).await.map(drop)
    }

    /// Deletes a tenant's oldest refused bodies beyond the bound.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn trim_rejected(&self, tenant: &Tenant) -> Result<u64, Error> {
        let delete = sqlx::query(
            "DELETE FROM rejected_reports WHERE tenant_id = $1 AND id <= (
               SELECT max(id) FROM (
                 SELECT id,
                        row_number() OVER newest_first AS rows,
                        sum(octet_length(body)) OVER newest_first AS bytes
                 FROM rejected_reports WHERE tenant_id = $1
                 WINDOW newest_first AS (ORDER BY id DESC)) AS kept
               WHERE rows > $2 OR bytes > $3)",
        )
        .bind(tenant.as_str())
        .bind(MAX_ROWS)
        .bind(MAX_BYTES);
        self.execute(TRIM_TIMEOUT, "trim_rejected", delete).await
    }
}
