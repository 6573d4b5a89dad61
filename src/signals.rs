//! Signals that end the program: the first one begins an orderly end, the second one ends it at
//! once.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::telemetry;

/// A second signal within this time is the first one again.
const SAME_SIGNAL: Duration = Duration::from_millis(250);
/// How long the last lines of the log may hold up an immediate end.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// Signals that end a process by default and say nothing about a fault in it. A terminal or an
/// SSH session that is closed sends SIGHUP. (Rust ignores SIGPIPE from the start.)
const ENDING: [Signal; 12] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
];
/// Further ones, which only Linux has: SIGSTKFLT, SIGPWR, and the real-time signals but for the
/// two that its C libraries keep for themselves.
#[cfg(target_os = "linux")]
fn ending_here() -> impl Iterator<Item = i32> {
    [Signal::SIGSTKFLT as i32, Signal::SIGPWR as i32].into_iter().chain(35..=64)
}
#[cfg(not(target_os = "linux"))]
fn ending_here() -> impl Iterator<Item = i32> {
    std::iter::empty()
}

/// Cancels `stopping` at the first signal that would end the process; a second one ends it at
/// once, with status 1. Those that were ignored when the program was started, as `nohup` does,
/// stay ignored.
///
/// # Errors
/// When signals cannot be listened to.
pub fn stop_on_signals(stopping: CancellationToken) -> std::io::Result<()> {
    let ignored = ignored();
    let ending = ENDING.into_iter().map(|signal| signal as i32).chain(ending_here());
    let (sender, mut received) = mpsc::channel::<i32>(1);
    for ending in ending.filter(|number| ignored & (1 << (number - 1)) == 0) {
        let mut signals = signal(SignalKind::from_raw(ending))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() && sender.send(ending).await.is_ok() {}
        });
    }
    tokio::spawn(async move {
        let mut began: Option<Instant> = None;
        while let Some(number) = received.recv().await {
            let signal = Signal::try_from(number)
                .map_or_else(|_| number.to_string(), |signal| signal.to_string());
            match began {
                None => {
                    tracing::info!(
                        %signal,
                        "shutting down; send the signal again to exit immediately"
                    );
                    began = Some(Instant::now());
                    stopping.cancel();
                }
                // A wrapper that passes signals on, and a terminal that signals the whole
                // group, deliver one twice.
                Some(began) if began.elapsed() < SAME_SIGNAL => {}
                Some(_) => {
                    tracing::warn!(%signal, "exiting immediately");
                    telemetry::flush_log(FLUSH_TIMEOUT);
                    std::process::exit(1);
                }
            }
        }
    });
    Ok(())
}

/// The signals that this process ignores, a bit for each, the lowest for signal 1.
#[cfg(target_os = "linux")]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Elsewhere nothing that is safe to call tells.
#[cfg(not(target_os = "linux"))]
fn ignored() -> u64 {
    0
}
