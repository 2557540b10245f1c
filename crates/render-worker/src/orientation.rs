//! Turning a picture upright.

use framehook_render_wire::{Orientation, Size};

use crate::picture::{OutOfMemory, OwnedPlane, Plane};

/// The orientation that a display matrix asks for. `[a, b, c, d]` moves a sample at (x, y), y downwards, to
/// (ax + cy, bx + dy); angles between quarter turns, which H.264 can write and nobody means, go to the nearest one.
pub(crate) fn orientation_of([a, b, c, d]: [i32; 4]) -> Orientation {
    // Where "down" goes says how far it was turned; mirroring left to right leaves down alone.
    let quarter_turns = match (c.unsigned_abs() > d.unsigned_abs(), c > 0, d < 0) {
        (true, false, _) => 1,
        (false, _, true) => 2,
        (true, true, _) => 3,
        (false, _, false) => 0,
    };
    let mirrored = i64::from(a) * i64::from(d) < i64::from(b) * i64::from(c);
    Orientation::new(mirrored, quarter_turns).unwrap_or(Orientation::UPRIGHT)
}

/// A copy of the plane as it is to be seen.
pub(crate) fn turn(plane: Plane<'_, u8>, orientation: Orientation) -> Result<OwnedPlane<u8>, OutOfMemory> {
    let size = if orientation.swaps_sides() { plane.size.swapped() } else { plane.size };
    let mut turned = OwnedPlane::new(size)?;
    let walk = Walk::new(plane, orientation);
    for (y, row) in turned.rows_mut().enumerate() {
        let mut at = walk.start + walk.down * y as isize;
        for sample in row {
            *sample = plane.samples[at as usize];
            at += walk.right;
        }
    }
    Ok(turned)
}

/// How to walk over the source's samples so that they come in the order of the turned picture.
struct Walk {
    /// Index of the sample that becomes the first.
    start: isize,
    /// What one step to the right, and one down, in the turned picture mean in the source.
    right: isize,
    down: isize,
}

impl Walk {
    fn new(plane: Plane<'_, u8>, orientation: Orientation) -> Self {
        let Size { width, height } = plane.size;
        let (last_column, last_row) = (width as isize - 1, height as isize - 1);
        let stride = plane.stride as isize;
        // Mirroring comes first, so undoing it comes last: steps along x change direction.
        let (left, x) = if orientation.mirrored { (last_column, -1) } else { (0, 1) };
        let right_edge = last_column - left;
        let bottom = last_row * stride;
        match orientation.quarter_turns() {
            0 => Self { start: left, right: x, down: stride },
            1 => Self { start: left + bottom, right: -stride, down: x },
            2 => Self { start: right_edge + bottom, right: -x, down: -stride },
            _ => Self { start: right_edge, right: stride, down: -x },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three wide, two high, with padding behind each row.
    const PLANE: Plane<'static, u8> =
        Plane { samples: &[1, 2, 3, 0, 4, 5, 6, 0], stride: 4, size: Size { width: 3, height: 2 } };

    #[test]
    fn turns_clockwise_after_mirroring() {
        let cases: [(bool, u8, &[&[u8]]); 8] = [
            (false, 0, &[&[1, 2, 3], &[4, 5, 6]]),
            (false, 1, &[&[4, 1], &[5, 2], &[6, 3]]),
            (false, 2, &[&[6, 5, 4], &[3, 2, 1]]),
            (false, 3, &[&[3, 6], &[2, 5], &[1, 4]]),
            (true, 0, &[&[3, 2, 1], &[6, 5, 4]]),
            (true, 1, &[&[6, 3], &[5, 2], &[4, 1]]),
            (true, 2, &[&[4, 5, 6], &[1, 2, 3]]),
            (true, 3, &[&[1, 4], &[2, 5], &[3, 6]]),
        ];
        for (mirrored, turns, expected) in cases {
            let orientation = Orientation::new(mirrored, turns).expect("below 4");
            let turned = turn(PLANE, orientation).expect("six bytes fit");
            let rows: Vec<&[u8]> = turned.as_plane().rows().collect();
            assert_eq!(rows, expected, "mirrored {mirrored}, {turns} quarter turns");
        }
    }

    #[test]
    fn display_matrices_become_orientations() {
        const ONE: i32 = 1 << 16;
        let cases = [
            ("identity", [ONE, 0, 0, ONE], (false, 0)),
            ("a quarter clockwise", [0, ONE, -ONE, 0], (false, 1)),
            ("half", [-ONE, 0, 0, -ONE], (false, 2)),
            ("a quarter the other way", [0, -ONE, ONE, 0], (false, 3)),
            ("left to right", [-ONE, 0, 0, ONE], (true, 0)),
            ("upside down", [ONE, 0, 0, -ONE], (true, 2)),
            ("transposed", [0, ONE, ONE, 0], (true, 3)),
            ("almost a quarter", [3000, ONE - 9, -ONE + 9, 3000], (false, 1)),
            ("nothing", [0; 4], (false, 0)),
            ("extreme", [i32::MIN; 4], (false, 2)),
        ];
        for (name, matrix, (mirrored, turns)) in cases {
            assert_eq!(Some(orientation_of(matrix)), Orientation::new(mirrored, turns), "{name}");
        }
    }
}
