//! What becomes of a report: exactly one outcome each, for answer, metric and log.

use crate::auth::Tenant;
use crate::report::Rejection;
use crate::store::Applied;
use crate::telemetry::Metrics;

/// What became of one report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Committed: the session's first report.
    Stored,
    /// Committed: replaced an older report.
    Updated,
    /// The same version was stored before.
    Duplicate,
    /// A newer report is stored.
    Stale,
    /// Refused for what it says, and kept for the operator.
    Rejected(Rejection),
    /// Not taken: too many reports are waiting.
    Busy,
    /// Given up: the database stayed away for as long as a report is held.
    Failed,
    /// Given up: the schema, a permission or our code is wrong.
    Bug,
}

impl Outcome {
    /// The name in logs and metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Updated => "updated",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::Rejected(_) => "rejected",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::Bug => "bug",
        }
    }

    /// Whether the report was acknowledged, and not as one that was stored before.
    pub(super) const fn is_news(&self) -> bool {
        matches!(self, Self::Stored | Self::Updated | Self::Stale)
    }

    pub(super) const fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected(_))
    }

    pub(super) fn count(&self, tenant: &Tenant, metrics: &Metrics) {
        match self {
            Self::Stored | Self::Updated | Self::Duplicate | Self::Stale => {
                metrics.ingested(tenant, self.as_str());
            }
            Self::Rejected(rejection) => metrics.rejected(rejection.code.as_str()),
            Self::Busy => metrics.failed("OVERLOADED"),
            Self::Failed => metrics.failed("DATABASE_ERROR"),
            Self::Bug => metrics.failed("INTERNAL_ERROR"),
        }
    }
}

impl From<Applied> for Outcome {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::Stored => Self::Stored,
            Applied::Updated => Self::Updated,
            Applied::Duplicate => Self::Duplicate,
            Applied::Stale => Self::Stale,
        }
    }
}
