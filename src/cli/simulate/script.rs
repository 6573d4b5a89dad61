//! The script of one session: what the player will go through, drawn before it plays.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::chance::{exponential, log_normal, whole};
use super::model::{Connection, Content, Incident, Install, LADDER, PlaybackError};

/// Share of sessions that end with an error on an ordinary day.
const ERROR_SHARE: f64 = 0.02;
/// Share of sessions that the viewer leaves before the first frame.
const EXIT_SHARE: f64 = 0.025;
/// Share of sessions on a good line, which never stall.
const CLEAN_SHARE: f64 = 0.55;

/// What the player does during a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// No media: before the play command, or after an error.
    Idle,
    /// Buffering before the first frame.
    Join,
    Play,
    /// Buffering after the first frame: a rebuffer.
    Stall,
    /// Buffering because the viewer jumped.
    Seek,
    Pause,
    /// The media is over and the screen still open.
    Ended,
}

/// A stretch of time in which nothing changes. Every border between two steps is a player event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) act: Act,
    /// Length, at least 1.
    pub(super) ms: u64,
    /// Bits per second of the video format; `None` until one is chosen.
    pub(super) bitrate: Option<u32>,
    pub(super) network: Connection,
    /// The error that begins this step.
    pub(super) error: Option<PlaybackError>,
}

/// What surrounds a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions {
    /// Median time a viewer means to watch.
    pub(super) typical_watch_ms: f64,
    /// Trouble during the whole session.
    pub(super) incident: Option<Incident>,
}

/// Draws the steps of one session. There is always at least one.
pub(super) fn draw(
    rng: &mut StdRng,
    install: &Install,
    content: &Content,
    conditions: Conditions,
) -> Vec<Step> {
    let mut writer = Writer {
        steps: Vec::new(),
        network: install.connection,
        rung: 0,
        bitrate: None,
        incident: conditions.incident,
    };
    writer.add(Act::Idle, rng.random_range(20..200));

    let error_share = match conditions.incident {
        Some(Incident::ErrorSpike) => 0.35,
        _ => ERROR_SHARE,
    };
    let fails = rng.random_bool(error_share);
    let startup_ms = writer.startup_ms(rng, install);
    if fails && rng.random_bool(0.4) {
        writer.fail_before_start(rng, startup_ms);
        return writer.steps;
    }
    if !fails && rng.random_bool(EXIT_SHARE) {
        writer.add(Act::Join, whole(log_normal(rng, 2_500.0, 0.8).clamp(200.0, 30_000.0)));
        return writer.steps;
    }

    writer.add(Act::Join, startup_ms);
    let longest_ms = 20.0 * conditions.typical_watch_ms;
    let mut watch_ms =
        log_normal(rng, conditions.typical_watch_ms, 1.0).clamp(4_000.0, longest_ms.max(5_000.0));
    if fails {
        watch_ms *= rng.random_range(0.1..0.9);
    }
    writer.watch(rng, install, content, whole(watch_ms));
    if fails {
        writer.fail(rng);
    } else if !content.is_live && rng.random_bool(0.45) {
        writer.add(Act::Ended, rng.random_range(1_000..4_000));
    }
    writer.steps
}

struct Writer {
    steps: Vec<Step>,
    network: Connection,
    rung: usize,
    bitrate: Option<u32>,
    incident: Option<Incident>,
}

impl Writer {
    fn add(&mut self, act: Act, ms: u64) {
        let step =
            Step { act, ms: ms.max(1), bitrate: self.bitrate, network: self.network, error: None };
        self.steps.push(step);
    }

    fn startup_ms(&self, rng: &mut StdRng, install: &Install) -> u64 {
        let quality = self.network.quality();
        let slow = if self.incident == Some(Incident::SlowStart) { 5.0 } else { 1.0 };
        let drawn = log_normal(rng, quality.startup_ms, quality.startup_sigma);
        whole((drawn * install.device.slowness * slow).clamp(90.0, 60_000.0))
    }

    /// The error shows instead of the first frame; some viewers try once or twice again.
    fn fail_before_start(&mut self, rng: &mut StdRng, startup_ms: u64) {
        self.add(Act::Join, startup_ms);
        self.fail(rng);
        let mut tries = 0;
        while tries < 2 && rng.random_bool(0.3) {
            self.add(Act::Join, startup_ms);
            self.fail(rng);
            tries += 1;
        }
    }

    fn fail(&mut self, rng: &mut StdRng) {
        let error = PlaybackError::draw(rng, self.incident);
        self.add(Act::Idle, rng.random_range(800..5_000));
        if let Some(step) = self.steps.last_mut() {
            step.error = Some(error);
        }
    }

    /// Plays for `watch_ms`, interrupted by what happens on the way.
    fn watch(&mut self, rng: &mut StdRng, install: &Install, content: &Content, watch_ms: u64) {
        let clean = rng.random_bool(CLEAN_SHARE);
        self.rung = self.network.quality().top_rung.saturating_sub(rng.random_range(1..=2));
        self.bitrate = Some(LADDER[self.rung]);
        let mut left_ms = watch_ms;
        loop {
            // Five things may happen, each with its rate per minute of play.
            let stalls = match self.incident {
                Some(Incident::Rebuffering) => 4.0,
                _ if clean => 0.0,
                _ => self.network.quality().stalls_per_min,
            };
            let seeks = if content.is_live { 0.02 } else { 0.3 };
            let pauses = if content.is_live { 0.02 } else { 0.05 };
            let switches = 0.25;
            let roams = if install.device.is_tv { 0.0 } else { 0.06 };
            let rate = stalls + seeks + pauses + switches + roams;
            let wait_ms = whole(exponential(rng, 60_000.0 / rate)).max(300);
            if wait_ms >= left_ms {
                self.add(Act::Play, left_ms);
                return;
            }
            self.add(Act::Play, wait_ms);
            left_ms -= wait_ms;

            let mut ticket = rng.random::<f64>() * rate;
            let mut is = |share: f64| {
                ticket -= share;
                ticket < 0.0
            };
            if is(stalls) {
                self.stall(rng);
            } else if is(seeks) {
                self.add(Act::Seek, whole(log_normal(rng, 380.0, 0.6).clamp(60.0, 15_000.0)));
            } else if is(pauses) {
                self.add(Act::Pause, whole(log_normal(rng, 9_000.0, 1.2).clamp(800.0, 1.2e6)));
            } else if is(switches) {
                self.switch(rng);
            } else {
                self.roam(rng);
            }
        }
    }

    fn stall(&mut self, rng: &mut StdRng) {
        let median_ms =
            if self.incident == Some(Incident::Rebuffering) { 3_500.0 } else { 1_300.0 };
        self.add(Act::Stall, whole(log_normal(rng, median_ms, 0.7).clamp(120.0, 45_000.0)));
        // The player comes back one rung lower.
        self.rung = self.rung.saturating_sub(1);
        self.bitrate = Some(LADDER[self.rung]);
    }

    fn switch(&mut self, rng: &mut StdRng) {
        let top = self.network.quality().top_rung;
        let up = self.rung == 0 || (self.rung < top && rng.random_bool(0.7));
        self.rung = if up { self.rung + 1 } else { self.rung - 1 };
        self.bitrate = Some(LADDER[self.rung]);
    }

    /// Leaves the house, or comes home.
    fn roam(&mut self, rng: &mut StdRng) {
        self.network = match self.network {
            Connection::WiFi | Connection::Ethernet => {
                if rng.random_bool(0.5) {
                    Connection::FourG
                } else {
                    Connection::FiveG
                }
            }
            Connection::FourG if rng.random_bool(0.2) => Connection::ThreeG,
            Connection::ThreeG => Connection::FourG,
            Connection::FourG | Connection::FiveG => Connection::WiFi,
        };
        self.rung = self.rung.min(self.network.quality().top_rung);
        self.bitrate = Some(LADDER[self.rung]);
    }
}
