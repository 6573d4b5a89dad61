//! How a run ends before its time: Ctrl-C, or an error that no later request would mend.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Shared by everything that runs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    ending: CancellationToken,
    now: CancellationToken,
    error: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Stop {
    /// A stop that the first Ctrl-C begins (sessions end, the last reports go out), and the
    /// second completes.
    pub(super) fn on_ctrl_c() -> Self {
        let stop = Self::default();
        let handle = stop.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                handle.ending.cancel();
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                handle.now.cancel();
            }
        });
        stop
    }

    /// Ends everything at once because of `error`; the first error stays.
    pub(super) fn fail(&self, error: anyhow::Error) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.ending.cancel();
        self.now.cancel();
    }

    /// The error that ended the run.
    pub(super) fn take_error(&self) -> Option<anyhow::Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns when the run should come to its end.
    pub(super) async fn ending(&self) {
        self.ending.cancelled().await;
    }

    /// Whether the run should come to its end.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_cancelled()
    }

    /// Returns when nothing more should be waited for.
    pub(super) async fn now(&self) {
        self.now.cancelled().await;
    }
}
