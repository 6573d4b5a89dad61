//! Micro-benchmarks: `just bench-micro`.
//!
//! - `decode`: from the bytes of a report to a validated `SessionReport`, for each report in
//!   tests/fixtures/wire, beside bare `serde_json` on the same bytes;
//! - `limiter`: one request taken out of a key's bucket.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use media3watch::auth::{Keys, PlainKey};
use media3watch::limit::{Limiter, RateLimit};
use media3watch::report;

/// Name and bytes of each report, as an SDK would send it: without blanks.
fn fixtures() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire");
    let mut fixtures = Vec::new();
    for file in dir.read_dir().expect("the fixtures") {
        let path = file.expect("a file").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        // What each report becomes; not a report.
        if name == "expected" {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("text");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        fixtures.push((name, value.to_string().into_bytes()));
    }
    fixtures.sort();
    fixtures
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, body) in fixtures() {
        report::parse(&body, &report::Paths::NONE).expect("fixtures are valid");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("{name}/report::parse"), |bencher| {
            bencher.iter(|| report::parse(black_box(&body), &report::Paths::NONE));
        });
        group.bench_function(format!("{name}/serde_json::Value"), |bencher| {
            bencher.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(&body)));
        });
    }
    group.finish();
}

fn limiter(criterion: &mut Criterion) {
    let keys = Keys::from_environment(&PlainKey::new("key".to_owned()));
    let caller = keys.authenticate(b"key").expect("the key");
    let limit = |requests, window| {
        let requests = NonZeroU32::new(requests).expect("not zero");
        Limiter::new(RateLimit { requests, window })
    };
    let mut group = criterion.benchmark_group("limiter");
    let passing = limit(u32::MAX, Duration::from_secs(1));
    group.bench_function("take, passing", |bencher| bencher.iter(|| passing.take(caller)));
    let refusing = limit(1, Duration::from_hours(24));
    let _ = refusing.take(caller);
    group.bench_function("take, refused", |bencher| bencher.iter(|| refusing.take(caller)));
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    decode(&mut criterion);
    limiter(&mut criterion);
    criterion.final_summary();
}
