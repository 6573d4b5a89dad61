//! What the program says about itself: metrics and logs.

mod logging;
mod metrics;
mod totals;

pub use logging::{LogFormat, init as init_logging};
pub use metrics::Metrics;
pub use totals::{Activity, Timing, Totals};
