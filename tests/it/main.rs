//! Tests of the whole program: real Postgres, real servers on ports of their own, and the
//! real binary. Every test has a database to itself.
//!
//! Postgres is that of `M3W_TEST_PG_BIN` (a directory with `initdb` and `postgres`), or else
//! the built-in one, fetched once.

#![expect(clippy::disallowed_methods, reason = "tests have an environment and a clock")]
#![expect(unreachable_pub, reason = "the support modules are shared by all tests")]

mod citus;
mod cli;
mod data_dir;
mod database_url;
mod docs;
mod faults;
mod grafana;
mod http;
mod import;
mod isolation;
mod malformed;
mod managed_pg;
mod migrations;
mod minutes;
mod pooler;
mod qoe;
mod reader;
mod rejected;
mod restore;
mod retention;
mod rollups;
mod simulate;
mod slow;
#[cfg(target_os = "linux")]
mod standard_error;
mod statements;
mod supervision;
mod support;
mod tls;
mod upsert;
mod wire;
