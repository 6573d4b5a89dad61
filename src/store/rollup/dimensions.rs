//! What rollups are broken down by, beside tenant and stream type.

use sqlx::PgConnection;

use crate::store::Error;
use crate::store::own_dimensions::{self, OwnDimension, quote_ident};

/// How a dimension's value is read off `session_qoe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dimension {
    pub(super) name: String,
    /// Its value; null is "not reported".
    pub(super) value: String,
    /// Whether sessions without a value are left out, instead.
    pub(super) only_with_value: bool,
}

/// Name of what has no dimension: all sessions of a tenant and stream type.
pub(super) const TOTALS: &str = "";

/// Name of a failed session's category and code together.
const ERROR: &str = "error";

/// Dimensions that are columns.
const COLUMNS: [&str; 6] =
    ["app_version", "sdk_version", "device_model", "os_version", "connection_type", "content_id"];

/// All dimensions: those that every database has, and those of `DIMENSIONS`.
pub(super) async fn read(connection: &mut PgConnection) -> Result<Vec<Dimension>, Error> {
    let own = own_dimensions::read(connection).await?;
    let own = own.iter().filter(|own| own.is_dimension()).map(|OwnDimension { name, .. }| {
        Dimension { name: name.clone(), value: quote_ident(name), only_with_value: false }
    });
    Ok(built_in().into_iter().chain(own).collect())
}

/// The dimensions that every database has.
pub(super) fn built_in() -> Vec<Dimension> {
    let dimension = |name: &str, value: &str| Dimension {
        name: name.to_owned(),
        value: value.to_owned(),
        only_with_value: name == ERROR,
    };
    let mut all: Vec<_> = COLUMNS.iter().map(|column| dimension(column, column)).collect();
    for (name, column) in
        [("error_category", "last_error_category"), ("error_code", "last_error_code")]
    {
        let value = format!("CASE WHEN failed THEN {column} ELSE 'no error' END");
        all.push(dimension(name, &value));
    }
    all.push(dimension(
        ERROR,
        "CASE WHEN failed
              THEN coalesce(last_error_category, '') || ' ' || coalesce(last_error_code, '') END",
    ));
    all
}
