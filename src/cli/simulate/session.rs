//! The playback of one session on a virtual clock: a script goes in, reports come out when the
//! SDK would build them. Pure: live runs sleep between the reports, histories do not.

use super::chance::whole;
use super::model::{Connection, PlaybackError};
use super::script::{Act, Step};

/// While the player is active the SDK reports this often.
pub(super) const HEARTBEAT_MS: u64 = 15_000;
/// Events closer together than this share a report.
pub(super) const MIN_GAP_MS: u64 = 1_000;

/// Running totals, as Media3's `PlaybackStats` count them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Totals {
    /// Play command to first frame; `None` until there is one.
    pub(super) startup_ms: Option<u64>,
    pub(super) join_ms: u64,
    pub(super) play_ms: u64,
    pub(super) rebuffer_ms: u64,
    pub(super) rebuffers: u64,
    pub(super) seek_ms: u64,
    pub(super) seeks: u64,
    pub(super) errors: u64,
    pub(super) last_error: Option<PlaybackError>,
    pub(super) quality_switches: u64,
    pub(super) dropped_frames: u64,
    /// Sum of bits per second times milliseconds played.
    bit_ms: u64,
}

impl Totals {
    /// Mean bits per second over the time played; `None` before the first frame.
    pub(super) fn mean_bitrate(&self) -> Option<u64> {
        self.bit_ms.checked_div(self.play_ms)
    }

    /// Media3's definition: rebuffer / (play + join + rebuffer + seek), four decimals.
    pub(super) fn rebuffer_ratio(&self) -> f64 {
        let watched = self.play_ms + self.join_ms + self.rebuffer_ms + self.seek_ms;
        if watched == 0 {
            return 0.0;
        }
        (self.rebuffer_ms as f64 / watched as f64 * 10_000.0).round() / 10_000.0
    }
}

/// One entry of the timeline.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) elapsed_ms: u64,
    pub(super) state: &'static str,
    pub(super) bitrate: Option<u32>,
    pub(super) network: Connection,
    pub(super) dropped_frames: u64,
    pub(super) buffered_ms: u64,
    pub(super) rebuffers: u64,
    pub(super) rebuffer_ms: u64,
}

/// What one report says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Snapshot {
    /// When it is built, since the session began; at least 1 and growing.
    pub(super) at_ms: u64,
    pub(super) totals: Totals,
    pub(super) network: Connection,
    /// Entries captured since the report before.
    pub(super) entries: Vec<Entry>,
    /// The report at detach: the last one.
    pub(super) is_final: bool,
}

/// A session being played.
#[derive(Debug, Clone)]
pub(super) struct Playback {
    steps: Vec<Step>,
    drops_per_min: f64,
    cursor: usize,
    now_ms: u64,
    step_began_ms: u64,
    end_ms: u64,
    totals: Totals,
    entries: Vec<Entry>,
    last_report_ms: Option<u64>,
    event_pending: bool,
    is_over: bool,
}

impl Playback {
    /// Begins to play `steps`, of which there must be at least one.
    pub(super) fn new(steps: Vec<Step>, drops_per_min: f64) -> Self {
        let end_ms = steps.iter().map(|step| step.ms).sum();
        Self {
            steps,
            drops_per_min,
            cursor: 0,
            now_ms: 0,
            step_began_ms: 0,
            end_ms,
            totals: Totals::default(),
            entries: Vec::new(),
            last_report_ms: None,
            event_pending: false,
            is_over: false,
        }
    }

    /// Makes the session end at `at_ms`, if it would not end earlier.
    pub(super) fn cut(&mut self, at_ms: u64) {
        // The final report is always newer than the one before it.
        let earliest = self.last_report_ms.map_or(1, |last| last + 1).max(self.now_ms);
        self.end_ms = self.end_ms.min(at_ms.max(earliest));
    }

    /// Plays to the end without stopping for reports: the final report, which then carries every
    /// entry that has not been reported.
    pub(super) fn finish(self) -> Option<Snapshot> {
        let mut entries = Vec::new();
        let mut last = None;
        for mut snapshot in self {
            entries.append(&mut snapshot.entries);
            last = Some(snapshot);
        }
        last.map(|snapshot| Snapshot { entries, ..snapshot })
    }

    fn step(&self) -> &Step {
        &self.steps[self.cursor]
    }

    /// When the next report is due if nothing happens before.
    fn report_due_ms(&self) -> u64 {
        let due = match (self.event_pending, self.last_report_ms) {
            (true, None) => 0,
            (true, Some(last)) => last + MIN_GAP_MS,
            (false, Some(last)) if self.step().act.is_active() => last + HEARTBEAT_MS,
            (false, _) => u64::MAX,
        };
        due.max(self.now_ms)
    }

    /// Lets time pass within the current step.
    fn pass(&mut self, to_ms: u64) {
        let ms = to_ms - self.now_ms;
        let (act, bitrate) = (self.step().act, self.step().bitrate);
        let totals = &mut self.totals;
        match act {
            Act::Join => totals.join_ms += ms,
            Act::Stall => totals.rebuffer_ms += ms,
            Act::Seek => totals.seek_ms += ms,
            Act::Play => {
                totals.play_ms += ms;
                totals.bit_ms += u64::from(bitrate.unwrap_or_default()) * ms;
                let minutes = totals.play_ms as f64 / 60_000.0;
                totals.dropped_frames = whole(minutes * self.drops_per_min);
            }
            Act::Idle | Act::Pause | Act::Ended => {}
        }
        self.now_ms = to_ms;
    }

    /// The current step is over: an event, or the end.
    fn enter_next(&mut self) {
        let bitrate_before = self.step().bitrate;
        self.cursor += 1;
        self.step_began_ms = self.now_ms;
        let step = &self.steps[self.cursor];
        let totals = &mut self.totals;
        match step.act {
            Act::Play if totals.startup_ms.is_none() => totals.startup_ms = Some(totals.join_ms),
            Act::Stall => totals.rebuffers += 1,
            Act::Seek => totals.seeks += 1,
            _ => {}
        }
        if step.error.is_some() {
            totals.errors += 1;
            totals.last_error = step.error;
        }
        if bitrate_before.is_some() && step.bitrate != bitrate_before {
            totals.quality_switches += 1;
        }
        self.capture();
        self.event_pending = true;
    }

    fn capture(&mut self) {
        let step = self.step();
        let buffered_ms = match step.act {
            Act::Play => (2_500 + (self.now_ms - self.step_began_ms) * 3 / 2).min(50_000),
            Act::Pause => 50_000,
            _ => 0,
        };
        let entry = Entry {
            elapsed_ms: self.now_ms,
            state: step.act.state(),
            bitrate: step.bitrate,
            network: step.network,
            dropped_frames: self.totals.dropped_frames,
            buffered_ms,
            rebuffers: self.totals.rebuffers,
            rebuffer_ms: self.totals.rebuffer_ms,
        };
        self.entries.push(entry);
    }

    fn report(&mut self, is_final: bool) -> Snapshot {
        self.event_pending = false;
        self.last_report_ms = Some(self.now_ms);
        Snapshot {
            at_ms: self.now_ms,
            totals: self.totals.clone(),
            network: self.step().network,
            entries: std::mem::take(&mut self.entries),
            is_final,
        }
    }
}

impl Iterator for Playback {
    type Item = Snapshot;

    /// Moves the clock to the next report.
    fn next(&mut self) -> Option<Snapshot> {
        if self.is_over {
            return None;
        }
        loop {
            let step_ends_ms = self.step_began_ms + self.step().ms;
            let border_ms = step_ends_ms.min(self.end_ms);
            let due_ms = self.report_due_ms();
            self.pass(border_ms.min(due_ms));
            if self.now_ms == self.end_ms {
                self.is_over = true;
                return Some(self.report(true));
            }
            if self.now_ms == step_ends_ms {
                self.enter_next();
            } else {
                if !self.event_pending {
                    self.capture();
                }
                return Some(self.report(false));
            }
        }
    }
}

impl Act {
    /// The name in `playbackState`.
    fn state(self) -> &'static str {
        match self {
            Self::Idle => "IDLE",
            Self::Join | Self::Stall | Self::Seek => "BUFFERING",
            Self::Play => "PLAYING",
            Self::Pause => "PAUSED",
            Self::Ended => "ENDED",
        }
    }

    /// Playing, or meaning to.
    pub(super) fn is_active(self) -> bool {
        matches!(self, Self::Join | Self::Play | Self::Stall | Self::Seek)
    }
}

#[cfg(test)]
mod tests;
