//! What can be wrong with a configuration, and how it is said.

use std::fmt;

/// Everything that is wrong with a configuration, so that a person mends it in one go. Prints one line per problem.
#[derive(Debug)]
pub struct ConfigError {
    /// At least one, in the order of the settings.
    pub problems: Vec<Problem>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not valid")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key with its path, such as `deliver.timeout` or `snapshot_rule[2].template`; empty for the file as a whole.
    pub key: String,
    /// The value as it was written, unless it is a secret or there is none.
    pub value: Option<String>,
    /// Where the value was read.
    pub origin: Origin,
    /// What is wrong, in one lower-case clause.
    pub what: String,
}

/// Where a value comes from. A later one wins over an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File,
    /// This environment variable.
    Environment(String),
    /// This flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File => f.write_str("file"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

impl Problem {
    /// Something that is wrong with what the file says at `key`.
    pub fn in_file(key: impl Into<String>, value: Option<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), value, origin: Origin::File, what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            f.write_str(&self.key)?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            if self.origin != Origin::File {
                write!(f, " ({})", self.origin)?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}

/// The known key that was probably meant by `unknown`, if any is near: a slip or two, or the right last part in the
/// wrong section.
pub(super) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last_part = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let unknown_last = last_part(unknown);
    let distance = |key: &str| {
        let whole = strsim::damerau_levenshtein(unknown, key);
        // A right name in a wrong section is one slip, whatever the length of the section's name.
        whole.min(strsim::damerau_levenshtein(&unknown_last, &last_part(key)) + 1)
    };
    let (best, key) = known.map(|key| (distance(key), key)).min_by_key(|(distance, _)| *distance)?;
    // A third of the letters may be wrong; beyond that a suggestion is noise.
    (best <= 1 + unknown_last.len() / 3).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest_known_key_or_none() {
        let known = ["rtmp.addr", "http.addr", "deliver.timeout", "deliver.snapshot_retries", "data_dir"];
        let cases = [
            ("rtmp.adr", Some("rtmp.addr")),
            ("datadir", Some("data_dir")),
            ("deliver.time_out", Some("deliver.timeout")),
            ("snapshot_retries", Some("deliver.snapshot_retries")),
            ("notify.timeout", Some("deliver.timeout")),
            ("colour", None),
        ];
        for (unknown, expected) in cases {
            assert_eq!(nearest(unknown, known.into_iter()), expected, "{unknown}");
        }
    }
}
