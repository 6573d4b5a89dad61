//! The command `media3watch`: parses the command line and hands over.

use std::process::ExitCode;

use clap::Parser;
use media3watch::cli::Cli;

/// Better than the system's under many threads, above all musl's in the container.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keep_pages_small();
    run()
}

#[tokio::main]
async fn run() -> ExitCode {
    Cli::parse().run().await
}

/// The allocator asks for huge pages, and a few small objects in each of them make 20 MB out of
/// 3 (docs/adr/0012-small-pages.md). Where the system has no such switch, or refuses, memory is
/// all that it costs.
fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}
