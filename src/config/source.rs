//! Reading variables: from the environment or the file that `NAME_FILE` names, collecting
//! what is wrong and remembering where each value came from.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::variables::Variable;

/// Where values come from. The process' own environment, or a test's.
pub struct Environment<'a> {
    get: Lookup<'a>,
}

type Lookup<'a> = Box<dyn Fn(&str) -> Option<OsString> + 'a>;

impl<'a> Environment<'a> {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        Self { get: Box::new(|name| std::env::var_os(name)) }
    }

    /// An environment that `get` answers for.
    pub fn new(get: impl Fn(&str) -> Option<OsString> + 'a) -> Self {
        Self { get: Box::new(get) }
    }

    /// A variable's value. An empty one counts as unset: that is how compose files pass on
    /// what is not set.
    pub(super) fn get(&self, name: &str) -> Option<OsString> {
        (self.get)(name).filter(|value| !value.is_empty())
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Nothing was set.
    Default,
    /// The variable itself.
    Environment,
    /// The file that `NAME_FILE` names.
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// One effective value, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The variable.
    pub name: &'static str,
    /// Its value; secrets hidden.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

/// A variable whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The variable, or its `_FILE` form.
    pub name: String,
    /// What it was; secrets hidden.
    pub found: String,
    /// What is allowed.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, expected {}", self.name, self.found, self.expected)
    }
}

/// What is said instead of a secret.
pub(super) const HIDDEN: &str = "[hidden]";

/// Reads variables one by one.
pub(super) struct Reader<'a> {
    environment: &'a Environment<'a>,
    pub(super) problems: Vec<Problem>,
    pub(super) settings: Vec<Setting>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(environment: &'a Environment<'a>) -> Self {
        Self { environment, problems: Vec::new(), settings: Vec::new() }
    }

    /// The raw text of a variable, without blanks around it, and where it came from. Blank
    /// counts as unset.
    pub(super) fn raw(&mut self, variable: Variable) -> Option<(String, Source)> {
        let own = self.environment.get(variable.name);
        let file_name = format!("{}_FILE", variable.name);
        let file = self.environment.get(&file_name).filter(|_| variable.is_secret);
        match (own, file) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                self.problem(&file_name, "set", &format!("only one of it and {}", variable.name));
                None
            }
            (Some(value), None) => {
                if let Ok(value) = value.into_string() {
                    let value = value.trim().to_owned();
                    return (!value.is_empty()).then_some((value, Source::Environment));
                }
                self.problem(variable.name, "not UTF-8", "UTF-8 text");
                None
            }
            (None, Some(path)) => self.read_file(&file_name, Path::new(&path)),
        }
    }

    fn read_file(&mut self, name: &str, path: &Path) -> Option<(String, Source)> {
        match std::fs::read_to_string(path) {
            // Files made with an editor or `echo` end in a newline.
            Ok(text) if !text.trim().is_empty() => {
                Some((text.trim().to_owned(), Source::File(path.to_owned())))
            }
            Ok(_) => {
                self.problem(name, &format!("{} (empty)", path.display()), "a file with the value");
                None
            }
            Err(error) => {
                let found = format!("{} ({})", path.display(), error.kind());
                self.problem(name, &found, "a file that can be read");
                None
            }
        }
    }

    /// A variable's value, parsed; `default` where it is unset or wrong (which is noted).
    /// `parse` says what is allowed when it refuses.
    pub(super) fn value<T: fmt::Display>(
        &mut self,
        variable: Variable,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let Some((text, source)) = self.raw(variable) else {
            self.setting(variable, default.to_string(), Source::Default);
            return default;
        };
        match parse(&text) {
            Ok(value) => {
                let shown = if variable.is_secret { HIDDEN.to_owned() } else { value.to_string() };
                self.setting(variable, shown, source);
                value
            }
            Err(expected) => {
                let found =
                    if variable.is_secret { HIDDEN.to_owned() } else { format!("{text:?}") };
                self.problem(variable.name, &found, &expected);
                default
            }
        }
    }

    pub(super) fn setting(&mut self, variable: Variable, value: String, source: Source) {
        self.settings.push(Setting { name: variable.name, value, source });
    }

    pub(super) fn problem(&mut self, name: &str, found: &str, expected: &str) {
        let (name, found, expected) = (name.to_owned(), found.to_owned(), expected.to_owned());
        self.problems.push(Problem { name, found, expected });
    }
}
