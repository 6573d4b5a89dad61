//! The reports that are sent: prepared bytes in which ids and times are patched in place.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// Reports of one session in the mix: one new, then 20 updates.
pub const REPORTS_PER_SESSION: u64 = 21;
/// Sessions of the mix that run at the same time, over all connections.
pub const RUNNING_SESSIONS: u64 = 320;
/// Of 10,000 reports, those with no timeline entry, one, two and three: what the simulator's
/// sessions of generation C send, which its test `reports_carry_one_entry_but_for_the_last`
/// measures. A report has an entry for each player event since the report before, or one of its
/// own; the last one has none.
pub const ENTRIES_OF_10_000: [u64; 4] = [120, 9_848, 31, 1];
/// Steps through [`ENTRIES_OF_10_000`]; without a common divisor, so that any 10,000 reports in a
/// row are distributed as it says.
pub const ENTRIES_STRIDE: u64 = 7_919;
/// Reports in a request to the batch endpoint.
pub const BATCH: u64 = 500;
/// Milliseconds between the reports of a session in the mix, by its own clock.
pub const PACE_MS: u64 = 15_000;

const ID: &str = "00000000-0000-4000-8000-000000000000";
const TIME: u64 = 1_000_000_000_001;
const START: &str = "2001-01-01T00:00:00.000Z";

/// Unix milliseconds.
#[expect(clippy::disallowed_methods, reason = "reports carry the time at which they are sent")]
pub fn now_ms() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since_epoch.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// A report of generation A with most fields set: 0.6 KB.
pub fn report_a(session_id: &str, time: u64) -> String {
    let text = include_str!("../../tests/fixtures/wire/a-full.json");
    let mut report: Value = serde_json::from_str(text).expect("a fixture");
    report["sessionId"] = session_id.into();
    report["timestamp"] = time.into();
    report.to_string()
}

/// Timeline entries in the reports of a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entries {
    /// As many as the SDK sends.
    Sdk,
    /// Twelve in each report, which makes it about 3 KB: the worst case.
    Twelve,
}

impl Entries {
    /// How many report number `number` of a connection has.
    pub fn of(self, number: u64) -> u64 {
        match self {
            Self::Twelve => 12,
            Self::Sdk => {
                let mut ticket = number.wrapping_mul(ENTRIES_STRIDE) % 10_000;
                for (entries, share) in (0..).zip(ENTRIES_OF_10_000) {
                    if ticket < share {
                        return entries;
                    }
                    ticket -= share;
                }
                unreachable!("the shares add up to 10,000")
            }
        }
    }

    /// The largest number.
    pub fn most(self) -> u64 {
        match self {
            Self::Sdk => ENTRIES_OF_10_000.len() as u64 - 1,
            Self::Twelve => 12,
        }
    }

    /// The number that most reports have.
    pub fn usual(self) -> u64 {
        match self {
            Self::Sdk => 1,
            Self::Twelve => 12,
        }
    }
}

/// A report of generation C in the middle of a session, `step` 0 to 20: 0.8 KB with one entry,
/// about 3 KB with twelve.
pub fn report_c(session_id: &str, start: &str, time: u64, step: u64, entries: u64) -> String {
    let at = (step + 1) * PACE_MS;
    let entry = |number: u64| {
        let elapsed = at - PACE_MS + number * (PACE_MS / entries.max(1));
        json!({
            "timestampMs": 1_795_000_000_000 + elapsed, "elapsedMs": elapsed,
            "playbackState": if number % 4 == 1 { "BUFFERING" } else { "PLAYING" },
            "currentBitrate": 3_200_000 + 100_000 * (number % 5), "networkType": "Wi-Fi",
            "totalDroppedFrames": step * 2 + number / 6, "bufferedDurationMs": 900 * number,
            "rebufferCount": step, "rebufferTimeMs": step * 310,
        })
    };
    let report = json!({
        "sessionId": session_id, "sessionStartDateIso": start, "startupTimeMs": 812,
        "totalSeekCount": step / 4, "totalSeekTimeMs": step * 55, "errorCount": 0,
        "deviceModel": "SHIELD Android TV", "osVersion": 30, "sdkVersion": "1.0.1",
        "connectionType": "Wi-Fi", "timestamp": time, "sessionDurationMs": at,
        "playTimeMs": at - 1_000, "rebufferTimeMs": step * 310, "rebufferCount": step,
        "rebufferRatio": 0.0107, "totalDroppedFrames": step * 2,
        "meanVideoFormatBitrate": 3_900_000,
        "timelineEvents": (0..entries).map(entry).collect::<Vec<_>>(),
    });
    report.to_string()
}

/// A request whose body holds ids and times to be patched.
#[derive(Clone)]
struct Request {
    bytes: Vec<u8>,
    ids: Vec<usize>,
    times: Vec<usize>,
    starts: Vec<usize>,
}

impl Request {
    fn new(path: &str, kind: &str, body: &str) -> Self {
        // As OkHttp sends it.
        let head = format!(
            "POST {path} HTTP/1.1\r\nX-API-Key: dev-key\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\nHost: 127.0.0.1\r\nConnection: Keep-Alive\r\n\
             Accept-Encoding: gzip\r\nUser-Agent: okhttp/4.12.0\r\n\r\n",
            body.len()
        );
        let all = |what: &str| -> Vec<usize> {
            body.match_indices(what).map(|(at, _)| head.len() + at).collect()
        };
        let (ids, times, starts) = (all(ID), all(&TIME.to_string()), all(START));
        Self { bytes: [head.as_bytes(), body.as_bytes()].concat(), ids, times, starts }
    }

    fn put(&mut self, at: usize, text: &[u8]) {
        self.bytes[at..at + text.len()].copy_from_slice(text);
    }
}

/// The load of one connection.
pub enum Reports {
    /// One report of a new session per request.
    Single(Stream),
    /// SDK-C's mix.
    Mix(Mix),
    /// [`BATCH`] reports of new sessions per request.
    Batch(Stream),
}

/// New sessions.
pub struct Stream {
    request: Request,
    random: Random,
}

/// Running sessions.
pub struct Mix {
    entries: Entries,
    /// By step, then by number of entries.
    steps: Vec<Vec<Request>>,
    seed: u64,
    /// Start of the first session, Unix milliseconds; another one for each connection.
    base_ms: u64,
    /// Sessions that run at the same time.
    slots: u64,
    /// Number of the connection: which step it begins with.
    offset: u64,
    turn: u64,
}

/// Which load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Reports::Single`]
    Single,
    /// [`Reports::Mix`]
    Mix(Entries),
    /// [`Reports::Batch`]
    Batch,
}

impl Reports {
    /// The load of connection `number` of `connections`; sessions of the mix start at `base_ms`.
    pub fn new(kind: Kind, number: usize, connections: usize, base_ms: u64) -> Self {
        let random = Random::new();
        match kind {
            Kind::Single => {
                let body = report_a(ID, TIME);
                let kind = "application/json; charset=utf-8";
                Self::Single(Stream { request: Request::new("/v1/sessions", kind, &body), random })
            }
            Kind::Batch => {
                let mut body = String::new();
                for _ in 0..BATCH {
                    let _ = writeln!(body, "{}", report_a(ID, TIME));
                }
                let request = Request::new("/v1/sessions/batch", "application/x-ndjson", &body);
                Self::Batch(Stream { request, random })
            }
            Kind::Mix(entries) => {
                let request = |step, count| {
                    let body = report_c(ID, START, TIME, step, count);
                    Request::new("/v1/sessions", "application/json; charset=utf-8", &body)
                };
                let requests =
                    |step| (0..=entries.most()).map(|count| request(step, count)).collect();
                let slots = (RUNNING_SESSIONS / connections as u64).max(1);
                Self::Mix(Mix {
                    entries,
                    steps: (0..REPORTS_PER_SESSION).map(requests).collect(),
                    seed: Random::new().next(),
                    base_ms: base_ms + number as u64 * slots,
                    slots,
                    offset: number as u64,
                    turn: 0,
                })
            }
        }
    }

    /// The next request.
    pub fn next(&mut self) -> Next<'_> {
        match self {
            Self::Single(stream) | Self::Batch(stream) => {
                let now = now_ms().to_string();
                for index in 0..stream.request.ids.len() {
                    let id = uuid(stream.random.next(), stream.random.next());
                    stream.request.put(stream.request.ids[index], &id);
                    stream.request.put(stream.request.times[index], now.as_bytes());
                }
                let sessions = stream.request.ids.len() as u64;
                Next { bytes: &stream.request.bytes, sessions, entries: 0 }
            }
            Self::Mix(mix) => mix.next(),
        }
    }

    /// Whether an answer says that all reports were taken.
    pub fn is_acknowledged(&self, answer: &[u8]) -> bool {
        match self {
            Self::Single(_) | Self::Mix(_) => answer.starts_with(br#"{"status":"success""#),
            Self::Batch(_) => answer.starts_with(br#"{"accepted":500,"rejected":0,"#),
        }
    }
}

/// A request, and what is in it.
pub struct Next<'a> {
    /// What is sent.
    pub bytes: &'a [u8],
    /// New sessions.
    pub sessions: u64,
    /// Timeline entries.
    pub entries: u64,
}

impl Mix {
    /// In each of the slots a session runs. Slots and connections stand at different steps, so
    /// that sessions do not all begin at once. pgbench's script does the same.
    fn next(&mut self) -> Next<'_> {
        let slot = self.turn % self.slots;
        let turn = self.turn / self.slots + slot + self.offset;
        let (session, step) = (turn / REPORTS_PER_SESSION, turn % REPORTS_PER_SESSION);
        let is_new = step == 0 || self.turn < self.slots;
        let entries = self.entries.of(self.turn + self.offset * 157);
        self.turn += 1;
        let start_ms = self.base_ms + session * 1_000 + slot;
        let number = session * self.slots + slot;
        let id = uuid(mixed(self.seed ^ number), mixed(self.seed.wrapping_add(number)));
        let start = jiff::Timestamp::from_millisecond(i64::try_from(start_ms).unwrap_or(0));
        let start = format!("{:.3}", start.unwrap_or_default());
        let time = (start_ms + (step + 1) * PACE_MS).to_string();
        let index = |number: u64| usize::try_from(number).unwrap_or(0);
        let request = &mut self.steps[index(step)][index(entries)];
        request.put(request.ids[0], &id);
        request.put(request.starts[0], start.as_bytes());
        request.put(request.times[0], time.as_bytes());
        Next { bytes: &request.bytes, sessions: u64::from(is_new), entries }
    }
}

/// Cheap random numbers (splitmix64), another sequence for each stream.
pub struct Random(u64);

impl Random {
    /// A sequence of its own.
    pub fn new() -> Self {
        static STREAMS: AtomicU64 = AtomicU64::new(1);
        Self(mixed(now_ms() ^ (STREAMS.fetch_add(1, Ordering::Relaxed) << 48)))
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }
}

const fn mixed(seed: u64) -> u64 {
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ (seed >> 31)
}

/// 128 bits as a random UUID, as SDKs make them.
pub fn uuid(high: u64, low: u64) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = (u128::from(high) << 64 | u128::from(low)) & !(0xf << 76) & !(0x3 << 62);
    let bits = bits | (4 << 76) | (2 << 62);
    let mut text = [b'-'; 36];
    let mut shift = 128;
    for (at, byte) in text.iter_mut().enumerate() {
        if !matches!(at, 8 | 13 | 18 | 23) {
            shift -= 4;
            *byte = HEX[usize::try_from((bits >> shift) & 0xf).unwrap_or(0)];
        }
    }
    text
}
