//! What a benchmark has found, as people read it: tables with notes below, for the terminal and for the documentation.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::document::Section;
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

    fn markdown(&self) -> String {
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

    /// Prints the page, writes `report` as JSON, and with `update` the page into the documentation.
    pub(crate) fn publish(
        &self,
        workshop: &Workshop,
        section: Section,
        report: &impl Serialize,
        update: bool,
    ) -> Result<()> {
        println!("{}", self.text());
        let json = workshop.cache.join(format!("{}.json", section.0));
        fs::write(&json, serde_json::to_string_pretty(report)?).with_context(|| format!("write {}", json.display()))?;
        println!("written: {}", json.display());
        if update {
            println!("updated: {}", section.replace(&workshop.repository, &self.markdown())?.display());
        }
        Ok(())
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
}
