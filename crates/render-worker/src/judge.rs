//! A look at the luma: how bright, how varied, and whether there is anything to see.

use framehook_render_wire::Judgement;

use crate::colour::Encoding;
use crate::picture::{Plane, Sample};

/// About how many samples are looked at. The mean of so many is within a level of the picture's, and it takes some 20 µs.
const SAMPLES_WANTED: u64 = 20_000;

/// Level at or below which a sample is black, of 255 at full range. ffmpeg's `blackframe` says 32 of a limited-range
/// code, which is this.
const BLACK_LEVEL_MAX: f64 = 18.6;

/// Share of black samples that makes a black picture, as in ffmpeg's `blackframe`: a station logo leaves it black.
const BLACK_SHARE_MIN: f64 = 0.98;

/// Judges the luma of a whole picture.
pub(crate) fn judge<T: Sample>(luma: Plane<'_, T>, encoding: Encoding) -> Judgement {
    let pixels = u64::from(luma.size.width) * u64::from(luma.size.height);
    let step = (pixels / SAMPLES_WANTED).isqrt().max(1) as usize;
    let (black, codes) = encoding.luma_scale();
    let scale = 255.0 / codes;
    let darkest_visible = black + BLACK_LEVEL_MAX / scale;

    let (mut count, mut sum, mut squares, mut dark) = (0_u64, 0_u64, 0_u64, 0_u64);
    for row in luma.rows().step_by(step) {
        for &sample in row.iter().step_by(step) {
            let code: u32 = sample.into();
            count += 1;
            sum += u64::from(code);
            squares += u64::from(code) * u64::from(code);
            dark += u64::from(f64::from(code) <= darkest_visible);
        }
    }
    let count = count.max(1) as f64;
    let mean = sum as f64 / count;
    let variance = (squares as f64 / count - mean * mean).max(0.0);
    Judgement {
        luma_mean: ((mean - black) * scale).clamp(0.0, 255.0) as f32,
        luma_deviation: (variance.sqrt() * scale).min(255.0) as f32,
        black: dark as f64 / count >= BLACK_SHARE_MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framehook_render_wire::{ColourMatrix, ColourRange, Size};

    const FULL: Encoding = Encoding { matrix: ColourMatrix::Bt601, range: ColourRange::Full, bit_depth: 8 };
    const LIMITED: Encoding = Encoding { range: ColourRange::Limited, ..FULL };

    fn judge_samples(samples: &[u8], encoding: Encoding) -> Judgement {
        judge(Plane::new(samples, 400, Size::new(400, 300)).expect("400 by 300"), encoding)
    }

    #[test]
    fn levels_are_on_the_full_scale() {
        let white = judge_samples(&[235; 120_000], LIMITED);
        assert!((white.luma_mean - 255.0).abs() < 0.01 && white.luma_deviation < 0.01 && !white.black, "{white:?}");
        let halves: Vec<u8> = (0..120_000).map(|index| if index < 60_000 { 16 } else { 235 }).collect();
        let halves = judge_samples(&halves, LIMITED);
        assert!((halves.luma_mean - 127.5).abs() < 1.0 && (halves.luma_deviation - 127.5).abs() < 1.0, "{halves:?}");
    }

    #[test]
    fn black_is_dark_almost_everywhere() {
        let with_logo = |share: usize, background: u8| -> Vec<u8> {
            (0..120_000).map(|index| if index < 120_000 * share / 100 { 200 } else { background }).collect()
        };
        let cases = [
            ("black", with_logo(0, 16), LIMITED, true),
            ("noisy black", with_logo(0, 30), LIMITED, true),
            ("the same code at full range", with_logo(0, 30), FULL, false),
            ("black with a logo", with_logo(1, 16), LIMITED, true),
            ("black with a window", with_logo(5, 16), LIMITED, false),
            ("dark gray", with_logo(0, 40), LIMITED, false),
        ];
        for (name, samples, encoding, black) in cases {
            assert_eq!(judge_samples(&samples, encoding).black, black, "{name}");
        }
    }

    #[test]
    fn wide_samples_are_judged_alike() {
        let narrow = judge(Plane::new(&[120_u8; 64], 8, Size::new(8, 8)).expect("64"), LIMITED);
        let encoding = Encoding { bit_depth: 10, ..LIMITED };
        let wide = judge(Plane::new(&[480_u16; 64], 8, Size::new(8, 8)).expect("64"), encoding);
        assert!((narrow.luma_mean - wide.luma_mean).abs() < 0.01);
    }
}
