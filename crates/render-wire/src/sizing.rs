//! How large an image becomes (CSS, 267/31562).
//!
//! ```text
//! samples ──sample aspect──▶ square pixels ──orientation──▶ as displayed ──template──▶ image
//!          display_size                                                   output_size
//! ```

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

impl Size {
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    pub fn swapped(self) -> Self {
        Self { width: self.height, height: self.width }
    }
}

/// Width of a sample over its height, both above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleAspect {
    numerator: u32,
    denominator: u32,
}

impl SampleAspect {
    pub const SQUARE: Self = Self { numerator: 1, denominator: 1 };

    /// `None` when either part is 0: H.264 writes an unknown ratio so.
    pub fn new(numerator: u32, denominator: u32) -> Option<Self> {
        (numerator > 0 && denominator > 0).then_some(Self { numerator, denominator })
    }

    pub fn numerator(self) -> u32 {
        self.numerator
    }

    pub fn denominator(self) -> u32 {
        self.denominator
    }
}

/// How a decoded picture must be turned to be seen upright: first mirrored left to right, then turned clockwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Orientation {
    pub mirrored: bool,
    quarter_turns: u8,
}

impl Orientation {
    pub const UPRIGHT: Self = Self { mirrored: false, quarter_turns: 0 };

    /// `None` when `quarter_turns` is above 3.
    pub fn new(mirrored: bool, quarter_turns: u8) -> Option<Self> {
        (quarter_turns < 4).then_some(Self { mirrored, quarter_turns })
    }

    /// Quarter turns clockwise, 0 to 3.
    pub fn quarter_turns(self) -> u8 {
        self.quarter_turns
    }

    /// Whether width and height change places.
    pub fn swaps_sides(self) -> bool {
        self.quarter_turns % 2 == 1
    }
}

/// Size of a picture as a viewer sees it. The sample aspect ratio stretches or squeezes the width and leaves the height,
/// as players do; a changed width is rounded to even like every computed side.
pub fn display_size(picture: Size, sample_aspect: SampleAspect, orientation: Orientation) -> Size {
    let SampleAspect { numerator, denominator } = sample_aspect;
    let squared = if numerator == denominator {
        picture
    } else {
        Size { width: proportional(picture.width, numerator, denominator), ..picture }
    };
    if orientation.swaps_sides() { squared.swapped() } else { squared }
}

/// Size of the image that a template makes of a picture. A side of the template that is 0 is not given: both missing keep
/// the picture's size, one missing follows from the picture's shape, and two given are taken exactly, exchanged when the
/// template lies across the picture (one landscape, the other portrait; a square lies across nothing).
///
/// A given side is kept to the pixel; a computed one is the nearest even number, at least 2. The result can be absurdly
/// long for an absurdly thin picture: whoever allocates by it checks it.
pub fn output_size(picture: Size, template: Size) -> Size {
    match (template.width, template.height) {
        (0, 0) => picture,
        (width, 0) => Size { width, height: proportional(width, picture.height, picture.width) },
        (0, height) => Size { width: proportional(height, picture.width, picture.height), height },
        (width, height) => {
            let across = (width < height && picture.width > picture.height)
                || (width > height && picture.width < picture.height);
            if across { template.swapped() } else { template }
        }
    }
}

/// `side × numerator / denominator` rounded to the nearest even number, at least 2; a half goes up.
fn proportional(side: u32, numerator: u32, denominator: u32) -> u32 {
    // Three 32-bit factors fit in 128 bits. Rounding to even is rounding the half and doubling it:
    // floor(x/2 + 1/2) = floor((side·numerator + denominator) / (2·denominator)).
    let denominator = u128::from(denominator.max(1));
    let halves = (u128::from(side) * u128::from(numerator) + denominator) / (2 * denominator);
    u32::try_from((halves * 2).max(2)).unwrap_or(u32::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_follow_the_table() {
        // name, picture, template, image
        let table = [
            ("original", (1280, 720), (0, 0), (1280, 720)),
            ("original, odd", (641, 359), (0, 0), (641, 359)),
            ("width only", (1280, 720), (640, 0), (640, 360)),
            ("height only", (1280, 720), (0, 360), (640, 360)),
            ("533.3 becomes even", (1280, 720), (0, 300), (534, 300)),
            ("exactly between two even numbers goes up", (1280, 720), (16, 0), (16, 10)),
            ("both, shape not kept", (1280, 720), (320, 320), (320, 320)),
            ("both, odd, exactly", (1280, 720), (321, 181), (321, 181)),
            ("portrait template, landscape picture", (1280, 720), (360, 640), (640, 360)),
            ("landscape template, portrait picture", (720, 1280), (640, 360), (360, 640)),
            ("portrait on portrait", (720, 1280), (360, 640), (360, 640)),
            ("square picture", (720, 720), (640, 360), (640, 360)),
            ("portrait, width only", (720, 1280), (360, 0), (360, 640)),
            ("larger than the picture", (640, 360), (1920, 0), (1920, 1080)),
            ("a computed side is at least 2", (4000, 2), (16, 0), (16, 2)),
        ];
        for (name, picture, template, image) in table {
            let size = output_size(Size::new(picture.0, picture.1), Size::new(template.0, template.1));
            assert_eq!((size.width, size.height), image, "{name}");
        }
    }

    #[test]
    fn display_size_applies_sample_aspect_then_orientation() {
        let upright = Orientation::UPRIGHT;
        let turned = Orientation::new(false, 1).expect("a quarter turn");
        let table = [
            ("square", (1280, 720), (1, 1), upright, (1280, 720)),
            ("square written otherwise", (1281, 720), (7, 7), upright, (1281, 720)),
            ("PAL 16:9", (720, 576), (64, 45), upright, (1024, 576)),
            ("NTSC 4:3", (720, 480), (8, 9), upright, (640, 480)),
            ("anamorphic HD", (1440, 1080), (4, 3), upright, (1920, 1080)),
            ("turned", (1280, 720), (1, 1), turned, (720, 1280)),
            ("stretched, then turned", (1440, 1080), (4, 3), turned, (1080, 1920)),
        ];
        for (name, picture, aspect, orientation, display) in table {
            let aspect = SampleAspect::new(aspect.0, aspect.1).expect("parts above zero");
            let size = display_size(Size::new(picture.0, picture.1), aspect, orientation);
            assert_eq!((size.width, size.height), display, "{name}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_never_vanishes(
            width in any::<u32>(), height in any::<u32>(),
            (numerator, denominator) in (1u32.., 1u32..),
            template_width in 0u32..=3000, template_height in 0u32..=2000,
            mirrored: bool, turns in 0u8..4,
        ) {
            let orientation = Orientation::new(mirrored, turns).expect("below 4");
            let aspect = SampleAspect::new(numerator, denominator).expect("above zero");
            let display = display_size(Size::new(width.max(1), height.max(1)), aspect, orientation);
            let image = output_size(display, Size::new(template_width, template_height));
            prop_assert!(image.width > 0 && image.height > 0);
        }

        #[test]
        fn one_given_side_keeps_the_shape(width in 16u32..8192, height in 16u32..8192, given in 16u32..3000) {
            let image = output_size(Size::new(width, height), Size::new(given, 0));
            prop_assert_eq!(image.width, given);
            let exact = f64::from(given) * f64::from(height) / f64::from(width);
            prop_assert!((f64::from(image.height) - exact).abs() <= 1.0 || image.height == 2);
        }
    }
}
