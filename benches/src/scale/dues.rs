//! What the metrics page says about dues.

use std::collections::BTreeMap;

use framehook_testkit::metrics::Metrics;
use serde::Serialize;

/// Counters since the server's start, or what they grew by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Dues {
    pub(super) due: f64,
    pub(super) taken: f64,
    /// By reason; those that are zero are left out.
    pub(super) skipped: BTreeMap<String, f64>,
}

impl Dues {
    pub(super) fn read(page: &Metrics) -> Self {
        let skipped =
            page.samples.iter().filter(|sample| sample.name == "framehook_skipped_total" && sample.value > 0.0);
        Self {
            due: page.sum("framehook_due_total", &[]),
            taken: page.sum("framehook_taken_total", &[]),
            skipped: skipped.filter_map(|sample| Some((sample.labels.get("reason")?.clone(), sample.value))).collect(),
        }
    }

    pub(super) fn since(&self, earlier: &Self) -> Self {
        let grown = self.skipped.iter().map(|(reason, count)| {
            let before = earlier.skipped.get(reason).copied().unwrap_or_default();
            (reason.clone(), count - before)
        });
        Self {
            due: self.due - earlier.due,
            taken: self.taken - earlier.taken,
            skipped: grown.filter(|(_, count)| *count > 0.0).collect(),
        }
    }

    /// Dues that were skipped while their stream went on.
    pub(super) fn skipped_alive(&self) -> f64 {
        self.skipped.iter().filter(|(reason, _)| *reason != "push_ended").map(|(_, count)| count).sum()
    }
}

/// `12 of 40 dues taken; skipped: 28 renderer_busy`.
impl std::fmt::Display for Dues {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { due, taken, skipped } = self;
        write!(formatter, "{taken} of {due} dues taken")?;
        for (index, (reason, count)) in skipped.iter().enumerate() {
            let joint = if index == 0 { "; skipped: " } else { ", " };
            write!(formatter, "{joint}{count} {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(due: u32, taken: u32, busy: u32, ended: u32) -> Metrics {
        Metrics::parse(&format!(
            "framehook_due_total {due}\nframehook_taken_total {taken}\n\
             framehook_skipped_total{{reason=\"corrupt\"}} 0\n\
             framehook_skipped_total{{reason=\"push_ended\"}} {ended}\n\
             framehook_skipped_total{{reason=\"renderer_busy\"}} {busy}\n"
        ))
        .unwrap()
    }

    #[test]
    fn tells_what_was_added() {
        let grown = Dues::read(&page(50, 14, 30, 6)).since(&Dues::read(&page(10, 2, 2, 6)));
        assert_eq!(grown.to_string(), "12 of 40 dues taken; skipped: 28 renderer_busy");
        assert_eq!(Dues::read(&page(50, 14, 30, 6)).skipped_alive(), 30.0);
    }
}
