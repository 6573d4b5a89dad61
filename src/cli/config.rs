//! `media3watch config check` and `config show`

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use crate::config::{Config, ConfigError, Environment, Setting, VARIABLES, Variable};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check all variables and report every wrong one: exit status 0 or 2
    ///
    /// Only the variables are looked at: it connects to nothing and starts nothing.
    Check,
    /// Show the effective values and where each came from; secrets are hidden
    #[command(after_help = after_help())]
    Show,
}

/// All variables with their meaning, for `config show --help`.
fn after_help() -> String {
    let mut help = String::from("Variables:\n");
    for Variable { name, default, is_secret, meaning } in VARIABLES {
        let file = if *is_secret { " (or a file: …_FILE)" } else { "" };
        let meaning = meaning.replace('`', "");
        help += &format!("  {name}{file}, default: {default}\n      {meaning}\n");
    }
    help
}

pub(super) fn run(args: &Args, environment: &Environment<'_>) -> anyhow::Result<ExitCode> {
    match (Config::load(environment), &args.action) {
        (Err(error), _) if args.json => {
            super::print(&problems(&error).to_string())?;
            Ok(ExitCode::from(2))
        }
        (Err(error), _) => {
            super::complain(&error.to_string());
            Ok(ExitCode::from(2))
        }
        (Ok(_), Action::Check) if args.json => {
            super::print(&json!({"valid": true, "problems": []}).to_string())
        }
        (Ok(_), Action::Check) => super::print("the configuration is valid"),
        (Ok(config), Action::Show) if args.json => {
            super::print(&serde_json::to_string_pretty(config.settings())?)
        }
        (Ok(config), Action::Show) => super::print(&table(config.settings())),
    }
}

fn problems(error: &ConfigError) -> serde_json::Value {
    let problems: Vec<_> = error
        .0
        .iter()
        .map(|p| json!({"name": p.name, "found": p.found, "expected": p.expected}))
        .collect();
    json!({"valid": false, "problems": problems})
}

fn table(settings: &[Setting]) -> String {
    let width = |column: fn(&Setting) -> usize| settings.iter().map(column).max().unwrap_or(0);
    let names = width(|setting| setting.name.len());
    let values = width(|setting| setting.value.len());
    let line = |setting: &Setting| {
        format!("{:names$}  {:values$}  {}", setting.name, setting.value, setting.source)
    };
    settings.iter().map(line).collect::<Vec<_>>().join("\n")
}
