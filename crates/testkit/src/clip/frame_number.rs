//! A number burnt into every frame as black and white cells, and its reader.
//!
//! The cells fill a strip at the top, [`CELLS`] side by side: one white, one black (what the others are compared to),
//! sixteen bits from the highest, their parity, the parity's opposite. All places are fractions of the picture, so the
//! number survives scaling to any size and shape down to about 80 x 60, and JPEG's artefacts.

use std::fmt::Write;

use crate::picture::Picture;

/// Cells of the strip: two references, sixteen bits, two of parity.
const CELLS: usize = 20;
const BITS: usize = 16;
/// The strip takes a twelfth of the height.
const STRIP_HEIGHT: f64 = 1.0 / 12.0;
/// How far the references must be apart, in levels of 0 to 255, for the strip to be believed to be one. A washed-out
/// picture, limited range taken for full, still has 219.
const CONTRAST_MIN: f64 = 180.0;

/// ffmpeg filters that burn the number of each frame (`n`, from 0) into a picture of the given size.
pub(super) fn burn_filters(width: u32, height: u32) -> String {
    let strip = (f64::from(height) * STRIP_HEIGHT).ceil();
    let mut filters = format!("drawbox=x=0:y=0:w=iw:h={strip}:color=black:t=fill");
    let bit = |bit: usize| format!("bitand(floor(n/{})\\,1)", 1 << bit);
    let parity = format!("mod({}\\,2)", (0..BITS).map(bit).collect::<Vec<_>>().join("+"));
    let mut white_when = vec!["1".to_owned(), "0".to_owned()];
    white_when.extend((0..BITS).rev().map(bit));
    white_when.extend([parity.clone(), format!("1-{parity}")]);
    let cell_width = f64::from(width) / CELLS as f64;
    for (cell, condition) in white_when.iter().enumerate() {
        let left = (cell_width * cell as f64).round();
        let right = (cell_width * (cell + 1) as f64).round();
        write!(filters, ",drawbox=x={left}:y=0:w={}:h={strip}:color=white:t=fill:enable='{condition}'", right - left)
            .expect("writing to a string succeeds");
    }
    filters
}

/// The number burnt into a picture; `None` when there is none, or when any cell is not clearly black or white.
pub fn frame_number(picture: &Picture) -> Option<u32> {
    let mut levels = [0.0; CELLS];
    for (cell, level) in levels.iter_mut().enumerate() {
        // The middle third of the cell, away from what scaling blends in from its neighbours.
        let side = |part: f64| (cell as f64 + part) / CELLS as f64;
        *level = picture.mean_luma((side(0.34), STRIP_HEIGHT * 0.34, side(0.67), STRIP_HEIGHT * 0.67));
    }
    let [white, black, cells @ ..] = levels;
    if white - black < CONTRAST_MIN {
        return None;
    }
    let mut bits = 0_u32;
    for level in cells {
        let bit = match (level - black) / (white - black) {
            0.7..1.3 => 1,
            -0.3..0.3 => 0,
            _ => return None,
        };
        bits = bits << 1 | bit;
    }
    let (number, parity, opposite) = (bits >> 2, bits >> 1 & 1, bits & 1);
    (number.count_ones() % 2 == parity && parity != opposite).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The strip as the filters draw it.
    fn drawn(number: u32, width: usize, height: usize) -> Picture {
        let parity = number.count_ones() % 2;
        let cells = 1 << 19 | number << 2 | parity << 1 | (1 - parity);
        let mut rgb = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let cell = x * CELLS / width;
                let white = y <= height / 12 && cells >> (CELLS - 1 - cell) & 1 == 1;
                rgb.extend([if white { 255 } else { 0 }; 3]);
            }
        }
        Picture::new(width, height, rgb).unwrap()
    }

    #[test]
    fn reads_every_bit_at_every_size() {
        for (width, height) in [(80, 60), (320, 180), (607, 341), (1080, 1920)] {
            for number in [0, 1, 0x5555, 0xaaaa, 0xffff].into_iter().chain((0..BITS).map(|bit| 1 << bit)) {
                assert_eq!(frame_number(&drawn(number, width, height)), Some(number), "{width}x{height}");
            }
        }
    }

    #[test]
    fn a_wrong_or_grey_cell_is_no_number() {
        let picture = drawn(0b1010, 320, 180);
        for cell in 0..CELLS {
            for change in [|level: u8| 255 - level, |_| 128] {
                let mut damaged = picture.clone();
                for y in 0..15 {
                    for sample in &mut damaged.rgb[(y * 320 + cell * 16) * 3..(y * 320 + cell * 16 + 16) * 3] {
                        *sample = change(*sample);
                    }
                }
                assert_eq!(frame_number(&damaged), None, "cell {cell}");
            }
        }
    }

    #[test]
    fn a_picture_without_a_strip_has_no_number() {
        for level in [0, 128, 255] {
            assert_eq!(frame_number(&Picture::new(64, 64, vec![level; 64 * 64 * 3]).unwrap()), None);
        }
    }
}
