//! Colours with a meaning, and the scales by which a number is good or bad.

use serde::Deserialize;
use serde_json::{Value, json};

/// What a colour says. Nothing is coloured for decoration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Colour {
    /// As it should be.
    Good,
    /// Worth a look.
    Warning,
    /// Viewers suffer.
    Bad,
    /// A number that is neither.
    Neutral,
    /// A second one beside it.
    Second,
    /// What stands in the background, such as sample sizes.
    Quiet,
}

impl Colour {
    /// A colour of Grafana's palette, which suits its light and its dark theme.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Good => "green",
            Self::Warning => "orange",
            Self::Bad => "red",
            Self::Neutral => "blue",
            Self::Second => "purple",
            Self::Quiet => "#8e8e9c",
        }
    }
}

/// From which value on a number is good, worth a look, bad. The alert rules have the same
/// thresholds where there is a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scale {
    /// Share of sessions without trouble.
    Good,
    /// Share of sessions with an error, or that failed to start.
    Errors,
    /// Share of watched time spent rebuffering.
    Rebuffering,
    /// Median startup time, ms.
    StartupMedian,
    /// 95th percentile of startup time, ms.
    StartupP95,
    /// Share of sessions that were left before they started.
    Exits,
    /// Share of reports or sessions that are missing or doubtful.
    Doubt,
    /// Share among bad sessions over share among all.
    Lift,
    /// Age of a heartbeat, seconds.
    Silence,
    /// Part of a capacity in use.
    Usage,
    /// Something that should not happen at all.
    Any,
    /// Milliseconds that the backend takes.
    Latency,
}

impl Scale {
    /// Where a number begins to be worth a look, and where it begins to be bad.
    const fn steps(self) -> (f64, f64) {
        match self {
            Self::Good => (0.85, 0.75),
            Self::Errors => (0.03, 0.05),
            Self::Rebuffering => (0.01, 0.02),
            Self::StartupMedian => (1_500.0, 3_000.0),
            Self::StartupP95 => (3_000.0, 5_000.0),
            Self::Exits => (0.05, 0.10),
            Self::Doubt => (0.01, 0.05),
            Self::Lift => (1.25, 2.0),
            Self::Silence => (120.0, 300.0),
            Self::Usage => (0.70, 0.90),
            Self::Any => (0.000_001, 1.0),
            Self::Latency => (250.0, 1_000.0),
        }
    }

    /// `thresholds` of a field.
    pub(super) fn thresholds(self) -> Value {
        let (look, bad) = self.steps();
        let (good, warning, worst) = (Colour::Good, Colour::Warning, Colour::Bad);
        // The one scale on which more is better.
        let steps = if look > bad {
            [(None, worst), (Some(bad), warning), (Some(look), good)]
        } else {
            [(None, good), (Some(look), warning), (Some(bad), worst)]
        };
        let steps = steps.map(|(value, colour)| json!({"value": value, "color": colour.name()}));
        json!({"mode": "absolute", "steps": steps})
    }
}
