//! What rollups sum up, and by what: the one list that reading, merging and writing follow.

/// The logarithm of (1 + a) / (1 - a), by which bins grow: the estimate of a percentile is off by
/// at most a = 1.5 % (DDSketch, Masson et al., VLDB 2019).
pub(super) const LN_GAMMA: &str = "0.0300022503037987::float8";

/// What one session adds to a measure, as expressions over `session_qoe`. Null is 0.
pub(super) enum Term {
    /// 1 where it is true.
    Count(&'static str),
    /// Its value.
    Sum(&'static str),
    /// The product of two, which may be too large for a bigint.
    Product(&'static str, &'static str),
}

/// A column of `rollups` that is a sum.
pub(super) struct Measure {
    pub(super) name: &'static str,
    pub(super) term: Term,
}

const fn count(name: &'static str, condition: &'static str) -> Measure {
    Measure { name, term: Term::Count(condition) }
}

const fn sum(name: &'static str, expression: &'static str) -> Measure {
    Measure { name, term: Term::Sum(expression) }
}

const fn product(name: &'static str, a: &'static str, b: &'static str) -> Measure {
    Measure { name, term: Term::Product(a, b) }
}

/// All measures, in the order of their columns.
pub(super) const MEASURES: &[Measure] = &[
    count("sessions", "true"),
    sum("reports", "report_count"),
    count("failed", "failed"),
    count("played", "played"),
    count("start_failed", "start_failed"),
    count("exited_before_start", "exited_before_start"),
    count("rebuffered", "rebuffered"),
    count("slow_start", "slow_start"),
    count("bad", "bad"),
    count("bad_played", "bad AND played"),
    count(
        "mostly_rebuffered",
        "NOT failed AND NOT exited_before_start AND 50 * rebuffer_time_ms > watched_ms",
    ),
    count(
        "mostly_slow_start",
        "NOT failed AND NOT exited_before_start AND slow_start
           AND NOT coalesce(50 * rebuffer_time_ms > watched_ms, false)",
    ),
    count("started", "player_startup_ms IS NOT NULL"),
    count("without_startup", "played AND player_startup_ms IS NULL"),
    count("without_content", "content_id IS NULL"),
    count("without_device", "device_model IS NULL"),
    count("clock_skewed", "clock_skew_ms IS NOT NULL"),
    sum("player_startup_ms", "player_startup_ms"),
    sum("session_duration_ms", "session_duration_ms"),
    sum("play_time_ms", "play_time_ms"),
    sum("rebuffer_time_ms", "rebuffer_time_ms"),
    sum("seek_time_ms", "seek_time_ms"),
    sum("watched_ms", "watched_ms"),
    sum("rebuffer_count", "rebuffer_count"),
    sum("counted_watched_ms", "CASE WHEN rebuffer_count IS NOT NULL THEN watched_ms END"),
    sum("seek_count", "seek_count"),
    sum("quality_switch_count", "quality_switch_count"),
    sum("error_count", "error_count"),
    sum("rated_play_time_ms", "CASE WHEN avg_bitrate_kbps IS NOT NULL THEN play_time_ms END"),
    sum("startup_score_milli", "round(1000 * startup_score)::bigint"),
    sum("smoothness_score_milli", "round(1000 * smoothness_score)::bigint"),
    sum("dropped_frames", "dropped_frames"),
    product("rated_kbits", "avg_bitrate_kbps", "play_time_ms"),
    product("player_startup_squares", "player_startup_ms", "player_startup_ms"),
    product("watched_squares", "watched_ms", "watched_ms"),
    product("rebuffer_squares", "rebuffer_time_ms", "rebuffer_time_ms"),
    product("rebuffer_watched", "rebuffer_time_ms", "watched_ms"),
];
