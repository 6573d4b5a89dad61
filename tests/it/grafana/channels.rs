//! Contact points: every set of channels, as files and through the program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use media3watch::config::ALERT_VARIABLES;
use media3watch::grafana::{Alerting, Channel, Channels};
use serde_json::Value;

use super::evaluate::yaml;
use crate::support::bin;

const FILE: &str = "provisioning/alerting/contact-points.yaml";

/// Settings without which Grafana does not start, by type.
fn required(kind: &str) -> &'static [&'static str] {
    match kind {
        "pagerduty" => &["integrationKey"],
        "email" => &["addresses"],
        "telegram" => &["bottoken", "chatid"],
        "slack" | "discord" | "webhook" => &["url"],
        other => panic!("no type {other}"),
    }
}

#[test]
fn every_set_of_channels_makes_a_file_that_grafana_takes() {
    for set in 0_u32..1 << Channel::ALL.len() {
        let chosen: BTreeSet<_> = (0..)
            .zip(Channel::ALL)
            .filter(|(bit, _)| set >> bit & 1 == 1)
            .map(|(_, c)| c)
            .collect();
        let channels = Channels { channels: chosen.clone(), ntfy_suffix: "?template=grafana" };
        let alerting = Alerting { channels, ..Alerting::default() };
        let file = yaml(&super::file(FILE, &alerting));
        assert_eq!(file["apiVersion"], 1);
        assert!(file["policies"].is_null() && file["resetPolicies"].is_null(), "not ours");
        let told = told(&alerting);
        if chosen.is_empty() {
            assert_eq!(file.as_object().expect("an object").len(), 1, "{file}");
            assert_eq!(told, BTreeSet::from([None]));
            continue;
        }
        let points = file["contactPoints"].as_array().expect("contact points");
        assert_eq!(points.len(), 1, "one, so that an alert goes to all");
        assert_eq!(told, BTreeSet::from([points[0]["name"].as_str().map(str::to_owned)]));
        let receivers = points[0]["receivers"].as_array().expect("receivers");
        assert_eq!(receivers.len(), chosen.len());
        let mut uids = BTreeSet::new();
        for (receiver, channel) in receivers.iter().zip(&chosen) {
            uids.insert(receiver["uid"].as_str().expect("a uid").to_owned());
            check(receiver, *channel);
        }
        let deleted = file["deleteContactPoints"].as_array().cloned().unwrap_or_default();
        for gone in &deleted {
            uids.insert(gone["uid"].as_str().expect("a uid").to_owned());
        }
        // Each is either there or deleted.
        assert_eq!(receivers.len() + deleted.len(), Channel::ALL.len());
        assert_eq!(uids.len(), Channel::ALL.len());
        assert!(uids.iter().all(|uid| uid.len() <= 40));
    }
}

/// What the rules name as the one to tell.
fn told(alerting: &Alerting) -> BTreeSet<Option<String>> {
    let file = yaml(&super::file("provisioning/alerting/rules.yaml", alerting));
    let groups = file["groups"].as_array().expect("groups");
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
    rules
        .map(|rule| rule["notification_settings"]["receiver"].as_str().map(str::to_owned))
        .collect()
}

fn check(receiver: &Value, channel: Channel) {
    let settings = receiver["settings"].as_object().expect("settings");
    let mut variables = channel.variables().to_vec();
    for name in required(receiver["type"].as_str().expect("a type")) {
        let value = settings[*name].as_str().unwrap_or_else(|| panic!("no {name}: {receiver}"));
        let named = value.strip_prefix('$').expect("a variable, not a value");
        let end = named.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(named.len());
        let at = variables.iter().position(|variable| *variable == &named[..end]);
        variables.remove(at.unwrap_or_else(|| panic!("{value} is not of {channel:?}")));
    }
    assert!(variables.is_empty(), "{variables:?} goes nowhere");
    for (name, value) in settings {
        let is_required = required(receiver["type"].as_str().expect("a type")).contains(&&**name);
        assert!(is_required || !value.to_string().contains('$'), "{name}: {value}");
    }
}

/// One value for each variable that sets up a channel, to be looked for.
fn examples() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("SLACK_WEBHOOK_URL", "https://hooks.slack.example/canary"),
        ("PAGERDUTY_INTEGRATION_KEY", "canary"),
        ("ALERT_EMAIL_ADDRESSES", "canary@example.com"),
        ("DISCORD_WEBHOOK_URL", "https://discord.example/canary"),
        ("TELEGRAM_BOT_TOKEN", "123:canary"),
        ("TELEGRAM_CHAT_ID", "@canary"),
        ("ALERT_WEBHOOK_URL", "https://example.com/canary"),
        ("NTFY_URL", "https://ntfy.example/canary?auth=canary"),
    ])
}

#[test]
fn the_export_writes_names_and_no_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    let export = |variables: &[(&str, &str)]| {
        let mut command = bin();
        command.args(["grafana", "export"]).arg(dir.path()).envs(variables.iter().copied());
        command.output().expect("it runs")
    };
    let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).expect(path);
    let all: Vec<_> = examples().into_iter().collect();
    let output = export(&all);
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    for (name, _) in &all {
        assert!(read(FILE).contains(&format!("${name}")), "{name} is not used");
        assert!(told.contains(name), "Grafana needs {name} too, and nobody is told");
    }
    assert!(read(FILE).contains("$NTFY_URL&template=grafana"));
    assert!(!told.contains("canary"));
    assert_no_canary(dir.path());

    // Empty, as compose passes on what is not set.
    let empty: Vec<_> = ALERT_VARIABLES.iter().map(|variable| (variable.name, "")).collect();
    assert!(export(&empty).status.success());
    assert!(!read(FILE).contains("contactPoints"));
    assert!(!read("provisioning/alerting/rules.yaml").contains("notification_settings"));

    let output = export(&[("TELEGRAM_CHAT_ID", "@canary")]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("TELEGRAM_BOT_TOKEN") && !error.contains("canary"), "{error}");
}

fn assert_no_canary(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            assert_no_canary(&path);
        } else {
            let text = std::fs::read_to_string(&path).expect("text");
            assert!(!text.contains("canary"), "{}", path.display());
        }
    }
}
