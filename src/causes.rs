//! Errors for people.

use std::error::Error;

/// An error and its causes on one line, outermost first. Many errors repeat their cause in their
/// own text, for those who print that alone; here it is said once.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn each_cause_is_said_once() {
        let cause = Error::from(ErrorKind::AddrInUse);
        let error = anyhow::Error::new(cause).context("cannot listen").context("no server");
        let said = format!("no server: cannot listen: {}", ErrorKind::AddrInUse);
        assert_eq!(chain(&*error), said);
        let repeated = anyhow::Error::new(Error::from(ErrorKind::AddrInUse)).context(said.clone());
        assert_eq!(chain(&*repeated), said);
    }
}
