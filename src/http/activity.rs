//! What a connection is doing, and when it has done it for too long.
//!
//! hyper's own header timeout also ends idle keep-alive connections, and the detection of
//! HTTP/2 has no timeout at all, so the clock is ours: it sees bytes coming in, requests
//! beginning and ending, and large responses leaving.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::Version;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limit::{Limits, Place};

/// How long an idle connection stays once the server stops: a response that was given to hyper
/// a moment ago leaves in that time.
const STOPPING: Duration = Duration::from_secs(1);

/// Shared by a connection's socket, its requests and its clock.
#[derive(Clone)]
pub(super) struct Activity(Arc<Shared>);

struct Shared {
    place: Place,
    limits: Limits,
    state: Mutex<State>,
    sooner: Notify,
}

struct State {
    /// In a handler.
    requests: usize,
    /// Bodies that are being thrown away.
    leftovers: usize,
    /// Until when large responses have to be written.
    unwritten: Vec<Instant>,
    /// When the head that is being read began.
    head_since: Option<Instant>,
    idle_since: Instant,
    is_http2: bool,
    is_stopping: bool,
    /// When the clock will look again.
    armed: Instant,
}

impl State {
    fn is_busy(&self) -> bool {
        self.requests > 0 || !self.unwritten.is_empty()
    }
}

impl Activity {
    pub(super) fn new(place: Place, limits: Limits) -> Self {
        let now = Instant::now();
        let state = State {
            requests: 0,
            leftovers: 0,
            unwritten: Vec::new(),
            // A new connection has the time of a head to send one.
            head_since: Some(now),
            idle_since: now,
            is_http2: false,
            is_stopping: false,
            armed: now,
        };
        let state = Mutex::new(state);
        Self(Arc::new(Shared { place, limits, state, sooner: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether only probes may be answered on this connection.
    pub(super) fn is_spare(&self) -> bool {
        self.0.place.is_spare()
    }

    /// The address that the connection is counted for.
    pub(super) fn peer(&self) -> IpAddr {
        self.0.place.peer()
    }

    pub(super) fn bytes_read(&self) {
        let mut state = self.state();
        // On HTTP/2 bytes may be pings: there, only idleness counts.
        let is_head = !state.is_busy() && state.leftovers == 0 && !state.is_http2;
        if is_head && state.head_since.is_none() {
            let now = Instant::now();
            state.head_since = Some(now);
            // On a busy connection the clock looks soon enough, and is let sleep.
            if state.armed > now + self.0.limits.head {
                self.0.sooner.notify_one();
            }
        }
    }

    /// A request is with its handler until the guard is dropped.
    pub(super) fn request(&self, version: Version) -> Guard {
        let mut state = self.state();
        state.requests += 1;
        state.head_since = None;
        state.is_http2 = version == Version::HTTP_2;
        self.0.place.is_busy();
        self.guard(Kind::Request)
    }

    /// The rest of a body is thrown away until the guard is dropped. The request has its response:
    /// the connection counts as idle.
    pub(super) fn leftover(&self) -> Guard {
        self.state().leftovers += 1;
        self.guard(Kind::Leftover)
    }

    /// So many bytes wait to be written until the guard is dropped.
    pub(super) fn unwritten(&self, bytes: usize) -> Guard {
        let deadline = Instant::now() + self.0.limits.write_for(bytes);
        let mut state = self.state();
        state.unwritten.push(deadline);
        self.0.place.is_busy();
        if state.armed > deadline {
            self.0.sooner.notify_one();
        }
        self.guard(Kind::Unwritten(deadline))
    }

    fn guard(&self, kind: Kind) -> Guard {
        Guard { activity: self.clone(), kind }
    }

    /// The server takes no more requests.
    pub(super) fn stop(&self) {
        self.state().is_stopping = true;
    }

    /// When the clock has to look again: the connection is to be ended then if nothing has
    /// happened. Handlers, and reading bodies, have deadlines of their own.
    pub(super) fn deadline(&self) -> Instant {
        let limits = &self.0.limits;
        let mut state = self.state();
        let deadline = if state.is_busy() {
            Instant::now() + limits.head
        } else if state.is_stopping {
            state.idle_since + STOPPING
        } else if state.leftovers > 0 {
            Instant::now() + limits.head
        } else if let Some(since) = state.head_since {
            since + limits.head
        } else {
            state.idle_since + limits.idle
        };
        let unwritten = state.unwritten.iter().copied().min();
        state.armed = unwritten.map_or(deadline, |first| first.min(deadline));
        state.armed
    }

    /// Waits until the deadline has come nearer.
    pub(super) async fn sooner(&self) {
        self.0.sooner.notified().await;
    }

    /// Waits until the connection has to give way to another one.
    pub(super) async fn evicted(&self) {
        self.0.place.evicted().await;
    }
}

/// Marks the end of what it stands for.
pub(super) struct Guard {
    activity: Activity,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Request,
    Leftover,
    Unwritten(Instant),
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        match self.kind {
            Kind::Request => state.requests -= 1,
            Kind::Leftover => state.leftovers -= 1,
            Kind::Unwritten(deadline) => {
                let position = state.unwritten.iter().position(|other| *other == deadline);
                position.map(|at| state.unwritten.swap_remove(at));
            }
        }
        if !state.is_busy() && !matches!(self.kind, Kind::Leftover) {
            state.idle_since = Instant::now();
            self.activity.0.place.is_idle();
            if state.is_stopping {
                self.activity.0.sooner.notify_one();
            }
        }
    }
}
