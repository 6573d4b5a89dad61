//! What is provisioned into Grafana, checked without one: its SQL is run on a real Postgres.

pub mod macros;
pub mod queries;
