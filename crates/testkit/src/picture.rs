//! Pictures in memory and how much two of them differ.

use anyhow::{Result, ensure};

/// 8 bit full-range RGB, row by row without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// `width * height * 3` bytes.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// # Errors
    /// When `rgb` is not `width * height * 3` bytes.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Result<Self> {
        ensure!(rgb.len() == width * height * 3, "{} bytes for a picture of {width}x{height}", rgb.len());
        Ok(Self { width, height, rgb })
    }

    /// Red, green, blue at a place. Panics outside of the picture.
    pub fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let start = (y * self.width + x) * 3;
        [self.rgb[start], self.rgb[start + 1], self.rgb[start + 2]]
    }

    /// Brightness (BT.601) of each sample, 0 to 255.
    pub fn luma(&self) -> Vec<f64> {
        self.rgb.as_chunks().0.iter().map(luma).collect()
    }

    /// Mean brightness of a part, given as fractions of width and height: `(left, top, right, bottom)`. At least the
    /// one sample in the middle counts.
    pub fn mean_luma(&self, (left, top, right, bottom): (f64, f64, f64, f64)) -> f64 {
        let (columns, rows) = (span(left, right, self.width), span(top, bottom, self.height));
        let count = columns.len() * rows.len();
        let sum: f64 = rows.flat_map(|y| columns.clone().map(move |x| luma(&self.at(x, y)))).sum();
        sum / count as f64
    }

    /// PSNR of the brightness against a picture of the same size, in dB; infinite when equal.
    ///
    /// # Errors
    /// When the sizes differ.
    pub fn psnr_luma(&self, other: &Self) -> Result<f64> {
        self.must_be_as_large_as(other)?;
        let squares: f64 = self.luma().iter().zip(other.luma()).map(|(a, b)| (a - b).powi(2)).sum();
        let mean = squares / (self.width * self.height) as f64;
        Ok(10.0 * (255.0_f64.powi(2) / mean).log10())
    }

    /// PSNR of brightness and of both colour differences (BT.601) against a picture of the same size, in dB. Colour is
    /// compared in means of 2x2 samples, which is all that a JPEG in 4:2:0 keeps of it. A picture with swapped or shifted
    /// colours fails there, however good its brightness is.
    ///
    /// # Errors
    /// When the sizes differ.
    pub fn psnr_planes(&self, other: &Self) -> Result<[f64; 3]> {
        let colour = [self.halved_colour(), other.halved_colour()];
        let plane = |plane: usize| {
            let squares = colour[0].iter().zip(&colour[1]).map(|(ours, theirs)| (ours[plane] - theirs[plane]).powi(2));
            10.0 * (255.0_f64.powi(2) / (squares.sum::<f64>() / colour[0].len() as f64)).log10()
        };
        Ok([self.psnr_luma(other)?, plane(0), plane(1)])
    }

    /// Differences to blue and red (BT.601, full range, around 0), one mean for each 2x2 samples.
    fn halved_colour(&self) -> Vec<[f64; 2]> {
        let mut means = Vec::with_capacity(self.width.div_ceil(2) * self.height.div_ceil(2));
        for y in (0..self.height).step_by(2) {
            for x in (0..self.width).step_by(2) {
                let rows = y..(y + 2).min(self.height);
                let samples = rows.flat_map(|y| (x..(x + 2).min(self.width)).map(move |x| self.at(x, y)));
                let (sum, count) = samples.fold(([0.0; 2], 0.0), |([blue, red], count), rgb| {
                    let y = luma(&rgb);
                    let [b, r] = [(f64::from(rgb[2]) - y) / 1.772, (f64::from(rgb[0]) - y) / 1.402];
                    ([blue + b, red + r], count + 1.0)
                });
                means.push(sum.map(|sum| sum / count));
            }
        }
        means
    }

    /// How far this picture is from `other` in red, green and blue.
    ///
    /// # Errors
    /// When the sizes differ.
    pub fn difference(&self, other: &Self) -> Result<[Difference; 3]> {
        self.must_be_as_large_as(other)?;
        Ok([0, 1, 2].map(|channel| {
            let channel_of =
                |picture: &Self| -> Vec<u8> { picture.rgb.iter().skip(channel).step_by(3).copied().collect() };
            Difference::of(&channel_of(self), &channel_of(other))
        }))
    }

    fn must_be_as_large_as(&self, other: &Self) -> Result<()> {
        let sizes = [(self.width, self.height), (other.width, other.height)];
        ensure!(sizes[0] == sizes[1], "sizes differ: {sizes:?}");
        Ok(())
    }
}

/// The error of one channel, in levels of 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// With its sign: a wrong range or matrix shows here even where noise hides it elsewhere.
    pub mean: f64,
    pub largest: u8,
}

impl Difference {
    fn of(ours: &[u8], theirs: &[u8]) -> Self {
        let sum: f64 = ours.iter().zip(theirs).map(|(&a, &b)| f64::from(a) - f64::from(b)).sum();
        let largest = ours.iter().zip(theirs).map(|(&a, &b)| a.abs_diff(b)).max().unwrap_or(0);
        Self { mean: sum / ours.len().max(1) as f64, largest }
    }
}

fn luma(rgb: &[u8; 3]) -> f64 {
    0.299 * f64::from(rgb[0]) + 0.587 * f64::from(rgb[1]) + 0.114 * f64::from(rgb[2])
}

/// The samples between two fractions of a side; never empty.
fn span(from: f64, to: f64, side: usize) -> std::ops::Range<usize> {
    let place = |fraction: f64| ((fraction * side as f64) as usize).min(side - 1);
    let start = place(from);
    start..place(to).max(start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(value: u8) -> Picture {
        Picture::new(4, 2, vec![value; 24]).unwrap()
    }

    #[test]
    fn swapped_colours_show_in_the_planes_of_colour() {
        let of = |rgb: [u8; 3]| Picture::new(2, 1, [rgb, rgb].concat()).unwrap();
        let planes = of([200, 100, 40]).psnr_planes(&of([40, 141, 200])).unwrap();
        assert!(planes[0] > 30.0 && planes[1] < 10.0 && planes[2] < 10.0, "{planes:?}");
        assert_eq!(of([1, 2, 3]).psnr_planes(&of([1, 2, 3])).unwrap(), [f64::INFINITY; 3]);
    }

    #[test]
    fn psnr_follows_the_error() {
        assert_eq!(flat(9).psnr_luma(&flat(9)).unwrap(), f64::INFINITY);
        // One level of error everywhere is 20 log10(255) dB.
        assert!((flat(10).psnr_luma(&flat(9)).unwrap() - 48.13).abs() < 0.01);
    }

    #[test]
    fn difference_keeps_the_sign_and_the_channel() {
        let mut darker = flat(100);
        darker.rgb[1] = 92;
        let [red, green, blue] = darker.difference(&flat(100)).unwrap();
        assert_eq!((red, blue), (Difference { mean: 0.0, largest: 0 }, red));
        assert_eq!(green, Difference { mean: -1.0, largest: 8 });
    }

    #[test]
    fn other_sizes_are_refused() {
        let other = Picture::new(2, 4, vec![0; 24]).unwrap();
        assert!(flat(0).psnr_luma(&other).is_err());
        assert!(Picture::new(2, 2, vec![0; 24]).is_err());
    }

    #[test]
    fn mean_luma_looks_only_at_its_part() {
        let mut picture = flat(0);
        picture.rgb[6..12].fill(255);
        assert!((picture.mean_luma((0.5, 0.0, 1.0, 0.5)) - 255.0).abs() < 0.01);
        assert!((picture.mean_luma((0.0, 0.0, 0.5, 1.0))).abs() < 0.01);
    }
}
