//! The chart of streams per core for the README: bars that read well on light and on dark ground.

use crate::subject::Subject;
use crate::summary::Summary;

const WIDTH: u32 = 760;
const ROW: u32 = 52;
const BAR: u32 = 18;
const TOP: u32 = 58;
/// Room for the number behind the longest bar.
const NUMBER: u32 = 70;

const STYLE: &str = "\
text { font-family: system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #1f2328; }\n\
.title { font-size: 16px; font-weight: 600; }\n\
.label { font-size: 13px; }\n\
.value { font-size: 14px; font-weight: 600; }\n\
.quiet { font-size: 12px; fill: #59636e; }\n\
.others { fill: #8c959f; }\n\
.ours { fill: #0969da; }\n\
.limit { fill: none; stroke: #8c959f; stroke-width: 1.5; stroke-dasharray: 5 3; }\n\
@media (prefers-color-scheme: dark) {\n\
  text { fill: #e6edf3; }\n\
  .quiet { fill: #9198a1; }\n\
  .others { fill: #6e7681; }\n\
  .ours { fill: #4493f8; }\n\
  .limit { stroke: #9198a1; }\n\
}";

/// Each system at the most streams it was measured with, fewest streams per core first. Those that are shown with the same
/// number stand in the order of [`Subject::WITH_PICTURES`].
pub(super) fn bars(summaries: &[Summary]) -> Vec<&Summary> {
    let of = |subject| summaries.iter().filter(move |row| row.subject == subject);
    let most = |&subject: &Subject| of(subject).max_by_key(|row| row.streams);
    let mut bars: Vec<&Summary> = Subject::WITH_PICTURES.iter().filter_map(most).collect();
    bars.sort_by(|a, b| a.streams_per_core.round().total_cmp(&b.streams_per_core.round()));
    bars
}

/// A bar for each system.
pub(super) fn streams_per_core(summaries: &[Summary]) -> String {
    let rows = bars(summaries);
    let longest = rows.last().map_or(1.0, |row| row.streams_per_core);
    let height = TOP + ROW * rows.len() as u32;

    let alternative: Vec<String> =
        rows.iter().map(|row| format!("{}: {:.0}", row.subject.label(), row.streams_per_core)).collect();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"title about\">\n\
         <title id=\"title\">Streams per core</title>\n\
         <desc id=\"about\">{}</desc>\n\
         <style>\n{STYLE}\n</style>\n\
         <text class=\"title\" x=\"0\" y=\"18\">Streams per core</text>\n\
         <text class=\"quiet\" x=\"0\" y=\"38\">1280x720, 30 fps, 2.5 Mbit/s H.264 over RTMP, one JPEG of each stream \
         every 10 s; longer is better</text>\n",
        alternative.join("; ")
    );
    for (index, row) in rows.iter().enumerate() {
        let top = TOP + ROW * index as u32;
        let class = match row.subject {
            Subject::Framehook => "ours",
            Subject::Floor => "limit",
            _ => "others",
        };
        let label = match row.subject {
            Subject::Floor => "the floor: receive, decode one keyframe, encode one JPEG, nothing else",
            other => other.label(),
        };
        let length = f64::from(WIDTH - NUMBER) * row.streams_per_core / longest;
        let (label_y, bar_y, value_y) = (top + 14, top + 21, top + 35);
        svg += &format!(
            "<text class=\"label\" x=\"0\" y=\"{label_y}\">{label} \
             <tspan class=\"quiet\">({} streams)</tspan></text>\n\
             <rect class=\"{class}\" x=\"1\" y=\"{bar_y}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>\n\
             <text class=\"value\" x=\"{:.1}\" y=\"{value_y}\">{:.0}</text>\n",
            row.streams,
            length + 9.0,
            row.streams_per_core
        );
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::tests::measured;
    use crate::summary::summarise;

    #[test]
    fn draws_each_system_once_with_its_most_streams_and_best_last() {
        let svg = streams_per_core(&summarise(&[
            measured(Subject::Plain, 10, 1, 10_000.0),
            measured(Subject::Floor, 10, 1, 250.0),
            measured(Subject::Floor, 40, 1, 800.0),
            measured(Subject::Framehook, 40, 1, 1000.0),
        ]));
        let values: Vec<&str> = svg.lines().filter(|line| line.contains("\"value\"")).collect();
        let numbers: Vec<&str> =
            values.iter().filter_map(|line| line.rsplit_once("</text>")?.0.rsplit_once('>')).map(|(_, n)| n).collect();
        assert_eq!(numbers, ["10", "400", "500"]);
        assert!(svg.contains("width=\"690.0\"") && svg.contains("width=\"13.8\""), "{svg}");
    }
}
