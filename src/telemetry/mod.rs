//! What the program says about itself: metrics and logs.

mod logging;
mod metrics;
mod once_a_minute;
mod standard_error;
mod totals;

pub use logging::{LogFormat, init as init_logging};
pub use metrics::Metrics;
pub use once_a_minute::OnceAMinute;
pub use standard_error::{flush as flush_log, say};
pub use totals::{Activity, Timing, Totals};
