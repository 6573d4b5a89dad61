//! What `media3watch grafana export` reads: where alerts are told, and thresholds. The server
//! needs none of it.

use url::Url;

use super::source::{Environment, HIDDEN, Problem};
use super::variables::Variable;
use super::{ConfigError, problem};
use crate::grafana::{Alerting, Channel, Channels, Thresholds};

macro_rules! variables {
    ($($name:literal, $default:literal, $meaning:literal;)*) => {
        /// All of them, in the order of the documentation.
        pub const ALERT_VARIABLES: &[Variable] = &[$(Variable {
            name: $name, default: $default, is_secret: false, meaning: $meaning,
        }),*];
    };
}

variables! {
    "SLACK_WEBHOOK_URL", "none",
        "Alerts to Slack: the URL of an incoming webhook.";
    "PAGERDUTY_INTEGRATION_KEY", "none",
        "Alerts to PagerDuty: the integration key of a service (Events API v2).";
    "ALERT_EMAIL_ADDRESSES", "none",
        "Alerts by e-mail: addresses, separated by commas or semicolons. Grafana needs an SMTP server for it.";
    "DISCORD_WEBHOOK_URL", "none",
        "Alerts to Discord: the URL of a channel's webhook.";
    "TELEGRAM_BOT_TOKEN", "none",
        "Alerts to Telegram: the token of a bot. Needs TELEGRAM_CHAT_ID.";
    "TELEGRAM_CHAT_ID", "none",
        "The chat, group or channel that the bot writes to: a number, or `@channel`.";
    "ALERT_WEBHOOK_URL", "none",
        "Alerts as JSON to an address of your own, by POST.";
    "NTFY_URL", "none",
        "Alerts to ntfy: the address of a topic, such as `https://ntfy.sh/a-name-nobody-guesses`. A server of your own must be ntfy 2.14 or newer.";
    "ALERT_ERROR_RATE_PERCENT", "5",
        "Error rate above which an alert fires, percent of sessions.";
    "ALERT_STARTUP_P95_MS", "5000",
        "Startup time, 95th percentile, above which an alert fires, milliseconds.";
    "ALERT_REBUFFERING_PERCENT", "2",
        "Rebuffering above which an alert fires, percent of the watched time.";
}

/// Reads them.
///
/// # Errors
/// Every variable that is wrong, without its value, and what is allowed.
pub fn alerting(environment: &Environment<'_>) -> Result<Alerting, ConfigError> {
    let mut problems = Vec::new();
    let mut channels = Channels::default();
    for channel in Channel::ALL {
        let is_set = |name: &&&str| environment.get(name).is_some();
        let Some(set) = channel.variables().iter().find(is_set) else { continue };
        for name in channel.variables() {
            if environment.get(name).is_none() {
                problems.push(problem(name, "unset", &format!("a value, since {set} has one")));
            } else if let Some(value) = value(environment, name, &mut problems) {
                check(channel, name, &value, &mut problems);
            }
        }
        channels.channels.insert(channel);
    }
    if let Some(url) = value(environment, "NTFY_URL", &mut Vec::new()) {
        channels.ntfy_suffix = ntfy_suffix(&url);
    }
    let thresholds = thresholds(environment, &mut problems);
    if problems.is_empty() {
        Ok(Alerting { channels, thresholds })
    } else {
        Err(ConfigError(problems))
    }
}

/// A variable's value. Grafana reads the same variable without removing blanks, so they are
/// not allowed here.
fn value(environment: &Environment<'_>, name: &str, problems: &mut Vec<Problem>) -> Option<String> {
    let value = environment.get(name)?;
    let Ok(value) = value.into_string() else {
        problems.push(problem(name, "not UTF-8", "UTF-8 text"));
        return None;
    };
    if value.trim() != value || value.contains(['\n', '\r']) {
        problems.push(problem(name, HIDDEN, "a value in one line, without blanks around it"));
        return None;
    }
    Some(value)
}

/// What Grafana, or whom it talks to, would refuse. Values are secrets and never shown.
fn check(channel: Channel, name: &str, value: &str, problems: &mut Vec<Problem>) {
    let is_url = || {
        Url::parse(value)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    };
    let is_word = || value.bytes().all(|byte| byte.is_ascii_graphic());
    let (is_right, expected) = match channel {
        Channel::Slack | Channel::Discord | Channel::Webhook => (is_url(), "an address, https://…"),
        Channel::Ntfy => {
            let has_topic = Url::parse(value).is_ok_and(|url| url.path() != "/");
            (is_url() && has_topic, "the address of a topic, https://ntfy.sh/…")
        }
        Channel::PagerDuty => (is_word(), "visible ASCII characters without blanks"),
        Channel::Email => {
            let mut addresses = value.split([',', ';']).map(str::trim);
            let are_right = addresses.all(|address| {
                let parts = address.split_once('@');
                let is_plain = !address.contains(char::is_whitespace);
                is_plain && parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
            });
            (are_right, "addresses such as ops@example.com, separated by commas")
        }
        Channel::Telegram if name == "TELEGRAM_CHAT_ID" => {
            let is_number = value.parse::<i64>().is_ok();
            let is_name = value.strip_prefix('@').is_some_and(|name| !name.is_empty());
            (is_number || (is_name && is_word()), "a number such as -1001234567890, or @channel")
        }
        Channel::Telegram => {
            let is_token = value.split_once(':').is_some_and(|(bot, _)| bot.parse::<u64>().is_ok());
            (is_token && is_word(), "a token such as 123456:ABC-DEF")
        }
    };
    if !is_right {
        problems.push(problem(name, HIDDEN, expected));
    }
}

/// ntfy makes a message of Grafana's JSON when asked to.
fn ntfy_suffix(url: &str) -> &'static str {
    let Ok(url) = Url::parse(url) else {
        return "";
    };
    let is_asked = url.query_pairs().any(|(key, _)| key == "template" || key == "tpl");
    match url.query() {
        _ if is_asked => "",
        None => "?template=grafana",
        Some(_) => "&template=grafana",
    }
}

fn thresholds(environment: &Environment<'_>, problems: &mut Vec<Problem>) -> Thresholds {
    let mut thresholds = Thresholds::new();
    for (name, most) in [
        ("ALERT_ERROR_RATE_PERCENT", 100.0),
        ("ALERT_STARTUP_P95_MS", 600_000.0),
        ("ALERT_REBUFFERING_PERCENT", 100.0),
    ] {
        let Some(text) = value(environment, name, problems) else {
            continue;
        };
        match text.parse::<f64>() {
            Ok(number) if number > 0.0 && number <= most => {
                thresholds.insert(name.to_owned(), number);
            }
            _ => {
                let expected = format!("a number above 0, at most {most}");
                problems.push(problem(name, &format!("{text:?}"), &expected));
            }
        }
    }
    thresholds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(variables: &[(&str, &str)]) -> Result<Alerting, ConfigError> {
        let get = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into())
        };
        alerting(&Environment::new(get))
    }

    #[test]
    fn an_empty_environment_sets_up_nothing() {
        assert_eq!(load(&[]).expect("fine"), Alerting::default());
        let empty: Vec<_> = ALERT_VARIABLES.iter().map(|variable| (variable.name, "")).collect();
        assert_eq!(load(&empty).expect("as compose files pass on"), Alerting::default());
    }

    #[test]
    fn each_channel_is_set_up_by_its_variables() {
        let example = |name: &str| match name {
            "PAGERDUTY_INTEGRATION_KEY" => "0123456789abcdef",
            "ALERT_EMAIL_ADDRESSES" => "ops@example.com; me@example.com",
            "TELEGRAM_BOT_TOKEN" => "123456:ABC-DEF",
            "TELEGRAM_CHAT_ID" => "-1001234567890",
            _ => "https://example.com/hook",
        };
        for channel in Channel::ALL {
            let set: Vec<_> =
                channel.variables().iter().map(|name| (*name, example(name))).collect();
            let found = load(&set).expect("fine").channels.channels;
            assert_eq!(found.into_iter().collect::<Vec<_>>(), [channel]);
            for name in channel.variables() {
                assert!(ALERT_VARIABLES.iter().any(|variable| variable.name == *name), "{name}");
            }
        }
    }

    #[test]
    fn half_of_telegram_names_the_other_half() {
        let error = load(&[("TELEGRAM_BOT_TOKEN", "1:canary")]).expect_err("half");
        let text = error.to_string();
        assert!(text.contains("TELEGRAM_CHAT_ID is unset") && !text.contains("canary"), "{text}");
        let error = load(&[("TELEGRAM_CHAT_ID", "1")]).expect_err("half");
        assert!(error.to_string().contains("TELEGRAM_BOT_TOKEN is unset"));
    }

    #[test]
    fn wrong_values_are_all_named_and_never_shown() {
        let error = load(&[
            ("SLACK_WEBHOOK_URL", "canary"),
            ("PAGERDUTY_INTEGRATION_KEY", "canary canary"),
            ("ALERT_EMAIL_ADDRESSES", "a@b.c, canary"),
            ("DISCORD_WEBHOOK_URL", "ftp://canary"),
            ("TELEGRAM_BOT_TOKEN", "canary"),
            ("TELEGRAM_CHAT_ID", "canary"),
            ("ALERT_WEBHOOK_URL", " https://canary"),
            ("NTFY_URL", "https://canary"),
            ("ALERT_ERROR_RATE_PERCENT", "0"),
            ("ALERT_STARTUP_P95_MS", "NaN"),
            ("ALERT_REBUFFERING_PERCENT", "2 %"),
        ])
        .expect_err("wrong");
        let text = error.to_string();
        assert_eq!(error.0.len(), ALERT_VARIABLES.len(), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }

    #[test]
    fn ntfy_is_asked_to_read_grafanas_json() {
        for (url, suffix) in [
            ("https://ntfy.sh/topic", "?template=grafana"),
            ("https://ntfy.example.com/topic?auth=x", "&template=grafana"),
            ("https://ntfy.sh/topic?template=mine", ""),
        ] {
            let alerting = load(&[("NTFY_URL", url)]).expect("fine");
            assert_eq!(alerting.channels.ntfy_suffix, suffix);
        }
    }

    #[test]
    fn thresholds_can_be_chosen() {
        let alerting = load(&[("ALERT_STARTUP_P95_MS", "3500")]).expect("fine");
        assert_eq!(alerting.thresholds.get("ALERT_STARTUP_P95_MS"), Some(&3_500.0));
    }
}
