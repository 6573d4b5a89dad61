//! Who watches what: devices, connections, contents, app versions, and the troubles they meet.

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand_distr::Zipf;
use serde::Serialize;

use super::chance::{exponential, pick, whole};

const DAY_MS: u64 = 86_400_000;

/// Which SDK wrote the reports of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Generation {
    /// Schema 1.0.0: one final report with content, device, app and error category.
    A,
    /// SDK 0.x: one report at detach, nulls written out, never retried.
    B,
    /// SDK 1.x: reports while playing, with a timeline.
    C,
}

/// A trouble that `--incident` injects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Incident {
    /// A third of all sessions fail, most of them with HTTP errors from the source.
    ErrorSpike,
    /// Startup takes five times as long.
    SlowStart,
    /// Everybody stalls about four times a minute, for several seconds.
    Rebuffering,
}

/// How a device reaches the network; the SDK sends the label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    Ethernet,
    WiFi,
    FiveG,
    FourG,
    ThreeG,
}

impl Connection {
    /// The name in `connectionType` and `networkType`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Ethernet => "Ethernet",
            Self::WiFi => "Wi-Fi",
            Self::FiveG => "5G",
            Self::FourG => "4G",
            Self::ThreeG => "3G",
        }
    }

    /// What the connection does to playback.
    pub(super) fn quality(self) -> Quality {
        let (startup_ms, startup_sigma, stalls_per_min, top_rung) = match self {
            Self::Ethernet => (560.0, 0.55, 0.25, 5),
            Self::WiFi => (700.0, 0.66, 0.50, 5),
            Self::FiveG => (760.0, 0.66, 0.55, 5),
            Self::FourG => (1_150.0, 0.62, 0.85, 4),
            Self::ThreeG => (2_500.0, 0.50, 1.80, 2),
        };
        Quality { startup_ms, startup_sigma, stalls_per_min, top_rung }
    }
}

/// Figures of a connection type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quality {
    /// Median of the log-normal startup time.
    pub(super) startup_ms: f64,
    /// Spread of the log-normal startup time.
    pub(super) startup_sigma: f64,
    /// Stalls per minute of play in a session that stalls at all.
    pub(super) stalls_per_min: f64,
    /// Highest rung of `LADDER` it carries.
    pub(super) top_rung: usize,
}

/// The encoding ladder in bits per second.
pub(super) const LADDER: [u32; 6] = [400_000, 800_000, 1_600_000, 3_200_000, 5_800_000, 8_000_000];

/// A model of device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) model: &'static str,
    /// Television boxes do not roam, and run the television app.
    pub(super) is_tv: bool,
    /// Factor on the startup time: old decoders take longer.
    pub(super) slowness: f64,
    /// Dropped frames per minute of play.
    pub(super) drops_per_min: f64,
    /// API levels in use, by weight.
    api_levels: &'static [(u16, u32)],
}

const fn phone(
    model: &'static str,
    slowness: f64,
    drops_per_min: f64,
    api_levels: &'static [(u16, u32)],
) -> Device {
    Device { model, is_tv: false, slowness, drops_per_min, api_levels }
}

const fn tv(
    model: &'static str,
    slowness: f64,
    drops_per_min: f64,
    api_levels: &'static [(u16, u32)],
) -> Device {
    Device { model, is_tv: true, slowness, drops_per_min, api_levels }
}

static DEVICES: [(Device, u32); 13] = [
    (phone("Pixel 8", 0.9, 0.3, &[(34, 3), (35, 5), (36, 4)]), 12),
    (phone("Pixel 6a", 1.0, 0.6, &[(33, 1), (34, 3), (35, 4)]), 8),
    (phone("SM-S911B", 0.9, 0.3, &[(34, 4), (35, 6)]), 14),
    (phone("SM-A546B", 1.0, 0.8, &[(33, 1), (34, 5), (35, 3)]), 14),
    (phone("SM-A125F", 1.3, 2.5, &[(30, 2), (31, 4)]), 6),
    (phone("Redmi Note 12", 1.1, 1.2, &[(31, 1), (33, 4), (34, 3)]), 10),
    (phone("moto g(50)", 1.2, 1.8, &[(30, 1), (31, 3)]), 4),
    (phone("CPH2449", 1.0, 0.5, &[(33, 2), (34, 4)]), 5),
    (phone("SM-X200", 1.1, 1.0, &[(32, 1), (33, 3), (34, 2)]), 6),
    (tv("SHIELD Android TV", 0.8, 0.2, &[(30, 1)]), 5),
    (tv("Chromecast", 1.1, 0.8, &[(31, 1), (34, 3)]), 8),
    (tv("BRAVIA 4K VH22", 1.2, 1.0, &[(30, 2), (31, 1)]), 5),
    (tv("AFTKA", 1.2, 1.2, &[(28, 1), (30, 2)]), 3),
];

const PHONE_CONNECTIONS: [(Connection, u32); 4] = [
    (Connection::WiFi, 58),
    (Connection::FourG, 22),
    (Connection::FiveG, 16),
    (Connection::ThreeG, 4),
];
const TV_CONNECTIONS: [(Connection, u32); 2] = [(Connection::WiFi, 60), (Connection::Ethernet, 40)];
const GENERATIONS: [(Generation, u32); 3] =
    [(Generation::A, 20), (Generation::B, 12), (Generation::C, 68)];

/// One installation of the app on one device.
#[derive(Debug, Clone)]
pub(super) struct Install {
    pub(super) generation: Generation,
    pub(super) device: &'static Device,
    pub(super) api_level: u16,
    pub(super) connection: Connection,
    /// How long after a release this device updates.
    update_lag_ms: u64,
}

impl Install {
    /// Draws a device with its connection, SDK and habit of updating.
    pub(super) fn draw(rng: &mut StdRng) -> Self {
        let device = pick(rng, &DEVICES);
        let connection =
            *if device.is_tv { pick(rng, &TV_CONNECTIONS) } else { pick(rng, &PHONE_CONNECTIONS) };
        // Most update within days; a tenth stays behind for months.
        let lag_days = if rng.random_bool(0.1) { 45.0 } else { 5.0 };
        Self {
            generation: *pick(rng, &GENERATIONS),
            device,
            api_level: *pick(rng, device.api_levels),
            connection,
            update_lag_ms: whole(exponential(rng, lag_days) * 86_400_000.0),
        }
    }

    /// Number of the app release on the device at `unix_ms`: one every two weeks since 2024.
    fn release(&self, unix_ms: u64) -> u64 {
        const FIRST_RELEASE_MS: u64 = 19_723 * DAY_MS;
        unix_ms.saturating_sub(self.update_lag_ms).saturating_sub(FIRST_RELEASE_MS) / (14 * DAY_MS)
    }

    /// Version of the app at `unix_ms`.
    pub(super) fn app_version(&self, unix_ms: u64) -> String {
        let release = self.release(unix_ms);
        format!("3.{}.{}", release / 2, release % 2)
    }

    /// Version of the SDK at `unix_ms`: it comes with the app, and changes less often.
    pub(super) fn sdk_version(&self, unix_ms: u64) -> String {
        let release = self.release(unix_ms);
        format!("1.{}.{}", release / 12, release % 12 / 3)
    }

    /// Name of the app.
    pub(super) fn app_name(&self) -> &'static str {
        if self.device.is_tv { "Rivulet TV" } else { "Rivulet" }
    }

    /// Android's version name of the API level.
    pub(super) fn os_version(&self) -> &'static str {
        match self.api_level {
            ..=28 => "9",
            29 => "10",
            30 => "11",
            31 | 32 => "12",
            33 => "13",
            34 => "14",
            35 => "15",
            _ => "16",
        }
    }
}

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) id: String,
    pub(super) is_live: bool,
}

impl Content {
    /// Draws a title: a few are popular, most are rare.
    pub(super) fn draw(rng: &mut StdRng) -> Self {
        let is_live = rng.random_bool(0.15);
        let (titles, exponent) = if is_live { (8.0, 1.0) } else { (600.0, 1.05) };
        let zipf = Zipf::new(titles, exponent).expect("constant parameters are valid");
        let rank = whole(rng.sample(zipf));
        let id = match (is_live, rank % 5) {
            (true, _) => format!("channel-{rank}"),
            (false, 2) => format!("film-{rank:04}"),
            (false, _) => format!("episode-{rank:04}"),
        };
        Self { id, is_live }
    }
}

/// A playback error as Media3 numbers it, with the category generation A sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlaybackError {
    pub(super) code: u16,
    pub(super) category: &'static str,
}

const fn error(code: u16, category: &'static str) -> PlaybackError {
    PlaybackError { code, category }
}

/// Errors of an ordinary day.
const ERRORS: [(PlaybackError, u32); 9] = [
    (error(2_001, "NETWORK"), 30),
    (error(2_002, "NETWORK"), 16),
    (error(2_004, "SOURCE"), 18),
    (error(3_001, "SOURCE"), 6),
    (error(4_001, "DECODER"), 8),
    (error(4_003, "DECODER"), 6),
    (error(6_004, "DRM"), 8),
    (error(6_002, "DRM"), 3),
    (error(1_000, "UNKNOWN"), 5),
];
/// Errors while the source answers with HTTP errors.
const SPIKE_ERRORS: [(PlaybackError, u32); 3] =
    [(error(2_004, "SOURCE"), 80), (error(2_001, "NETWORK"), 15), (error(2_002, "NETWORK"), 5)];

impl PlaybackError {
    /// Draws an error, of the kind that goes with the incident.
    pub(super) fn draw(rng: &mut StdRng, incident: Option<Incident>) -> Self {
        match incident {
            Some(Incident::ErrorSpike) => *pick(rng, &SPIKE_ERRORS),
            _ => *pick(rng, &ERRORS),
        }
    }
}
