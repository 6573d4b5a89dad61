//! Rows of `rollups`: written by `COPY`, and read back, both as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use super::buckets::{Bucket, Group, Length};
use super::measures::MEASURES;
use super::sums::{Bins, Micros, Sums};
use crate::store::Error;

/// The columns of what is summed up.
const BINS: &str = "startup_bins, startup_counts, startup_watched_ms, rebuffering_bins, \
    rebuffering_counts, rebuffering_watched_ms, delay_bins, delay_counts";

static MEASURE_COLUMNS: LazyLock<String> =
    LazyLock::new(|| MEASURES.iter().map(|measure| measure.name).collect::<Vec<_>>().join(", "));

/// Rows that are collected before they are sent, in bytes.
const SEND_BYTES: usize = 256 * 1024;

/// Adds the rows of buckets to the table.
pub(super) async fn insert(
    connection: &mut PgConnection,
    part: i16,
    buckets: &[Bucket],
) -> Result<(), Error> {
    let into = format!(
        "COPY rollups (dimension, minutes, bucket, part, tenant_id, stream_type, value, first_at, \
         last_at, {}, {BINS}) FROM STDIN",
        *MEASURE_COLUMNS
    );
    let mut copy = connection.copy_in_raw(&into).await?;
    let mut text = Vec::with_capacity(SEND_BYTES);
    for bucket in buckets {
        for (group, sums) in bucket.rows() {
            put_row(&mut text, bucket, part, &group, sums);
            if text.len() >= SEND_BYTES {
                copy.send(std::mem::take(&mut text)).await?;
            }
        }
    }
    if !text.is_empty() {
        copy.send(text).await?;
    }
    copy.finish().await?;
    Ok(())
}

fn put_row(text: &mut Vec<u8>, bucket: &Bucket, part: i16, group: &Group<'_>, sums: &Sums) {
    put_text(text, Some(bucket.dimension.as_bytes()));
    let mut line = format!("\t{}\t", bucket.length.minutes());
    line.push_str(&time(bucket.start));
    let _ = write!(line, "\t{part}\t");
    text.extend_from_slice(line.as_bytes());
    put_text(text, Some(group.tenant));
    text.push(b'\t');
    put_text(text, group.stream_type);
    text.push(b'\t');
    put_text(text, group.value);
    let mut line = format!("\t{}\t{}", time(sums.first_at), time(sums.last_at));
    for value in &sums.measures {
        match value {
            0 => line.push_str("\t\\N"),
            value => {
                let _ = write!(line, "\t{value}");
            }
        }
    }
    put_array(&mut line, sums.startup.keys());
    put_array(&mut line, sums.startup.values().map(|(sessions, _)| sessions));
    put_array(&mut line, sums.startup.values().map(|(_, watched)| watched));
    put_array(&mut line, sums.rebuffering.keys());
    put_array(&mut line, sums.rebuffering.values().map(|(sessions, _)| sessions));
    put_array(&mut line, sums.rebuffering.values().map(|(_, watched)| watched));
    put_array(&mut line, sums.delay.keys());
    put_array(&mut line, sums.delay.values().map(|(sessions, _)| sessions));
    line.push('\n');
    text.extend_from_slice(line.as_bytes());
}

/// A time as Postgres reads it.
pub(super) fn time(at: Micros) -> String {
    const EPOCH_2000: i64 = 946_684_800_000_000;
    jiff::Timestamp::from_microsecond(at.saturating_add(EPOCH_2000))
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}

fn put_text(line: &mut Vec<u8>, text: Option<&[u8]>) {
    let Some(text) = text else { return line.extend_from_slice(b"\\N") };
    for byte in text {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\t' => line.extend_from_slice(b"\\t"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(*byte),
        }
    }
}

fn put_array<T: std::fmt::Display>(line: &mut String, values: impl Iterator<Item = T>) {
    line.push('\t');
    let start = line.len();
    for value in values {
        let separator = if line.len() == start { '{' } else { ',' };
        let _ = write!(line, "{separator}{value}");
    }
    line.push_str(if line.len() == start { "\\N" } else { "}" });
}

/// Adds up the rows of shorter buckets, by dimension, into buckets of `length` that begin at
/// `start`.
pub(super) async fn merged(
    connection: &mut PgConnection,
    length: Length,
    start: Micros,
) -> Result<Vec<Bucket>, Error> {
    let epoch = "- timestamptz '2000-01-01 00:00:00+00'";
    let copy = format!(
        "COPY (SELECT dimension, tenant_id, stream_type, value,
                 (extract(epoch FROM first_at {epoch}) * 1000000)::bigint,
                 (extract(epoch FROM last_at {epoch}) * 1000000)::bigint, {}, {BINS}
               FROM rollups
               WHERE minutes IN (30, 60) AND bucket >= '{}' AND bucket < '{}') TO STDOUT",
        *MEASURE_COLUMNS,
        time(start),
        time(start + length.micros()),
    );
    let mut buckets: BTreeMap<String, Bucket> = BTreeMap::new();
    let mut chunks = connection.copy_out_raw(&copy).await?;
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(chunk) = chunks.try_next().await? {
        bytes.extend_from_slice(&chunk);
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { continue };
        for line in bytes[..end].split(|byte| *byte == b'\n') {
            let unreadable = || Error::transient("a row of rollups could not be read");
            let (dimension, group, sums) = read_row(line).ok_or_else(unreadable)?;
            let bucket = buckets
                .entry(dimension)
                .or_insert_with_key(|dimension| Bucket::new(dimension, length, start));
            bucket.add(&group.as_group(), &sums);
        }
        bytes.drain(..=end);
    }
    let mut buckets: Vec<Bucket> = buckets.into_values().collect();
    buckets.iter_mut().for_each(Bucket::fold);
    Ok(buckets)
}

/// A [`Group`] that owns its texts.
struct OwnGroup {
    tenant: Vec<u8>,
    stream_type: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl OwnGroup {
    fn as_group(&self) -> Group<'_> {
        Group {
            tenant: &self.tenant,
            stream_type: self.stream_type.as_deref(),
            value: self.value.as_deref(),
        }
    }
}

fn read_row(line: &[u8]) -> Option<(String, OwnGroup, Sums)> {
    let mut fields = line.split(|byte| *byte == b'\t');
    let dimension = String::from_utf8(read_text(fields.next()?)?).ok()?;
    let group = OwnGroup {
        tenant: read_text(fields.next()?)?,
        stream_type: read_text(fields.next()?),
        value: read_text(fields.next()?),
    };
    let mut sums = Sums::default();
    sums.first_at = number(fields.next()?)?;
    sums.last_at = number(fields.next()?)?;
    for value in &mut sums.measures {
        *value = match fields.next()? {
            b"\\N" => 0,
            field => number(field)?,
        };
    }
    let mut array = || read_array(fields.next()?);
    sums.startup = bins(array()?, array()?, Some(array()?))?;
    sums.rebuffering = bins(array()?, array()?, Some(array()?))?;
    sums.delay = bins(array()?, array()?, None)?;
    Some((dimension, group, sums))
}

fn bins(bins: Vec<i64>, sessions: Vec<i64>, amounts: Option<Vec<i64>>) -> Option<Bins> {
    let amounts = amounts.unwrap_or_else(|| vec![0; bins.len()]);
    let values = sessions.into_iter().zip(amounts);
    bins.into_iter()
        .zip(values)
        .map(|(bin, value)| Some((i16::try_from(bin).ok()?, value)))
        .collect()
}

fn number<T: std::str::FromStr>(field: &[u8]) -> Option<T> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn read_array(field: &[u8]) -> Option<Vec<i64>> {
    match field {
        b"\\N" => Some(Vec::new()),
        field => field
            .strip_prefix(b"{")?
            .strip_suffix(b"}")?
            .split(|byte| *byte == b',')
            .map(number)
            .collect(),
    }
}

/// A text as `COPY` writes it; none for null.
fn read_text(field: &[u8]) -> Option<Vec<u8>> {
    if field == b"\\N" {
        return None;
    }
    let mut text = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'\\' => match bytes.next()? {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                other => *other,
            },
            byte => *byte,
        });
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_a_copy() {
        for text in ["", "a\tb\\c\nd\re", "\\N", "ü\u{b}\u{8}"] {
            let mut line = Vec::new();
            put_text(&mut line, Some(text.as_bytes()));
            assert_eq!(read_text(&line).as_deref(), Some(text.as_bytes()));
        }
        assert_eq!(read_text(b"\\N"), None);
    }

    #[test]
    fn arrays_survive_a_copy() {
        let mut line = String::new();
        put_array(&mut line, [-3, 0, 7].iter());
        put_array(&mut line, std::iter::empty::<i16>());
        let fields: Vec<_> = line.split('\t').skip(1).collect();
        assert_eq!(fields, ["{-3,0,7}", "\\N"]);
        assert_eq!(read_array(fields[0].as_bytes()), Some(vec![-3, 0, 7]));
        assert_eq!(read_array(fields[1].as_bytes()), Some(vec![]));
    }

    #[test]
    fn times_are_written_as_postgres_reads_them() {
        assert_eq!(time(0), "2000-01-01T00:00:00Z");
        assert_eq!(time(1_500_000), "2000-01-01T00:00:01.5Z");
    }
}
