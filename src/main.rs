//! The command `media3watch`: parses the command line and hands over.

use std::num::NonZero;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use media3watch::cli::{self, Cli};
use media3watch::telemetry;
use tokio::runtime::Builder;

/// How long the last lines of the log may take when the program ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";

/// Better than the system's under many threads, above all musl's in the container.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let code = run();
    telemetry::flush_log(FLUSH_TIMEOUT);
    code
}

fn run() -> ExitCode {
    keep_pages_small();
    let threads = match worker_threads() {
        Ok(threads) => threads,
        Err(error) => return cli::refuse(&error),
    };
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    runtime.expect("a system that can start threads").block_on(Cli::parse().run())
}

/// Threads for half of the processors: Postgres is usually on the same machine and needs more
/// than we do (docs/adr/0016-half-of-the-processors.md). The runtime's own variable still counts,
/// but not its panic where that is no number.
#[expect(clippy::disallowed_methods, reason = "the runtime is made before the configuration")]
fn worker_threads() -> Result<usize, String> {
    let value = std::env::var(WORKER_THREADS).unwrap_or_default();
    if value.trim().is_empty() {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        return Ok(processors.div_ceil(2));
    }
    let number = value.trim().parse::<NonZero<u8>>();
    number.map(|number| number.get().into()).map_err(|_| {
        format!("{WORKER_THREADS} is {value:?}: a whole number from 1 to 255 is allowed")
    })
}

/// The allocator asks for huge pages, and a few small objects in each of them make 20 MB out of
/// 3 (docs/adr/0012-small-pages.md). Where the system has no such switch, or refuses, memory is
/// all that it costs.
fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}
