//! How far a run is: a bar on a terminal, else a line every few seconds, both on standard error.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::tally::Tally;
use crate::telemetry::say;

const LINE_EVERY: Duration = Duration::from_secs(5);
const BAR_EVERY: Duration = Duration::from_millis(200);

/// Shows progress until it is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    task: JoinHandle<()>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts to show `tally`. `done` says how much of `total` is done.
    pub(super) fn start(
        tally: Arc<Tally>,
        total: u64,
        unit: &'static str,
        done: impl Fn(&Tally) -> u64 + Send + 'static,
    ) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| new_bar(total, unit));
        let task = tokio::spawn({
            let bar = bar.clone();
            async move {
                let every = if bar.is_some() { BAR_EVERY } else { LINE_EVERY };
                let mut tick = tokio::time::interval(every);
                tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
                tick.tick().await;
                loop {
                    tick.tick().await;
                    let done = done(&tally).min(total);
                    let counts = tally.glance();
                    let said = format!(
                        "{} sessions, {} accepted, {} refused, {} sent again",
                        counts.sessions, counts.accepted, counts.refused, counts.retried
                    );
                    match &bar {
                        Some(bar) => {
                            bar.set_position(done);
                            bar.set_message(said);
                        }
                        None => say(&format!("{done}/{total} {unit}: {said}")),
                    }
                }
            }
        });
        Self { task, bar }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(total: u64, unit: &str) -> ProgressBar {
    let template = format!("{{bar:30}} {{pos}}/{{len}} {unit}  {{eta}} left  {{wide_msg}}");
    let style = ProgressStyle::with_template(&template);
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
