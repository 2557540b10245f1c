//! The few letters the clip needs, as strokes on a grid of 4 by 6.

use super::canvas::{Point, point, stroke};

/// Grid units between two glyphs.
const GAP: f32 = 1.8;

/// Grid units that a glyph takes.
fn columns(letter: char) -> f32 {
    if letter == '.' { 0.0 } else { 4.0 }
}

/// Polylines, separated by `|`; each point is its column and row.
fn strokes(letter: char) -> &'static str {
    match letter {
        '0' | 'O' => "10 30 41 45 36 16 05 01 10",
        '1' => "11 20 26|16 36",
        '2' => "01 10 30 41 42 06 46",
        '3' => "01 10 30 41 42 33 44 45 36 16 05|13 33",
        '4' => "36 30 04 44",
        '5' => "40 00 02 32 43 45 36 16 05",
        '6' => "30 10 01 05 16 36 45 44 33 03",
        '7' => "00 40 41 16",
        '8' => "13 02 01 10 30 41 42 33 44 45 36 16 05 04 13 33",
        '9' => "16 36 45 41 30 10 01 02 13 43",
        'A' => "06 01 10 30 41 46|04 44",
        'D' => "00 30 41 45 36 06 00",
        'E' => "40 00 06 46|03 33",
        'F' => "40 00 06|03 33",
        'H' => "00 06|40 46|03 43",
        'K' => "00 06|40 03 46",
        'M' => "06 00 23 40 46",
        'R' => "06 00 30 41 42 33 03|23 46",
        'S' => "41 30 10 01 02 13 33 44 45 36 16 05",
        '.' => "06 06",
        _ => "",
    }
}

/// The width of a line of text whose letters are `height` high.
pub(super) fn width(text: &str, height: f32) -> f32 {
    let glyphs: f32 = text.chars().map(|letter| columns(letter) + GAP).sum();
    (glyphs - GAP) * height / 6.0
}

/// The shape of a line of text; `at` is its upper left corner.
pub(super) fn line(text: &str, at: Point, height: f32, weight: f32) -> impl Fn(Point) -> f32 + use<> {
    let unit = height / 6.0;
    let mut letters = Vec::new();
    let mut left = at.x;
    for letter in text.chars() {
        let mut shapes = Vec::new();
        for polyline in strokes(letter).split('|').filter(|polyline| !polyline.is_empty()) {
            let points: Vec<Point> = polyline.split(' ').map(|place| grid_point(place, left, at.y, unit)).collect();
            shapes.extend(points.windows(2).map(|ends| stroke(ends[0], ends[1], weight)));
        }
        letters.push((left - weight..left + columns(letter) * unit + weight, shapes));
        left += (columns(letter) + GAP) * unit;
    }
    move |at| {
        let near = letters.iter().filter(|(columns, _)| columns.contains(&at.x)).flat_map(|(_, shapes)| shapes);
        near.map(|shape| shape(at)).fold(f32::INFINITY, f32::min)
    }
}

fn grid_point(place: &str, left: f32, top: f32, unit: f32) -> Point {
    let digit = |index: usize| f32::from(place.as_bytes()[index] - b'0');
    point(left + digit(0) * unit, top + digit(1) * unit)
}
