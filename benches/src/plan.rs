//! What a run measures, and in which order.

use std::time::Duration;

use serde::Serialize;

use crate::subject::Subject;

/// A run, with defaults filled in.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) streams: Vec<u32>,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) rounds: u32,
    /// Over how long the publishers join: one interval where there are pictures, so that they fall due evenly and nobody
    /// works in bursts.
    pub(crate) ramp_s: u64,
    /// From the last publisher to the first reading: one interval and a GOP at least where there are pictures, so that
    /// whoever needs a first picture to get going has had it.
    pub(crate) settle_s: u64,
    pub(crate) window_s: u64,
}

impl Plan {
    /// What is measured, in order. Systems take turns within a round, and every other round goes backwards, so that
    /// none is always the one that runs after another.
    pub(crate) fn steps(&self) -> Vec<(u32, u32, Subject)> {
        let mut steps = Vec::new();
        for &streams in &self.streams {
            for round in 1..=self.rounds {
                let mut turn: Vec<Subject> = self.subjects.clone();
                turn.retain(|subject| streams <= subject.streams_max() && round <= subject.rounds_max());
                if round % 2 == 0 {
                    turn.reverse();
                }
                steps.extend(turn.into_iter().map(|subject| (streams, round, subject)));
            }
        }
        steps
    }

    pub(crate) fn longest(&self) -> Duration {
        Duration::from_secs(self.steps().len() as u64 * (self.ramp_s + self.settle_s + self.window_s + 2))
    }
}
