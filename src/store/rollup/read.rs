//! Reading sessions, narrow and fast: `COPY` in its binary format, taken apart here.

use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use super::dimensions::{self, Dimension};
use super::measures::{LN_GAMMA, MEASURES, Term};
use super::sums::{Micros, Session};
use crate::store::Error;

/// Columns before the dimensions.
const HEAD: [&str; 7] = [
    "tenant_id",
    "stream_type",
    "\"timestamp\"",
    // When a session that has only begun counts as left.
    "CASE WHEN NOT played AND NOT failed AND NOT exited_before_start
          THEN received_at + interval '1 minute' END",
    "{startup_bin}",
    // Rounded up, in whole numbers.
    "((100 * rebuffer_time_ms + watched_ms - 1) / nullif(watched_ms, 0))::smallint",
    "{delay_bin}",
];

/// How sessions are read: the statement, and where in its rows things are.
pub(super) struct Source {
    select: String,
    columns: usize,
    pub(super) dimensions: Vec<Dimension>,
    terms: Vec<Place>,
    watched: usize,
}

/// Where a measure's value is.
enum Place {
    Condition(usize),
    Value(usize),
    Product(usize, usize),
}

/// The bin of a value that is at least 0, as SQL.
fn bin(value: &str) -> String {
    format!("ceil(ln(greatest({value}, 1)::float8) / {LN_GAMMA})")
}

/// The bin of a session's startup time, as SQL over `session_qoe`.
pub(super) fn startup_bin() -> String {
    // `greatest` passes over a null.
    format!(
        "(CASE WHEN player_startup_ms IS NOT NULL THEN {} END)::smallint",
        bin("player_startup_ms")
    )
}

/// From the device's clock to receipt, milliseconds.
pub(super) const DELAY: &str = "(date_part('epoch', received_at - reported_at) * 1000)";

/// The bin of a value of either sign, as SQL.
pub(super) fn signed_bin(value: &str) -> String {
    format!("(sign({value}) * {})::smallint", bin(&format!("abs({value})")))
}

impl Source {
    /// By all dimensions that there are now.
    pub(super) async fn read_dimensions(connection: &mut PgConnection) -> Result<Self, Error> {
        Ok(Self::new(dimensions::read(connection).await?))
    }

    fn new(dimensions: Vec<Dimension>) -> Self {
        let head = HEAD.iter().map(|column| {
            column
                .replace("{startup_bin}", &startup_bin())
                .replace("{delay_bin}", &signed_bin(DELAY))
        });
        let values = dimensions.iter().map(|dimension| dimension.value.clone());
        let mut columns: Vec<String> = head.chain(values).collect();
        let mut place_of = |expression: &str, cast: &str| {
            let column = format!("({expression}){cast}");
            columns.iter().position(|other| *other == column).unwrap_or_else(|| {
                columns.push(column);
                columns.len() - 1
            })
        };
        let watched = place_of("watched_ms", "::bigint");
        let terms = MEASURES
            .iter()
            .map(|measure| match measure.term {
                Term::Count(condition) => Place::Condition(place_of(condition, "")),
                Term::Sum(value) => Place::Value(place_of(value, "::bigint")),
                Term::Product(a, b) => {
                    Place::Product(place_of(a, "::bigint"), place_of(b, "::bigint"))
                }
            })
            .collect();
        let select = format!("SELECT {} FROM session_qoe", columns.join(", "));
        Self { select, columns: columns.len(), dimensions, terms, watched }
    }

    /// Reads the sessions that meet a condition, one after the other, each with the values of its
    /// dimensions.
    pub(super) async fn read(
        &self,
        connection: &mut PgConnection,
        condition: &str,
        mut each: impl FnMut(&Session<'_>, &[Option<&[u8]>]),
    ) -> Result<(), Error> {
        let copy = format!("COPY ({} WHERE {condition}) TO STDOUT (FORMAT binary)", self.select);
        let mut chunks = connection.copy_out_raw(&copy).await?;
        let mut tuples = Tuples::default();
        while let Some(chunk) = chunks.try_next().await? {
            tuples.push(&chunk)?;
            let mut rest = tuples.complete();
            let mut fields = Vec::with_capacity(self.columns);
            while let Some(tuple) = next_tuple(&mut rest) {
                take_apart(tuple, &mut fields)?;
                let session = self.session(&fields).ok_or_else(malformed)?;
                each(&session, &fields[HEAD.len()..HEAD.len() + self.dimensions.len()]);
            }
            let used = tuples.complete().len() - rest.len();
            tuples.consume(used);
        }
        Ok(())
    }

    fn session<'a>(&self, fields: &[Option<&'a [u8]>]) -> Option<Session<'a>> {
        let measure = |place: &Place| match *place {
            Place::Condition(column) => i128::from(fields[column] == Some(&[1])),
            Place::Value(column) => integer(fields[column]).unwrap_or(0).into(),
            Place::Product(a, b) => {
                i128::from(integer(fields[a]).unwrap_or(0))
                    * i128::from(integer(fields[b]).unwrap_or(0))
            }
        };
        let mut measures = [0; MEASURES.len()];
        for (value, place) in measures.iter_mut().zip(&self.terms) {
            *value = measure(place);
        }
        let bin = |column: usize| integer(fields[column]).and_then(|bin| i16::try_from(bin).ok());
        Some(Session {
            tenant: text(fields[0]?)?,
            stream_type: match fields[1] {
                Some(bytes) => Some(text(bytes)?),
                None => None,
            },
            at: integer(fields[2])?,
            leaves_at: integer(fields[3]),
            measures,
            watched_ms: integer(fields[self.watched]).unwrap_or(0),
            startup_bin: bin(4),
            rebuffering_bin: bin(5),
            delay_bin: bin(6),
        })
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// An integer of any width, or a time.
fn integer(field: Option<&[u8]>) -> Option<Micros> {
    let field = field?;
    match field.len() {
        2 => field.try_into().ok().map(|bytes| i16::from_be_bytes(bytes).into()),
        4 => field.try_into().ok().map(|bytes| i32::from_be_bytes(bytes).into()),
        _ => field.try_into().ok().map(i64::from_be_bytes),
    }
}

fn malformed() -> Error {
    Error::transient("a row of a COPY could not be read")
}

/// Signature, flags, and length of the extension, which is empty.
const COPY_HEADER: usize = 19;

/// The bytes of a `COPY`, as they arrive.
#[derive(Default)]
struct Tuples {
    bytes: Vec<u8>,
    after_header: bool,
}

impl Tuples {
    fn push(&mut self, chunk: &[u8]) -> Result<(), Error> {
        self.bytes.extend_from_slice(chunk);
        if !self.after_header && self.bytes.len() >= COPY_HEADER {
            if !self.bytes.starts_with(b"PGCOPY\n\xff\r\n\0") {
                return Err(malformed());
            }
            self.bytes.drain(..COPY_HEADER);
            self.after_header = true;
        }
        Ok(())
    }

    fn complete(&self) -> &[u8] {
        if self.after_header { &self.bytes } else { &[] }
    }

    fn consume(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
    }
}

/// The next whole row, without its count of fields; none at the end, or where more has to arrive.
fn next_tuple<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (count, fields) = rest.split_first_chunk()?;
    // At the end it is -1.
    let count = u16::try_from(i16::from_be_bytes(*count)).ok()?;
    let mut length = 0;
    for _ in 0..count {
        let (field, after) = fields[length..].split_first_chunk()?;
        let field = usize::try_from(i32::from_be_bytes(*field)).unwrap_or(0);
        if after.len() < field {
            return None;
        }
        length += 4 + field;
    }
    let (tuple, after) = fields.split_at(length);
    *rest = after;
    Some(tuple)
}

fn take_apart<'a>(mut tuple: &'a [u8], fields: &mut Vec<Option<&'a [u8]>>) -> Result<(), Error> {
    fields.clear();
    while !tuple.is_empty() {
        let (length, rest) = tuple.split_first_chunk().ok_or_else(malformed)?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            fields.push(None);
            tuple = rest;
            continue;
        };
        let (field, rest) = rest.split_at_checked(length).ok_or_else(malformed)?;
        fields.push(Some(field));
        tuple = rest;
    }
    Ok(())
}
