//! The command `media3watch`: parses the command line and hands over.

use std::num::NonZero;
use std::process::ExitCode;

use clap::Parser;
use media3watch::cli::Cli;
use tokio::runtime::{Builder, Runtime};

/// Better than the system's under many threads, above all musl's in the container.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keep_pages_small();
    let runtime = runtime().expect("a system that can start threads");
    runtime.block_on(Cli::parse().run())
}

/// Threads for half of the processors: Postgres is usually on the same machine and needs more
/// than we do (docs/adr/0016-half-of-the-processors.md).
#[expect(clippy::disallowed_methods, reason = "the runtime's own variable, read before ours")]
fn runtime() -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        builder.worker_threads(processors.div_ceil(2));
    }
    builder.enable_all().build()
}

/// The allocator asks for huge pages, and a few small objects in each of them make 20 MB out of
/// 3 (docs/adr/0012-small-pages.md). Where the system has no such switch, or refuses, memory is
/// all that it costs.
fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}
