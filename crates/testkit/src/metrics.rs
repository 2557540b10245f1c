//! Reads a metrics page in the Prometheus text format, version 0.0.4, or OpenMetrics.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// One line of the page.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// With its suffix, such as `_total`, `_bucket` or `_count`.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// A whole page.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub samples: Vec<Sample>,
}

impl Metrics {
    /// # Errors
    /// Names the first line that is not in the format.
    pub fn parse(page: &str) -> Result<Self> {
        let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| parse_line(line).with_context(|| format!("metrics line {line:?}")));
        Ok(Self { samples: samples.collect::<Result<_>>()? })
    }

    /// The sum over all samples of a name that have at least these labels. 0 when there are none: a counter that never
    /// counted may be absent.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples.iter().filter(|sample| sample.name == name && sample.has(labels)).map(|sample| sample.value).sum()
    }

    /// Whether the page has a sample of this name.
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|sample| sample.name == name)
    }
}

impl Sample {
    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(*name).is_some_and(|found| found == value))
    }
}

/// `name value`, `name{label="value",…} value`, either with a timestamp behind it.
fn parse_line(line: &str) -> Result<Sample> {
    let name_end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").context("a label without a value")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.trim_start_matches(',').trim().to_owned(), value);
            rest = after;
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next().context("no value")?;
    let value = value.parse().with_context(|| format!("value {value:?}"))?;
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// A label's value up to its closing quote, without its escapes, and what follows.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped)) => value.push(escaped),
                None => break,
            },
            other => value.push(other),
        }
    }
    bail!("a label's value without an end")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP framehook_skipped_total Dues without a picture.
# TYPE framehook_skipped_total counter
framehook_skipped_total{reason="renderer_busy"} 2
framehook_skipped_total{reason="corrupt",rule="a \"b\", {c}"} 3 1735689600000
framehook_streams 7

framehook_put_seconds_bucket{le="+Inf"} 1e1
# EOF
"#;

    #[test]
    fn sums_by_name_and_labels() {
        let metrics = Metrics::parse(PAGE).unwrap();
        assert_eq!(metrics.sum("framehook_skipped_total", &[]), 5.0);
        assert_eq!(metrics.sum("framehook_skipped_total", &[("reason", "corrupt")]), 3.0);
        assert_eq!(metrics.sum("framehook_skipped_total", &[("rule", "a \"b\", {c}")]), 3.0);
        assert_eq!(metrics.sum("framehook_streams", &[]), 7.0);
        assert_eq!(metrics.sum("framehook_put_seconds_bucket", &[("le", "+Inf")]), 10.0);
        assert_eq!(metrics.sum("framehook_absent", &[]), 0.0);
        assert!(metrics.has("framehook_streams") && !metrics.has("framehook_absent"));
    }

    #[test]
    fn names_a_line_that_is_none() {
        for line in ["lonely", "a{b=\"c} 1", "a{b} 1", "a one", "a{b=\"c\"}"] {
            assert!(format!("{:#}", Metrics::parse(line).unwrap_err()).contains("metrics line"), "{line}");
        }
    }
}
