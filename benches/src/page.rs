//! What a benchmark has found, as people read it: tables with notes below, for the terminal and for the documentation.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::document::Section;
use crate::notes;
use crate::provenance::Provenance;
use crate::workshop::Workshop;

/// The head of a column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// Aligned to the left.
    Words(&'static str),
    /// Aligned to the right.
    Number(&'static str),
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Words(title) | Self::Number(title) => title,
        }
    }

    fn rule(self) -> &'static str {
        match self {
            Self::Words(_) => "---",
            Self::Number(_) => "---:",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    columns: &'static [Column],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(
        columns: &'static [Column; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> Self {
        Self { columns, rows: rows.into_iter().map(Vec::from).collect() }
    }

    fn head(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.title().to_owned()).collect()
    }

    /// Columns aligned by spaces.
    fn text(&self) -> String {
        let head = self.head();
        let rows: Vec<&Vec<String>> = [&head].into_iter().chain(&self.rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for row in &rows {
            let cells = row.iter().zip(&widths).zip(self.columns);
            let cells = cells.map(|((cell, &width), column)| match column {
                Column::Words(_) => format!("{cell:<width$}"),
                Column::Number(_) => format!("{cell:>width$}"),
            });
            text += "\n";
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
        }
        text + "\n"
    }

    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rules: Vec<String> = self.columns.iter().map(|column| column.rule().to_owned()).collect();
        let body: String = self.rows.iter().map(|row| line(row)).collect();
        line(&self.head()) + &line(&rules) + &body
    }
}

#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) tables: Vec<Table>,
    pub(crate) notes: Vec<String>,
}

impl Page {
    pub(crate) fn text(&self) -> String {
        let mut text: String = self.tables.iter().map(Table::text).collect();
        for note in &self.notes {
            text += &format!("\n{note}");
        }
        text + "\n"
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            text += &table.markdown();
            text += "\n";
        }
        for note in &self.notes {
            text += &format!("- {note}\n");
        }
        text
    }

    /// Prints the page, writes `report` as JSON, and where it is to be quoted the page into the documentation. Which build was
    /// measured by which command stands above the other notes.
    ///
    /// # Errors
    /// When nothing can be written, and when somebody has built since the run began: then it writes nothing.
    pub(crate) fn publish(
        mut self,
        workshop: &Workshop,
        section: Section,
        report: &impl Serialize,
        purpose: Purpose,
    ) -> Result<Verdict> {
        self.notes.insert(0, workshop.provenance.note());
        println!("{}", self.text());
        println!("written: {}", write_json(workshop, section, report)?.display());
        if purpose == Purpose::Quote {
            println!("updated: {}", section.replace(&workshop.repository, &self.markdown())?.display());
        }
        Ok(self.verdict(purpose))
    }

    fn verdict(&self, purpose: Purpose) -> Verdict {
        let is_not_good = self.notes.iter().any(|note| notes::is_not_good(note));
        if is_not_good && purpose != Purpose::Try { Verdict::NotGood } else { Verdict::Good }
    }
}

/// Writes a report into `target/bench`, with the build and the command that it is of, and gives its file.
///
/// # Errors
/// When it cannot be written, and when somebody has built since the run began.
pub(crate) fn write_json(workshop: &Workshop, section: Section, report: &impl Serialize) -> Result<PathBuf> {
    #[derive(Serialize)]
    struct Written<'a, R> {
        #[serde(flatten)]
        provenance: &'a Provenance,
        #[serde(flatten)]
        report: &'a R,
    }
    let provenance = &workshop.provenance;
    provenance.ensure_same_executables()?;
    let path = workshop.cache.join(format!("{}.json", section.0));
    let json = serde_json::to_string_pretty(&Written { provenance, report })?;
    fs::write(&path, json).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// What somebody wants of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To see that everything runs. Its figures are judged, but decide nothing.
    Try,
    Measure,
    /// To have it in the documentation.
    Quote,
}

impl Purpose {
    pub(crate) fn of(quick: bool, update: bool) -> Self {
        match (quick, update) {
            (true, _) => Self::Try,
            (false, false) => Self::Measure,
            (false, true) => Self::Quote,
        }
    }
}

/// Whether everything that we ask of ourselves was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    NotGood,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Good => Self::SUCCESS,
            Verdict::NotGood => Self::FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 2] = [Column::Words("system"), Column::Number("cost")];

    #[test]
    fn words_stand_left_and_numbers_right() {
        let rows = [["the floor".to_owned(), "7".to_owned()], ["us".to_owned(), "12.5".to_owned()]];
        let page = Page { tables: vec![Table::new(&COLUMNS, rows)], notes: vec!["A note.".to_owned()] };
        assert_eq!(page.text(), "\nsystem     cost\nthe floor     7\nus         12.5\n\nA note.\n");
        let markdown = "| system | cost |\n| --- | ---: |\n| the floor | 7 |\n| us | 12.5 |\n\n- A note.\n";
        assert_eq!(page.markdown(), markdown);
    }

    #[test]
    fn a_bound_that_was_not_kept_decides_unless_the_run_is_a_trial() {
        let page = |note: &str| Page { tables: Vec::new(), notes: vec!["A note.".to_owned(), note.to_owned()] };
        assert_eq!(page("Kept.").verdict(Purpose::Measure), Verdict::Good);
        let not_kept = page(&notes::not_good("not kept."));
        assert_eq!(not_kept.verdict(Purpose::Measure), Verdict::NotGood);
        assert_eq!(not_kept.verdict(Purpose::Quote), Verdict::NotGood);
        assert_eq!(not_kept.verdict(Purpose::Try), Verdict::Good);
    }
}
