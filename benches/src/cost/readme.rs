//! What the README shows of the results: the chart, told in words to those who do not see it, and a table.

use super::chart;
use crate::document::CHART;
use crate::page::{Column, Table};
use crate::subject::Subject;
use crate::summary::Summary;

const COLUMNS: [Column; 3] =
    [Column::Words(""), Column::Number("CPU per stream-second"), Column::Number("memory per stream")];

/// The recipes and the floor at the most streams they were measured with, and ours at the fewest too, where it is dearest.
pub(super) fn excerpt(summaries: &[Summary]) -> String {
    let bars = chart::bars(summaries);
    let recipes = || bars.iter().filter(|row| row.subject.is_recipe()).copied();
    let of = |subject| bars.iter().filter(move |row| row.subject == subject).copied();
    let ours_fewest = summaries.iter().filter(|row| row.subject == Subject::Framehook).min_by_key(|row| row.streams);
    let ours = ours_fewest.into_iter().chain(of(Subject::Framehook));
    let mut rows: Vec<&Summary> = recipes().chain(ours).chain(of(Subject::Floor)).collect();
    rows.dedup();
    let table = Table::new(&COLUMNS, rows.into_iter().map(cells));

    let per_core = |row: &Summary| format!("{:.0}", row.streams_per_core);
    let recipes: Vec<String> = recipes().map(per_core).collect();
    let all = listed(&recipes).map(|recipes| format!("{recipes} with a process for each stream")).into_iter();
    let all = all.chain(of(Subject::Floor).map(|row| format!("{} with the floor program", per_core(row))));
    let all = all.chain(of(Subject::Framehook).map(|row| format!("{} with Framehook", per_core(row))));
    let words = all.collect::<Vec<_>>().join(", ");
    format!("![Streams per core: {words}]({CHART})\n\n{}", table.markdown())
}

fn cells(row: &Summary) -> [String; COLUMNS.len()] {
    let name = match row.subject {
        Subject::Plain => "nginx-rtmp and `ffmpeg -vf fps=1/10` for each stream",
        Subject::Gstreamer => "nginx-rtmp and a GStreamer pipeline of keyframes for each stream",
        Subject::Tuned => "nginx-rtmp and `ffmpeg -skip_frame nokey` for each stream",
        Subject::Framehook => "`framehook serve`",
        Subject::Floor => "the floor: a program that only receives, decodes and encodes, with the usual libraries",
        other => other.label(),
    };
    // With as many decimals as in the documentation, so that the two can be held against each other.
    [
        format!("{name} ({} streams)", row.streams),
        format!("{:.2} ms", row.ms_per_stream_second),
        format!("{:.2} MiB", row.mib_per_stream),
    ]
}

/// "a, b and c".
fn listed(items: &[String]) -> Option<String> {
    let (last, others) = items.split_last()?;
    Some(if others.is_empty() { last.clone() } else { format!("{} and {last}", others.join(", ")) })
}

#[cfg(test)]
mod tests {
    use super::super::SECTION;
    use super::*;
    use crate::document::tests::{read, section_of};
    use crate::document::{PERFORMANCE, README};
    use crate::measurement::tests::measured;
    use crate::summary::summarise;

    #[test]
    fn shows_the_chart_in_words_and_ours_at_both_ends() {
        let excerpt = excerpt(&summarise(&[
            measured(Subject::Plain, 10, 1, 10_000.0),
            measured(Subject::Tuned, 10, 1, 2000.0),
            measured(Subject::Tuned, 40, 1, 8000.0),
            measured(Subject::Floor, 10, 1, 250.0),
            measured(Subject::Floor, 40, 1, 800.0),
            measured(Subject::Framehook, 10, 1, 300.0),
            measured(Subject::Framehook, 40, 1, 1000.0),
        ]));
        let words = "![Streams per core: 10 and 50 with a process for each stream, 500 with the floor program, \
                     400 with Framehook](docs/streams-per-core.svg)\n\n|";
        assert!(excerpt.starts_with(words), "{excerpt}");
        let rows: Vec<&str> = excerpt.lines().skip(4).filter_map(|row| row.split(" | ").next()).collect();
        let expected = [
            "| nginx-rtmp and `ffmpeg -vf fps=1/10` for each stream (10 streams)",
            "| nginx-rtmp and `ffmpeg -skip_frame nokey` for each stream (40 streams)",
            "| `framehook serve` (10 streams)",
            "| `framehook serve` (40 streams)",
            "| the floor: a program that only receives, decodes and encodes, with the usual libraries (40 streams)",
        ];
        assert_eq!(rows, expected);
    }

    /// A row of the documentation's table, as far as README and chart show of it.
    fn quoted(row: &str) -> Option<Summary> {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [streams, label, cost, _ratio, per_core, _per_picture, _pictures, mib] = cells[..] else { return None };
        let number = |cell: &str| cell.split(' ').next().and_then(|number| number.parse::<f64>().ok());
        let cost = number(cost)?;
        Some(Summary {
            subject: Subject::WITH_PICTURES.into_iter().find(|subject| subject.label() == label)?,
            streams: streams.parse().ok()?,
            ms_per_stream_second: cost,
            ms_per_stream_second_least: cost,
            ms_per_stream_second_most: cost,
            streams_per_core: number(per_core)?,
            ms_per_picture: None,
            pictures: 0,
            pictures_asked: 0.0,
            mib_per_stream: number(mib)?,
            idle_mib: 0.0,
        })
    }

    fn quoted_rows() -> Vec<Summary> {
        let rows: Vec<Summary> = section_of(PERFORMANCE, SECTION).lines().filter_map(quoted).collect();
        assert!(rows.len() >= Subject::WITH_PICTURES.len(), "{rows:?}");
        rows
    }

    #[test]
    fn the_readme_shows_what_the_documentation_does() {
        assert_eq!(section_of(README, SECTION), excerpt(&quoted_rows()), "`./dev bench cost --update` writes both");
    }

    #[test]
    fn the_chart_shows_what_the_documentation_does() {
        // The bars are drawn of figures with more decimals.
        let words = |svg: &str| -> Vec<String> {
            let told = svg.lines().filter(|line| line.starts_with("<desc") || line.starts_with("<text"));
            let untagged = |line: &str| line.split('<').filter_map(|tag| Some(tag.split_once('>')?.1)).collect();
            told.map(untagged).collect()
        };
        let drawn = words(&chart::streams_per_core(&quoted_rows()));
        assert_eq!(words(&read(CHART)), drawn, "`./dev bench cost --update` writes both");
    }
}
