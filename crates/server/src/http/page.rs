//! Lists in pages.

use schemars::JsonSchema;
use serde::Deserialize;

use super::problem::Problem;

/// Rows of a page when nobody says how many.
pub(super) const ROWS: usize = 100;

/// Most rows of a page.
pub(super) const ROWS_MAX: usize = 1000;

/// Which part of a list.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// At most so many, 100 if it is left out.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) limit: Option<usize>,
    /// The page after another: its `next_cursor`.
    pub(super) cursor: Option<String>,
}

/// How many rows a page may have.
pub(super) fn rows(limit: Option<usize>) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(ROWS);
    if (1..=ROWS_MAX).contains(&limit) {
        Ok(limit)
    } else {
        Err(Problem::bad_field("limit", format!("{limit} is not from 1 to {ROWS_MAX}")))
    }
}

/// A cursor that no page of this list gave.
pub(super) fn bad_cursor(text: &str) -> Problem {
    Problem::bad_field("cursor", format!("{text:?} is no cursor of this list"))
}
