//! Single values in Postgres' binary format: parameters, fields of a composite, values of `COPY`.

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo};
use sqlx::{Arguments as _, Postgres, Type};
use uuid::Uuid;

use crate::report::ColumnValue;
use crate::store::Error;
use crate::store::types::PgTime;

/// A value on its way to Postgres.
pub(super) enum Cell<'a> {
    Key(Uuid),
    Time(PgTime),
    /// JSON text, sent as `jsonb` without being parsed and printed again.
    Jsonb(&'a str),
    /// JSON text, stored as it is.
    Json(&'a str),
    Value(ColumnValue<'a>),
}

impl Cell<'_> {
    /// Its type's OID in every Postgres.
    const fn oid(&self) -> Oid {
        Oid(match self {
            Self::Key(_) => 2950,
            Self::Time(_) => 1184,
            Self::Jsonb(_) => 3802,
            Self::Json(_) => 114,
            Self::Value(ColumnValue::BigInt(_)) => 20,
            Self::Value(ColumnValue::Integer(_)) => 23,
            Self::Value(ColumnValue::Real(_)) => 700,
            Self::Value(ColumnValue::Text(_)) => 25,
        })
    }

    /// Appends it in Postgres' binary format, unless it is null: `false`.
    pub(super) fn put(&self, out: &mut Vec<u8>) -> bool {
        fn put(out: &mut Vec<u8>, bytes: Option<impl AsRef<[u8]>>) -> bool {
            let Some(bytes) = bytes else { return false };
            out.extend_from_slice(bytes.as_ref());
            true
        }
        match *self {
            Self::Key(key) => put(out, Some(key.as_bytes())),
            Self::Time(time) => put(out, Some(time.to_bytes())),
            Self::Jsonb(text) => {
                // The version of the format comes first.
                out.push(1);
                put(out, Some(text))
            }
            Self::Json(text) => put(out, Some(text)),
            Self::Value(ColumnValue::BigInt(value)) => put(out, value.map(i64::to_be_bytes)),
            Self::Value(ColumnValue::Integer(value)) => put(out, value.map(i32::to_be_bytes)),
            Self::Value(ColumnValue::Real(value)) => put(out, value.map(f32::to_be_bytes)),
            Self::Value(ColumnValue::Text(value)) => put(out, value),
        }
    }
}

impl Type<Postgres> for Cell<'_> {
    /// Never asked for: each value says its own.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("unknown")
    }
}

impl Encode<'_, Postgres> for Cell<'_> {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(if self.put(buf) { IsNull::No } else { IsNull::Yes })
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(self.oid()))
    }
}

/// Adds values as parameters of a statement.
pub(super) fn bind<'a>(
    arguments: &mut PgArguments,
    cells: impl IntoIterator<Item = Cell<'a>>,
) -> Result<(), Error> {
    for cell in cells {
        arguments.add(cell).map_err(sqlx::Error::Encode)?;
    }
    Ok(())
}
