use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::telemetry::say;

/// What the start is busy with. A start on existing data only ever says `Starting`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The archive is on its way.
    Downloading {
        /// Bytes so far; falls back to 0 when the download is tried again.
        received: u64,
        /// Bytes in all, if the server tells.
        total: Option<u64>,
    },
    /// The archive is being unpacked.
    Extracting,
    /// `initdb` makes the cluster.
    Initialising,
    /// The server comes up.
    Starting,
}

/// Called with each step, and for each piece of a download; must not block.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// Shows the progress on stderr: a bar on a terminal, now and then a line elsewhere.
#[derive(Debug)]
pub struct Reporter {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bar: Option<ProgressBar>,
    last: Option<(Progress, Instant)>,
}

impl Reporter {
    /// Draws a bar if stderr is a terminal.
    pub fn stderr() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
                .with_style(ProgressStyle::default_spinner())
        });
        Self { state: Mutex::new(State { bar, last: None }) }
    }

    /// Shows one step.
    pub fn report(&self, progress: Progress) {
        let Ok(mut state) = self.state.lock() else {
            return;
        };
        let now = Instant::now();
        let last = state.last;
        let new_step = last.is_none_or(|(last, _)| text(last) != text(progress));
        if let Some(bar) = &state.bar {
            draw(bar, progress, new_step);
            state.last = Some((progress, now));
        } else if new_step
            || finished(progress)
            || last.is_some_and(|(_, at)| now.duration_since(at) >= LINE_EVERY)
        {
            say(&line(progress));
            state.last = Some((progress, now));
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Ok(state) = self.state.lock()
            && let Some(bar) = &state.bar
        {
            bar.finish_and_clear();
        }
    }
}

fn draw(bar: &ProgressBar, progress: Progress, new_step: bool) {
    if new_step {
        let template = match progress {
            Progress::Downloading { total: Some(_), .. } => {
                "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left"
            }
            Progress::Downloading { total: None, .. } => "{msg} {bytes}, {bytes_per_sec}",
            _ => "{spinner} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(text(progress));
        bar.enable_steady_tick(Duration::from_millis(100));
    }
    if let Progress::Downloading { received, total } = progress {
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(received);
    }
}

fn text(progress: Progress) -> &'static str {
    match progress {
        Progress::Downloading { .. } => "downloading PostgreSQL",
        Progress::Extracting => "unpacking PostgreSQL",
        Progress::Initialising => "creating the database",
        Progress::Starting => "starting PostgreSQL",
    }
}

fn finished(progress: Progress) -> bool {
    matches!(progress, Progress::Downloading { received, total: Some(total) } if received == total)
}

fn line(progress: Progress) -> String {
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    match progress {
        Progress::Downloading { received, total: Some(total) } => {
            format!("{}: {:.1} of {:.1} MiB", text(progress), mib(received), mib(total))
        }
        Progress::Downloading { received, total: None } => {
            format!("{}: {:.1} MiB", text(progress), mib(received))
        }
        _ => text(progress).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_how_far_a_download_is() {
        let at = |received, total| line(Progress::Downloading { received, total });
        assert_eq!(at(1_572_864, Some(15_119_738)), "downloading PostgreSQL: 1.5 of 14.4 MiB");
        assert_eq!(at(1_572_864, None), "downloading PostgreSQL: 1.5 MiB");
        assert_eq!(line(Progress::Starting), "starting PostgreSQL");
    }
}
