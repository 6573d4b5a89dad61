//! The rules as Markdown, for docs/alerts.md.

use super::rules::{self, Rule, Thresholds};

/// The rules: a section for each.
#[must_use]
pub fn reference() -> String {
    let (_, rules) = rules::all(&Thresholds::new());
    let mut text = "| rule | fires when | after | severity |\n|---|---|---|---|\n".to_owned();
    for rule in &rules {
        let (title, fires) = (rule.title(), rule.fires());
        text += &format!(
            "| [{title}](#{}) | {fires} | {} | {} |\n",
            anchor(&title),
            rule.pending,
            rule.severity
        );
    }
    for rule in &rules {
        text += &section(rule);
    }
    text
}

fn section(rule: &Rule) -> String {
    let mut text = format!("\n### {}\n\n", rule.title());
    text += &format!("- **Fires when** {}, for {}.\n", rule.fires(), rule.pending);
    text += &format!("- **Sample**: {}.\n", rule.sample);
    text += &format!("- **Why**: {}\n", rule.why);
    if let Some(variable) = &rule.variable {
        text += &format!("- **Another threshold**: `{variable}`.\n");
    }
    text += &format!("- **What to do**: {}\n", rule.act);
    text + &format!("- Uid `{}`.\n", rule.uid)
}

/// The anchor that GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let lower = heading.to_lowercase();
    let kept = lower.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
