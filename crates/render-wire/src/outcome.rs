//! What became of a job.

use alloc::string::String;
use alloc::vec::Vec;

use crate::bytes::{Reader, Writer};
use crate::sizing::{Orientation, SampleAspect, Size};
use crate::{IMAGE_SIDE_MAX, IMAGES_BYTES_MAX, PICTURE_PIXELS_MAX, RENDITIONS_MAX, WireError};

/// The answer to one [`Job`](crate::Job).
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub job_id: u64,
    pub result: Result<Rendered, Failure>,
}

/// A picture that the decoder calls whole, and the images made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    pub facts: PictureFacts,
    pub judgement: Judgement,
    pub timings: Timings,
    /// One for each rendition of the job, in the same order.
    pub images: Vec<ImageAt>,
}

/// What the bitstream says about the decoded picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureFacts {
    /// Size in samples after cropping, before sample aspect ratio and orientation.
    pub size: Size,
    pub sample_aspect: SampleAspect,
    pub orientation: Orientation,
    /// The matrix that was used; guessed from the height when [`matrix_tagged`](Self::matrix_tagged) is false.
    pub matrix: ColourMatrix,
    pub matrix_tagged: bool,
    pub range: ColourRange,
    pub chroma: Chroma,
    /// Bits of one sample.
    pub bit_depth: u8,
    pub interlaced: bool,
}

/// Coefficients between R'G'B' and Y'CbCr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColourMatrix {
    Bt601,
    Bt709,
    /// Non-constant luminance.
    Bt2020,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColourRange {
    /// Luma 16 to 235 of 255, and so on in proportion.
    Limited,
    Full,
}

/// How chroma is sampled. Monochrome H.264 comes out of its decoder as 4:2:0 without colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chroma {
    C420,
    C422,
    C444,
}

/// What a look at the luma says; levels are on the full-range scale of 0 to 255.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    pub luma_mean: f32,
    /// Standard deviation of the luma.
    pub luma_deviation: f32,
    /// The picture shows nothing but black.
    pub black: bool,
}

/// Wall time spent in each step, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    pub decode_us: u32,
    /// Scaling, colour conversion and turning, of all renditions.
    pub scale_us: u32,
    /// All renditions.
    pub encode_us: u32,
}

/// Where an image lies in the exchange, counted from [`IMAGES_OFFSET`](crate::IMAGES_OFFSET), and its real size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageAt {
    pub offset: u32,
    pub bytes: u32,
    pub size: Size,
}

/// No picture, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: FailureReason,
    /// For a log, never for a decision; cut at [`TEXT_BYTES_MAX`](crate::TEXT_BYTES_MAX).
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The decoder found damage, or the unit lacks a part of its picture.
    Corrupt,
    /// Whole, but of a codec, profile or sample format that this worker does not know.
    Unsupported,
    /// PQ or HLG: would need tone mapping.
    HdrUnsupported,
    /// The picture or an image of it passes a limit of this crate.
    TooLarge,
    /// The decoder took the unit and gave nothing: it is no entry point.
    NoPicture,
    /// The worker's memory limit was reached.
    OutOfMemory,
    /// A library failed where it should not.
    Internal,
}

impl FailureReason {
    pub const ALL: [Self; 7] = [
        Self::Corrupt,
        Self::Unsupported,
        Self::HdrUnsupported,
        Self::TooLarge,
        Self::NoPicture,
        Self::OutOfMemory,
        Self::Internal,
    ];

    /// The name used in metrics, logs and `/v1`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::HdrUnsupported => "hdr_unsupported",
            Self::TooLarge => "too_large",
            Self::NoPicture => "no_picture",
            Self::OutOfMemory => "out_of_memory",
            Self::Internal => "internal",
        }
    }

    fn to_u8(self) -> u8 {
        match self {
            Self::Corrupt => 1,
            Self::Unsupported => 2,
            Self::HdrUnsupported => 3,
            Self::TooLarge => 4,
            Self::NoPicture => 5,
            Self::OutOfMemory => 6,
            Self::Internal => 7,
        }
    }

    fn from_u8(value: u8) -> Result<Self, WireError> {
        Self::ALL.into_iter().find(|reason| reason.to_u8() == value).ok_or(WireError::Value("failure reason"))
    }
}

impl Outcome {
    pub(crate) fn write(&self, to: &mut Writer) -> Result<(), WireError> {
        to.u64(self.job_id);
        match &self.result {
            Ok(rendered) => {
                to.u8(0);
                rendered.write(to)
            }
            Err(failure) => {
                to.u8(failure.reason.to_u8());
                to.text(&failure.detail);
                Ok(())
            }
        }
    }

    pub(crate) fn parse(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let job_id = from.u64()?;
        let result = match from.u8()? {
            0 => Ok(Rendered::parse(from)?),
            reason => Err(Failure { reason: FailureReason::from_u8(reason)?, detail: from.text()? }),
        };
        Ok(Self { job_id, result })
    }
}

impl Rendered {
    fn check(&self) -> Result<(), WireError> {
        self.facts.check()?;
        if self.images.is_empty() || self.images.len() > RENDITIONS_MAX {
            return Err(WireError::Value("image count"));
        }
        self.images.iter().try_for_each(ImageAt::check)?;
        // Places could overlap, and the reader copies each image: together they must not exceed what apart they could.
        if self.images.iter().map(|image| u64::from(image.bytes)).sum::<u64>() > IMAGES_BYTES_MAX as u64 {
            return Err(WireError::Value("image bytes in all"));
        }
        Ok(())
    }

    fn write(&self, to: &mut Writer) -> Result<(), WireError> {
        self.check()?;
        self.facts.write(to);
        to.f32(self.judgement.luma_mean);
        to.f32(self.judgement.luma_deviation);
        to.bool(self.judgement.black);
        to.u32(self.timings.decode_us);
        to.u32(self.timings.scale_us);
        to.u32(self.timings.encode_us);
        to.u8(self.images.len() as u8);
        for image in &self.images {
            to.u32(image.offset);
            to.u32(image.bytes);
            image.size.write(to);
        }
        Ok(())
    }

    fn parse(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let facts = PictureFacts::parse(from)?;
        let judgement = Judgement { luma_mean: from.f32()?, luma_deviation: from.f32()?, black: from.bool()? };
        let timings = Timings { decode_us: from.u32()?, scale_us: from.u32()?, encode_us: from.u32()? };
        let count = usize::from(from.u8()?);
        if count > RENDITIONS_MAX {
            return Err(WireError::Value("image count"));
        }
        let mut images = Vec::with_capacity(count);
        for _ in 0..count {
            images.push(ImageAt { offset: from.u32()?, bytes: from.u32()?, size: Size::parse(from)? });
        }
        let rendered = Self { facts, judgement, timings, images };
        rendered.check()?;
        Ok(rendered)
    }
}

impl ImageAt {
    fn check(&self) -> Result<(), WireError> {
        let end = u64::from(self.offset) + u64::from(self.bytes);
        if self.bytes == 0 || end > IMAGES_BYTES_MAX as u64 {
            return Err(WireError::Value("image place"));
        }
        let side = 1..=IMAGE_SIDE_MAX;
        if !side.contains(&self.size.width) || !side.contains(&self.size.height) {
            return Err(WireError::Value("image size"));
        }
        Ok(())
    }
}

impl PictureFacts {
    fn check(&self) -> Result<(), WireError> {
        let pixels = u64::from(self.size.width) * u64::from(self.size.height);
        if pixels == 0 || pixels > u64::from(PICTURE_PIXELS_MAX) {
            return Err(WireError::Value("picture size"));
        }
        if !(8..=16).contains(&self.bit_depth) {
            return Err(WireError::Value("bit depth"));
        }
        Ok(())
    }

    fn write(&self, to: &mut Writer) {
        self.size.write(to);
        to.u32(self.sample_aspect.numerator());
        to.u32(self.sample_aspect.denominator());
        to.bool(self.orientation.mirrored);
        to.u8(self.orientation.quarter_turns());
        to.u8(match self.matrix {
            ColourMatrix::Bt601 => 1,
            ColourMatrix::Bt709 => 2,
            ColourMatrix::Bt2020 => 3,
        });
        to.bool(self.matrix_tagged);
        to.u8(match self.range {
            ColourRange::Limited => 1,
            ColourRange::Full => 2,
        });
        to.u8(match self.chroma {
            Chroma::C420 => 1,
            Chroma::C422 => 2,
            Chroma::C444 => 3,
        });
        to.u8(self.bit_depth);
        to.bool(self.interlaced);
    }

    fn parse(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            size: Size::parse(from)?,
            sample_aspect: SampleAspect::new(from.u32()?, from.u32()?).ok_or(WireError::Value("sample aspect"))?,
            orientation: {
                let mirrored = from.bool()?;
                Orientation::new(mirrored, from.u8()?).ok_or(WireError::Value("orientation"))?
            },
            matrix: match from.u8()? {
                1 => ColourMatrix::Bt601,
                2 => ColourMatrix::Bt709,
                3 => ColourMatrix::Bt2020,
                _ => return Err(WireError::Value("colour matrix")),
            },
            matrix_tagged: from.bool()?,
            range: match from.u8()? {
                1 => ColourRange::Limited,
                2 => ColourRange::Full,
                _ => return Err(WireError::Value("colour range")),
            },
            chroma: match from.u8()? {
                1 => Chroma::C420,
                2 => Chroma::C422,
                3 => Chroma::C444,
                _ => return Err(WireError::Value("chroma format")),
            },
            bit_depth: from.u8()?,
            interlaced: from.bool()?,
        })
    }
}

impl Size {
    fn write(self, to: &mut Writer) {
        to.u32(self.width);
        to.u32(self.height);
    }

    fn parse(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { width: from.u32()?, height: from.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FromWorker;
    use crate::fuzz::arbitrary;

    fn with_image(image: ImageAt) -> Result<Vec<u8>, WireError> {
        let mut outcome = arbitrary::outcome_example();
        outcome.result.as_mut().expect("the example is a success").images[0] = image;
        FromWorker::Outcome(outcome).write()
    }

    #[test]
    fn an_image_lies_inside_the_exchange() {
        let size = Size { width: 16, height: 16 };
        let last = IMAGES_BYTES_MAX as u32;
        assert!(with_image(ImageAt { offset: last - 1, bytes: 1, size }).is_ok());
        for (offset, bytes) in [(last, 1), (0, last + 1), (u32::MAX, u32::MAX), (0, 0)] {
            assert_eq!(with_image(ImageAt { offset, bytes, size }), Err(WireError::Value("image place")));
        }
    }

    #[test]
    fn an_image_has_a_size_that_jpeg_can_hold() {
        for (width, height) in [(0, 1), (1, 0), (65_501, 1), (1, u32::MAX)] {
            let image = ImageAt { offset: 0, bytes: 1, size: Size { width, height } };
            assert_eq!(with_image(image), Err(WireError::Value("image size")));
        }
    }

    #[test]
    fn a_long_detail_is_cut_at_a_character() {
        let detail = "€".repeat(100);
        let failure = Failure { reason: FailureReason::Internal, detail };
        let message =
            FromWorker::Outcome(Outcome { job_id: 1, result: Err(failure) }).write().expect("a cut text fits");
        let Ok(FromWorker::Outcome(Outcome { result: Err(failure), .. })) = FromWorker::parse(&message) else {
            panic!("a failure comes back as a failure");
        };
        assert_eq!(failure.detail, "€".repeat(66));
    }
}
