//! What we bind that sqlx has no type for: times as plain integers, JSON as text.

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Postgres, Type};

use crate::report::UnixMs;

/// A `timestamptz` as Postgres holds it: microseconds since 2000-01-01T00:00:00Z.
///
/// Calendar types of date libraries end at the year 9999; device clocks do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PgTime(i64);

const EPOCH_2000_MS: i64 = 946_684_800_000;
/// 4713 BC and the last microsecond of the year 294276: the range of `timestamptz`.
const MIN_MICROS: i64 = -211_813_488_000_000_000;
const MAX_MICROS: i64 = 9_223_371_331_199_999_999;

impl From<UnixMs> for PgTime {
    fn from(time: UnixMs) -> Self {
        let micros = time.0.saturating_sub(EPOCH_2000_MS).saturating_mul(1000);
        Self(micros.clamp(MIN_MICROS, MAX_MICROS))
    }
}

impl From<PgTime> for UnixMs {
    fn from(time: PgTime) -> Self {
        Self(time.0.div_euclid(1000).saturating_add(EPOCH_2000_MS))
    }
}

impl PgTime {
    /// The time so many microseconds after 2000-01-01T00:00:00Z.
    pub(super) const fn of_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Whether it is `-infinity`.
    pub(super) const fn is_earliest(self) -> bool {
        self.0 == i64::MIN
    }

    /// Microseconds since 2000-01-01T00:00:00Z.
    pub(super) const fn micros(self) -> i64 {
        self.0
    }

    /// The binary format of Postgres.
    pub(super) const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl Type<Postgres> for PgTime {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        ty.oid() == Some(Oid(1184))
    }
}

impl PgHasArrayType for PgTime {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, Postgres> for PgTime {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buf.extend_from_slice(&self.to_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for PgTime {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self(i64::from_be_bytes(value.as_bytes()?.try_into()?)))
    }
}

/// JSON text, stored as it is.
pub(super) struct Json<'a>(pub(super) &'a str);

impl Type<Postgres> for Json<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(114))
    }
}

impl PgHasArrayType for Json<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(199))
    }
}

impl Encode<'_, Postgres> for Json<'_> {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buf.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_clamped_to_what_postgres_holds() {
        assert_eq!(PgTime::from(UnixMs(EPOCH_2000_MS)), PgTime(0));
        assert_eq!(PgTime::from(UnixMs(i64::MAX)), PgTime(MAX_MICROS));
        assert_eq!(PgTime::from(UnixMs(i64::MIN)), PgTime(MIN_MICROS));
        assert_eq!(UnixMs::from(PgTime::from(UnixMs(1))), UnixMs(1));
    }
}
