//! The command `media3watch`: parses the command line and hands over.

use std::process::ExitCode;

use clap::Parser;
use media3watch::cli::Cli;

/// Better than the system's under many threads, above all musl's in the container.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().run().await
}
