//! What tests stand on: a Postgres, servers, and the binary.

mod binary;
mod cluster;
mod load;
mod raw;
mod server;

pub use binary::{Binary, bin};
pub use cluster::{Cluster, Database, unused_port};
pub use load::{Load, acknowledged, assert_all_acknowledged, assert_stored};
pub use raw::Raw;
pub use server::{Answer, KEY, Server, ServerOptions, client, now_ms};
