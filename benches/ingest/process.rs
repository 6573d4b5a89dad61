//! What processes cost, from /proc: CPU seconds and memory.

use std::fs;
use std::time::Duration;

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

/// CPU seconds of a process.
pub fn cpu(pid: i32) -> Result<f64> {
    Ok(seconds(pid)?.0)
}

/// CPU seconds of a postmaster and of all its children, ended ones included.
pub fn cpu_of_family(postmaster: i32) -> Result<f64> {
    let path = format!("/proc/{postmaster}/task/{postmaster}/children");
    let children = fs::read_to_string(path)?;
    let children = children.split_whitespace().filter_map(|pid| cpu(pid.parse().ok()?).ok());
    let (own, ended) = seconds(postmaster)?;
    Ok(own + ended + children.sum::<f64>())
}

/// CPU seconds of this process and of those it has waited for: the load client, and pgbench.
pub fn cpu_of_client(who: UsageWho) -> f64 {
    let Ok(usage) = getrusage(who) else { return 0.0 };
    let seconds = |time: nix::sys::time::TimeVal| {
        #[expect(clippy::cast_precision_loss, reason = "seconds and microseconds")]
        let seconds = time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs_f64()
    };
    seconds(usage.user_time()) + seconds(usage.system_time())
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
