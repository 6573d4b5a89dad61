//! Numbers: a wrong type is the programmer's mistake and refused, a value that cannot be is the
//! player's and dropped.

use super::dropped::Dropped;
use super::rejection::Rejection;
use super::wire::Value;

/// What players say for "unknown".
const UNKNOWN: i128 = -1;
/// 31 days in milliseconds: nothing is watched for longer in one session.
const MAX_DURATION_MS: i128 = 31 * 24 * 3_600_000;
/// Largest integer that survives a double, and small enough that sums of a few columns
/// cannot overflow bigint in anyone's SQL.
const MAX_LARGE: i128 = 9_007_199_254_740_991;
const MAX_COUNT: i128 = i32::MAX as i128;
/// How far a ratio may be outside of 0 to 1 and still be taken for a bound: players divide
/// durations that were measured one after the other.
const RATIO_TOLERANCE: f64 = 0.001;

/// The whole number under a key of the report; `1850.0` is one. What is beyond all columns is
/// saturated.
pub(super) fn whole(field: &str, value: &Value<'_>) -> Result<Option<i128>, Rejection> {
    match *value {
        Value::Unset => Ok(None),
        Value::Int(number) => Ok(Some(number.into())),
        #[expect(clippy::cast_possible_truncation, reason = "integral, and saturating")]
        Value::Float(number) if number.fract() == 0.0 => Ok(Some(number as i128)),
        Value::Float(_) => Err(Rejection::invalid(path(field), "expected a whole number")),
        ref other => Err(wrong_type(field, "a number", other.kind())),
    }
}

pub(super) fn wrong_type(field: &str, expected: &str, found: &str) -> Rejection {
    Rejection::invalid(path(field), format!("expected {expected}, found {found}"))
}

/// The JSON path of a key, for messages.
pub(super) fn path(field: &str) -> String {
    format!("$.{field}")
}

/// What is left of an optional number: nothing of one that is unknown, and nothing of one that
/// cannot be, which is counted.
impl Dropped {
    /// A duration in milliseconds.
    pub(super) fn duration(&mut self, field: Field, value: &Value<'_>) -> Number<i64> {
        let number = whole(field, value)?;
        Ok(self.within(field, number, MAX_DURATION_MS).map(small))
    }

    /// A large total.
    pub(super) fn large(&mut self, field: Field, value: &Value<'_>) -> Number<i64> {
        let number = whole(field, value)?;
        Ok(self.within(field, number, MAX_LARGE).map(small))
    }

    /// A count.
    pub(super) fn count(&mut self, field: Field, value: &Value<'_>) -> Number<i32> {
        let number = whole(field, value)?;
        Ok(self.within(field, number, MAX_COUNT).map(small))
    }

    /// Bits per second, as kilobits.
    pub(super) fn kilobits(&mut self, field: Field, value: &Value<'_>) -> Number<i32> {
        let number = whole(field, value)?;
        Ok(self.within(field, number, MAX_COUNT * 1000).map(|bits| small(bits / 1000)))
    }

    /// A number from 0 to 1.
    pub(super) fn ratio(&mut self, field: Field, value: &Value<'_>) -> Number<f32> {
        let number = match *value {
            Value::Unset => return Ok(None),
            Value::Int(number) => number as f64,
            Value::Float(number) => number,
            ref other => return Err(wrong_type(field, "a number", other.kind())),
        };
        #[expect(clippy::float_cmp, reason = "-1.0 is exact")]
        if number == UNKNOWN as f64 {
            return Ok(None);
        }
        if !(-RATIO_TOLERANCE..=1.0 + RATIO_TOLERANCE).contains(&number) {
            self.value(field);
            return Ok(None);
        }
        #[expect(clippy::cast_possible_truncation, reason = "the column is real")]
        let number = number.clamp(0.0, 1.0) as f32;
        // Below the smallest real Postgres reports an underflow; it means 0 here. So does -0.
        let is_nothing = number == 0.0 || number.is_subnormal();
        Ok(Some(if is_nothing { 0.0 } else { number }))
    }

    fn within(&mut self, field: Field, number: Option<i128>, max: i128) -> Option<i128> {
        match number {
            None | Some(UNKNOWN) => None,
            Some(number) if (0..=max).contains(&number) => Some(number),
            Some(_) => {
                self.value(field);
                None
            }
        }
    }
}

/// One of [`super::NUMBER_FIELDS`].
type Field = &'static str;
type Number<T> = Result<Option<T>, Rejection>;

fn small<T: TryFrom<i128, Error: std::fmt::Debug>>(number: i128) -> T {
    T::try_from(number).expect("within the bounds of its column")
}

/// Whether a running total cannot be; unknown is possible.
pub(super) fn is_negative(field: &str, value: &Value<'_>) -> Result<bool, Rejection> {
    Ok(whole(field, value)?.is_some_and(|number| number < UNKNOWN))
}

/// A duration that must be there and be possible.
pub(super) fn required_duration(field: &str, value: &Value<'_>) -> Number<i64> {
    let possible = |number: &i128| (0..=MAX_DURATION_MS).contains(number);
    Ok(whole(field, value)?.filter(possible).map(small))
}

/// A moment after 1970 in milliseconds that must be there and be possible.
pub(super) fn required_time(field: &str, value: &Value<'_>) -> Number<i64> {
    let possible = |number: &i128| (1..=i64::MAX.into()).contains(number);
    Ok(whole(field, value)?.filter(possible).map(small))
}
