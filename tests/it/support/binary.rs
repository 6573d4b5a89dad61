//! The real binary, as a user runs it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The binary with an empty environment.
pub fn bin() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_media3watch"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// A running server.
pub struct Binary {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Binary {
    /// Starts `media3watch serve` on a free port and waits until it listens.
    pub fn serve(env: &[(&str, &str)]) -> Self {
        Self::run(bin(), env)
    }

    /// The same, where `command` comes to be the server.
    pub fn run(mut command: Command, env: &[(&str, &str)]) -> Self {
        command.envs([("PORT", "0"), ("HOST", "127.0.0.1"), ("RATE_LIMIT_REQUESTS", "1000000")]);
        command.envs(env.iter().copied()).env("LOG_FORMAT", "json");
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        let log = Arc::new(Mutex::new(String::new()));
        let mut stdout = child.stdout.take().expect("piped");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (found, address) = std::sync::mpsc::channel();
        let out_log = Arc::clone(&log);
        let out = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            out_log.lock().expect("ours").push_str(&text);
        });
        let err_log = Arc::clone(&log);
        let err = std::thread::spawn(move || {
            for line in stderr.lines() {
                let Ok(line) = line else { break };
                if let Ok(event) = serde_json::from_str::<Value>(&line)
                    && event["message"] == "listening"
                {
                    let address = event["address"].as_str().expect("an address");
                    let _ = found.send(address.parse().expect("an address"));
                }
                let mut log = err_log.lock().expect("ours");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let address = address.recv_timeout(Duration::from_mins(1));
        let address =
            address.unwrap_or_else(|_| panic!("no start:\n{}", log.lock().expect("ours")));
        Self { child, address, log, readers: vec![out, err] }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What was logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("ours").clone()
    }

    /// Waits until something is logged.
    pub fn logs(&self, text: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs");
    }

    /// The most memory that was ever resident, in MiB. Linux only.
    pub fn peak_memory_mib(&self) -> f64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.expect("a peak").trim().trim_end_matches(" kB");
        kib.parse::<f64>().expect("a number") / 1024.0
    }

    /// Waits for the end: status, and all that was printed.
    pub fn wait(mut self, limit: Duration) -> (ExitStatus, String) {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("ours") {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "still running:\n{}",
                self.log.lock().expect("ours")
            );
            std::thread::sleep(Duration::from_millis(20));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("reads to the end");
        }
        let log = self.log.lock().expect("ours").clone();
        (status, log)
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
