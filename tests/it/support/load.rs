//! Clients that post without a pause, and what they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;

use super::{Database, KEY, client, now_ms};

/// Clients that post new sessions one after another until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Attempt>>>,
}

/// One report, and its answer: a status, or 0 when the connection broke.
pub struct Attempt {
    pub id: String,
    pub status: u16,
    pub took: Duration,
}

impl Load {
    pub fn start(url: &str, clients: usize, pause: Duration) -> Self {
        static RUN: AtomicU64 = AtomicU64::new(0);
        let run = RUN.fetch_add(1, Ordering::Relaxed);
        let stop = Arc::new(AtomicBool::new(false));
        let client = client(Duration::from_secs(12));
        let spawn = |number| {
            let (client, url, stop) =
                (client.clone(), format!("{url}/v1/sessions"), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut attempts = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let id = format!("load{run}-{number}-{}", attempts.len());
                    let body = json!({"sessionId": id, "timestamp": now_ms(), "playTimeMs": 1});
                    let began = Instant::now();
                    let request = client.post(&url).header("X-API-Key", KEY).json(&body);
                    let status = request.send().await.map_or(0, |answer| answer.status().as_u16());
                    attempts.push(Attempt { id, status, took: began.elapsed() });
                    tokio::time::sleep(pause).await;
                }
                attempts
            })
        };
        Self { clients: (0..clients).map(spawn).collect(), stop }
    }

    pub async fn end(self) -> Vec<Attempt> {
        self.stop.store(true, Ordering::Relaxed);
        let mut attempts = Vec::new();
        for client in self.clients {
            attempts.extend(client.await.expect("a client runs to its end"));
        }
        attempts
    }
}

pub fn acknowledged(attempts: &[Attempt]) -> Vec<&str> {
    attempts.iter().filter(|a| a.status == 200).map(|a| a.id.as_str()).collect()
}

pub async fn assert_stored(database: &Database, ids: &[&str]) {
    let found = "SELECT count(*) || ' ' || count(DISTINCT session_id) FROM sessions WHERE session_id = ANY(";
    let list: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
    let sql = format!("{found}ARRAY[{}])", list.join(","));
    assert_eq!(database.value(&sql).await, Some(format!("{0} {0}", ids.len())));
}

pub fn assert_all_acknowledged(attempts: &[Attempt]) {
    let refused: Vec<u16> = attempts.iter().map(|a| a.status).filter(|s| *s != 200).collect();
    assert!(refused.is_empty(), "{} of {} failed: {refused:?}", refused.len(), attempts.len());
}
