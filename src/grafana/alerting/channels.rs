//! Where alerts are told: one contact point with a receiver for each channel that is set up.
//!
//! The rules name the contact point themselves: Grafana makes contact points before it reads
//! rules, and deletes what is to be deleted after that. The tree of notification policies stays what
//! people make of it in Grafana: a file with policies would replace all of it at every start.

use std::collections::BTreeSet;

use super::super::{File, MARK};

/// Name of the contact point.
pub(super) const CONTACT_POINT: &str = "Media3Watch";

/// A way to tell somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// An incoming webhook of Slack.
    Slack,
    /// A service of PagerDuty.
    PagerDuty,
    /// Through the SMTP server that Grafana knows.
    Email,
    /// A webhook of Discord.
    Discord,
    /// A bot of Telegram.
    Telegram,
    /// JSON to an address of one's own.
    Webhook,
    /// A topic of ntfy.
    Ntfy,
}

/// The channels that are set up. Their values stay in the environment, where Grafana finds them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Channels {
    /// Which.
    pub channels: BTreeSet<Channel>,
    /// What makes ntfy read Grafana's JSON, to be added to its address.
    pub ntfy_suffix: &'static str,
}

impl Channel {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::Slack,
        Self::PagerDuty,
        Self::Email,
        Self::Discord,
        Self::Telegram,
        Self::Webhook,
        Self::Ntfy,
    ];

    /// The variables that Grafana must have too, as many as the settings they fill.
    #[must_use]
    pub const fn variables(self) -> &'static [&'static str] {
        match self {
            Self::Slack => &["SLACK_WEBHOOK_URL"],
            Self::PagerDuty => &["PAGERDUTY_INTEGRATION_KEY"],
            Self::Email => &["ALERT_EMAIL_ADDRESSES"],
            Self::Discord => &["DISCORD_WEBHOOK_URL"],
            Self::Telegram => &["TELEGRAM_BOT_TOKEN", "TELEGRAM_CHAT_ID"],
            Self::Webhook => &["ALERT_WEBHOOK_URL"],
            Self::Ntfy => &["NTFY_URL"],
        }
    }

    /// Frozen: by it Grafana changes or deletes the receiver.
    const fn uid(self) -> &'static str {
        match self {
            Self::Slack => "m3w-slack",
            Self::PagerDuty => "m3w-pagerduty",
            Self::Email => "m3w-email",
            Self::Discord => "m3w-discord",
            Self::Telegram => "m3w-telegram",
            Self::Webhook => "m3w-webhook",
            Self::Ntfy => "m3w-ntfy",
        }
    }

    /// Grafana's type of receiver, and the settings that the variables fill.
    const fn receiver(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Slack => ("slack", &["url"]),
            Self::PagerDuty => ("pagerduty", &["integrationKey"]),
            Self::Email => ("email", &["addresses"]),
            Self::Discord => ("discord", &["url"]),
            Self::Telegram => ("telegram", &["bottoken", "chatid"]),
            Self::Webhook | Self::Ntfy => ("webhook", &["url"]),
        }
    }

    /// Further settings, as YAML.
    const fn more(self) -> &'static str {
        match self {
            // PagerDuty knows both of our severities.
            Self::PagerDuty => "          severity: \"{{ .CommonLabels.severity }}\"\n",
            // One mail to all, so that a reply reaches all.
            Self::Email => "          singleEmail: true\n",
            _ => "",
        }
    }
}

/// The contact point. Without a channel the file says nothing: what says nothing cannot keep
/// Grafana from starting.
pub(super) fn file(channels: &Channels) -> File {
    let mut text = format!("{MARK}\napiVersion: 1\n");
    if !channels.channels.is_empty() {
        text +=
            &format!("contactPoints:\n  - orgId: 1\n    name: {CONTACT_POINT}\n    receivers:\n");
        for channel in &channels.channels {
            text += &receiver(*channel, channels.ntfy_suffix);
        }
        let others: Vec<_> =
            Channel::ALL.into_iter().filter(|other| !channels.channels.contains(other)).collect();
        if !others.is_empty() {
            // Grafana keeps what vanishes from a file. A receiver that is not there may be
            // deleted again; the contact point itself stays, since one channel is left.
            text += "# Channels that are not set up, any more.\ndeleteContactPoints:\n";
            for other in others {
                text += &format!("  - orgId: 1\n    uid: {}\n", other.uid());
            }
        }
    }
    File::new("provisioning/alerting/contact-points.yaml", text)
}

fn receiver(channel: Channel, ntfy_suffix: &str) -> String {
    let (kind, settings) = channel.receiver();
    let suffix = if channel == Channel::Ntfy { ntfy_suffix } else { "" };
    let mut text = format!(
        "      - uid: {}\n        type: {kind}\n        disableResolveMessage: false\n        settings:\n",
        channel.uid()
    );
    for (setting, variable) in settings.iter().zip(channel.variables()) {
        text += &format!("          {setting}: \"${variable}{suffix}\"\n");
    }
    text + channel.more()
}
