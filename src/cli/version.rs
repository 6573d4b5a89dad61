//! `media3watch version`

use std::process::ExitCode;

use serde_json::json;

use crate::{REVISION, VERSION};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.json {
        return super::print(&json!({"version": VERSION, "revision": REVISION}).to_string());
    }
    super::print(&format!("media3watch {VERSION} (revision {REVISION})"))
}
