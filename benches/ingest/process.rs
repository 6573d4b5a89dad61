//! What processes cost, from /proc: CPU seconds and memory.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};

/// Clock ticks per second in /proc; fixed on Linux.
const TICKS: f64 = 100.0;

/// CPU seconds of a process: its own, and those of its children that have ended.
fn seconds(pid: i32) -> Result<(f64, f64)> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(path).context("CPU times come from /proc: this needs Linux")?;
    // The name in parentheses may hold anything.
    let (_, fields) = text.rsplit_once(')').context("a name")?;
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(4).flat_map(str::parse).collect();
    let [user, system, user_ended, system_ended] = ticks[..] else { anyhow::bail!("no times") };
    Ok(((user + system) / TICKS, (user_ended + system_ended) / TICKS))
}

/// CPU seconds of a postmaster and of all its children, ended ones included.
fn family(postmaster: i32) -> Result<f64> {
    let path = format!("/proc/{postmaster}/task/{postmaster}/children");
    let children = fs::read_to_string(path)?;
    let children = children.split_whitespace();
    let running = children.filter_map(|pid| Some(seconds(pid.parse().ok()?).ok()?.0));
    let (own, ended) = seconds(postmaster)?;
    Ok(own + ended + running.sum::<f64>())
}

/// CPU seconds of this process, and of those it has waited for: the load client, and pgbench.
fn client() -> f64 {
    let of = |who| {
        let Ok(usage) = getrusage(who) else { return 0.0 };
        let times = [usage.user_time(), usage.system_time()];
        times.map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6).iter().sum()
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}

/// CPU seconds that all processors had, and those in which they were busy.
fn machine_seconds() -> Result<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no cpu")?;
    // user, nice, system, idle, iowait, irq, softirq, steal
    let ticks: Vec<f64> = line.split_whitespace().take(8).flat_map(str::parse).collect();
    let all: f64 = ticks.iter().sum();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    Ok((all / TICKS, (all - idle) / TICKS))
}

/// Who uses the processors while something is measured.
pub struct Meter {
    postmaster: i32,
    servers: Vec<i32>,
    /// Servers, Postgres, client, all time, busy time; in seconds.
    start: [f64; 5],
}

impl Meter {
    /// Starts to measure.
    pub fn start(postmaster: i32, servers: Vec<i32>) -> Result<Self> {
        let start = Self::read(postmaster, &servers)?;
        Ok(Self { postmaster, servers, start })
    }

    fn read(postmaster: i32, servers: &[i32]) -> Result<[f64; 5]> {
        let of_servers = servers.iter().map(|pid| Ok(seconds(*pid)?.0)).sum::<Result<f64>>()?;
        let (all, busy) = machine_seconds()?;
        Ok([of_servers, family(postmaster)?, client(), all, busy])
    }

    /// What was used since the start. Others are whoever else was on the machine, in percent of
    /// all processors; interrupts, which belong to nobody, are among them.
    pub fn read_out(&self) -> Result<Vec<(&'static str, f64)>> {
        let now = Self::read(self.postmaster, &self.servers)?;
        let used = |index: usize| now[index] - self.start[index];
        let others = (used(4) - used(0) - used(1) - used(2)).max(0.0);
        let mut values = vec![
            ("cpu_postgres_s", used(1)),
            ("cpu_client_s", used(2)),
            ("others_percent", others / used(3) * 100.0),
        ];
        if !self.servers.is_empty() {
            values.push(("cpu_server_s", used(0)));
        }
        Ok(values)
    }
}

/// A line of /proc/PID/status in MiB: `VmRSS`, or `VmHWM`, the most there ever was.
pub fn memory_mib(pid: i32, name: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib: f64 =
        line.and_then(|line| line.split_whitespace().next()).context("no line")?.parse()?;
    Ok(kib / 1024.0)
}

/// Processors, memory and kernel of this machine, in words.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let model = field(&read("/proc/cpuinfo"), "model name");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kib: u64 = memory.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    // What comes after that is the distribution's.
    let kernel = kernel.split(['.', '-']).take(2).collect::<Vec<_>>().join(".");
    format!("{cpus} × {model}, {} GiB, Linux {kernel}", kib.div_ceil(1024 * 1024))
}
