use super::super::chance::{Domain, generator};
use super::super::model::{Content, Incident, Install};
use super::super::script::{self, Conditions};
use super::*;

fn playback(index: u64, typical_watch_ms: f64, incident: Option<Incident>) -> Playback {
    let mut rng = generator(1, Domain::LiveSession, index);
    let install = Install::draw(&mut rng);
    let content = Content::draw(&mut rng);
    let conditions = Conditions { typical_watch_ms, incident };
    let steps = script::draw(&mut rng, &install, &content, conditions);
    Playback::new(steps, install.device.drops_per_min)
}

fn step(act: Act, ms: u64) -> Step {
    Step { act, ms, bitrate: Some(1_600_000), network: Connection::WiFi, error: None }
}

#[test]
fn a_plain_session_reports_at_events_and_every_fifteen_seconds() {
    let steps = vec![
        step(Act::Idle, 100),
        step(Act::Join, 800),
        step(Act::Play, 40_000),
        step(Act::Ended, 2_000),
    ];
    let reports: Vec<_> = Playback::new(steps, 60.0).collect();
    let at: Vec<_> = reports.iter().map(|report| report.at_ms).collect();
    // Play begins at 900, too soon after the report at 100.
    assert_eq!(at, [100, 1_100, 16_100, 31_100, 40_900, 42_900]);
    let entries: Vec<_> = reports.iter().flat_map(|report| &report.entries).collect();
    let elapsed: Vec<_> = entries.iter().map(|entry| (entry.elapsed_ms, entry.state)).collect();
    assert_eq!(
        elapsed,
        [
            (100, "BUFFERING"),
            (900, "PLAYING"),
            (16_100, "PLAYING"),
            (31_100, "PLAYING"),
            (40_900, "ENDED")
        ]
    );
    let last = reports.last().expect("a final report");
    assert!(last.is_final);
    assert_eq!(last.totals.startup_ms, Some(800));
    assert_eq!(last.totals.play_ms, 40_000);
    assert_eq!(last.totals.dropped_frames, 40);
    assert_eq!(last.totals.mean_bitrate(), Some(1_600_000));
}

#[test]
fn the_rebuffer_ratio_is_media3s() {
    let steps = vec![
        step(Act::Idle, 100),
        step(Act::Join, 1_000),
        step(Act::Play, 6_000),
        step(Act::Stall, 2_000),
        step(Act::Play, 500),
        step(Act::Seek, 500),
        step(Act::Pause, 60_000),
    ];
    let last = Playback::new(steps, 0.0).finish().expect("a report");
    assert!((last.totals.rebuffer_ratio() - 0.2).abs() < 1e-9, "2 of 10 seconds");
    assert_eq!((last.totals.rebuffers, last.totals.seeks), (1, 1));
    assert_eq!(last.at_ms, 70_100);
}

#[test]
fn the_pace_is_the_sdks() {
    for index in 0..2_000 {
        let incident = [None, Some(Incident::Rebuffering)][usize::from(index % 2 == 1)];
        let mut playback = playback(index, 120_000.0, incident);
        let mut last: Option<u64> = None;
        let mut was_active = false;
        while let Some(report) = playback.next() {
            if let Some(last) = last {
                let gap = report.at_ms - last;
                assert!(gap > 0, "timestamps grow");
                assert!(report.is_final || gap >= MIN_GAP_MS, "session {index}: {gap} ms");
                assert!(!was_active || gap <= HEARTBEAT_MS, "session {index}: {gap} ms");
            }
            last = Some(report.at_ms);
            was_active = playback.step().act.is_active();
        }
        assert!(last.is_some());
    }
}

#[test]
fn totals_only_grow_and_add_up() {
    for index in 0..2_000 {
        let mut before = Totals::default();
        let mut elapsed = 0;
        for report in playback(index, 60_000.0, None) {
            let totals = report.totals;
            assert!(totals.play_ms >= before.play_ms && totals.rebuffer_ms >= before.rebuffer_ms);
            assert!(totals.rebuffers >= before.rebuffers && totals.seeks >= before.seeks);
            assert!(totals.errors >= before.errors && totals.join_ms >= before.join_ms);
            assert!(totals.dropped_frames >= before.dropped_frames);
            assert!(totals.seek_ms >= before.seek_ms);
            assert!(before.startup_ms.is_none() || totals.startup_ms == before.startup_ms);
            let watched = totals.play_ms + totals.join_ms + totals.rebuffer_ms + totals.seek_ms;
            assert!(watched <= report.at_ms);
            assert!((0.0..=1.0).contains(&totals.rebuffer_ratio()));
            assert!(report.entries.len() <= 500);
            for entry in report.entries {
                assert!(entry.elapsed_ms > elapsed && entry.elapsed_ms <= report.at_ms);
                elapsed = entry.elapsed_ms;
            }
            before = totals;
        }
    }
}

#[test]
fn a_cut_ends_a_session_with_a_newer_report() {
    for index in 0..300 {
        let mut playing = playback(index, 120_000.0, None);
        let first = playing.next().expect("a report");
        let mut ends_late = playing.clone();
        playing.cut(0);
        if let Some(last) = playing.finish() {
            assert!(last.is_final && last.at_ms == first.at_ms + 1);
        }
        ends_late.cut(20_000);
        if let Some(last) = ends_late.finish() {
            assert!(last.is_final && last.at_ms <= 20_000.max(first.at_ms + 1));
        }
    }
}

#[test]
fn finishing_hands_over_every_entry() {
    let reported: Vec<_> = playback(3, 600_000.0, None).flat_map(|report| report.entries).collect();
    let finished = playback(3, 600_000.0, None).finish().expect("a report");
    assert_eq!(finished.entries, reported);
}
