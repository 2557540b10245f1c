//! What the server asks for.

use alloc::vec::Vec;

use framehook_media::Codec;

use crate::bytes::{Reader, Writer};
use crate::sizing::Size;
use crate::{CONFIG_BYTES_MAX, RENDITIONS_MAX, TEMPLATE_HEIGHT_MAX, TEMPLATE_WIDTH_MAX, UNIT_BYTES_MAX, WireError};

/// One entry point to decode, and the images wanted of it. The bytes themselves lie in the exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Chosen by the server, echoed in the [`Outcome`](crate::Outcome).
    pub id: u64,
    pub codec: Codec,
    /// Length of the decoder config, at offset 0 of the exchange; 0 when the codec has none.
    pub config_bytes: u32,
    /// Length of the access unit, right behind the config; never 0.
    pub unit_bytes: u32,
    /// Between 1 and [`RENDITIONS_MAX`].
    pub renditions: Vec<RenditionSpec>,
}

/// One image wanted of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RenditionSpec {
    /// Width and height as a template states them: 0 is "not given" (see [`crate::sizing::output_size`]).
    pub width: u16,
    pub height: u16,
    pub format: ImageFormat,
    /// 1 to 100: for JPEG on the scale of the Independent JPEG Group, for WebP on that of libwebp, for AVIF such that equal
    /// numbers look much alike. Ignored for PNG.
    pub quality: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// JFIF, baseline, 4:2:0, full-range BT.601, density 1:1.
    Jpeg,
    /// 8-bit R'G'B', tagged as sRGB.
    Png,
    /// Lossy (VP8), 4:2:0, limited-range BT.601, which is all that it can be.
    Webp,
    /// One AV1 key frame, 4:2:0, 8 bit, full-range BT.601, tagged so.
    Avif,
}

impl ImageFormat {
    pub const ALL: [Self; 4] = [Self::Jpeg, Self::Png, Self::Webp, Self::Avif];

    fn to_u8(self) -> u8 {
        match self {
            Self::Jpeg => 1,
            Self::Png => 2,
            Self::Webp => 3,
            Self::Avif => 4,
        }
    }

    fn from_u8(value: u8) -> Result<Self, WireError> {
        let known = Self::ALL.into_iter().find(|format| format.to_u8() == value);
        known.ok_or(WireError::Value("image format"))
    }
}

impl RenditionSpec {
    /// The quality used when a template gives none. The vendor does not say what theirs is.
    pub const QUALITY_DEFAULT: u8 = 85;

    /// A JPEG of the picture's own size.
    pub const ORIGINAL: Self = Self { width: 0, height: 0, format: ImageFormat::Jpeg, quality: Self::QUALITY_DEFAULT };

    pub fn template(&self) -> Size {
        Size { width: self.width.into(), height: self.height.into() }
    }

    fn check(&self) -> Result<(), WireError> {
        if self.width > TEMPLATE_WIDTH_MAX {
            return Err(WireError::Value("rendition width"));
        }
        if self.height > TEMPLATE_HEIGHT_MAX {
            return Err(WireError::Value("rendition height"));
        }
        if !(1..=100).contains(&self.quality) {
            return Err(WireError::Value("rendition quality"));
        }
        Ok(())
    }
}

impl Job {
    fn check(&self) -> Result<(), WireError> {
        if self.config_bytes as usize > CONFIG_BYTES_MAX {
            return Err(WireError::Value("decoder config length"));
        }
        if self.unit_bytes == 0 || self.unit_bytes as usize > UNIT_BYTES_MAX {
            return Err(WireError::Value("access unit length"));
        }
        if self.renditions.is_empty() || self.renditions.len() > RENDITIONS_MAX {
            return Err(WireError::Value("rendition count"));
        }
        self.renditions.iter().try_for_each(RenditionSpec::check)
    }

    pub(crate) fn write(&self, to: &mut Writer) -> Result<(), WireError> {
        self.check()?;
        to.u64(self.id);
        to.u8(codec_to_u8(self.codec));
        to.u32(self.config_bytes);
        to.u32(self.unit_bytes);
        to.u8(self.renditions.len() as u8);
        for rendition in &self.renditions {
            to.u16(rendition.width);
            to.u16(rendition.height);
            to.u8(rendition.format.to_u8());
            to.u8(rendition.quality);
        }
        Ok(())
    }

    pub(crate) fn parse(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let id = from.u64()?;
        let codec = codec_from_u8(from.u8()?)?;
        let config_bytes = from.u32()?;
        let unit_bytes = from.u32()?;
        let count = usize::from(from.u8()?);
        if count > RENDITIONS_MAX {
            return Err(WireError::Value("rendition count"));
        }
        let mut renditions = Vec::with_capacity(count);
        for _ in 0..count {
            renditions.push(RenditionSpec {
                width: from.u16()?,
                height: from.u16()?,
                format: ImageFormat::from_u8(from.u8()?)?,
                quality: from.u8()?,
            });
        }
        let job = Self { id, codec, config_bytes, unit_bytes, renditions };
        job.check()?;
        Ok(job)
    }
}

pub(crate) fn codec_to_u8(codec: Codec) -> u8 {
    match codec {
        Codec::H264 => 1,
        Codec::Hevc => 2,
        Codec::Av1 => 3,
        Codec::Vp9 => 4,
    }
}

pub(crate) fn codec_from_u8(value: u8) -> Result<Codec, WireError> {
    match value {
        1 => Ok(Codec::H264),
        2 => Ok(Codec::Hevc),
        3 => Ok(Codec::Av1),
        4 => Ok(Codec::Vp9),
        _ => Err(WireError::Value("codec")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ToWorker;
    use crate::fuzz::arbitrary;
    use alloc::vec;

    #[test]
    fn a_job_outside_its_limits_is_not_written() {
        let good = arbitrary::job_example();
        let with = |rendition: RenditionSpec| Job { renditions: vec![rendition], ..good.clone() };
        let cases = [
            ("config", Job { config_bytes: CONFIG_BYTES_MAX as u32 + 1, ..good.clone() }),
            ("no unit", Job { unit_bytes: 0, ..good.clone() }),
            ("unit", Job { unit_bytes: UNIT_BYTES_MAX as u32 + 1, ..good.clone() }),
            ("no rendition", Job { renditions: vec![], ..good.clone() }),
            ("renditions", Job { renditions: vec![RenditionSpec::ORIGINAL; RENDITIONS_MAX + 1], ..good.clone() }),
            ("width", with(RenditionSpec { width: 3001, ..RenditionSpec::ORIGINAL })),
            ("height", with(RenditionSpec { height: 2001, ..RenditionSpec::ORIGINAL })),
            ("quality 0", with(RenditionSpec { quality: 0, ..RenditionSpec::ORIGINAL })),
            ("quality 101", with(RenditionSpec { quality: 101, ..RenditionSpec::ORIGINAL })),
        ];
        assert!(ToWorker::Job(good.clone()).write().is_ok());
        for (name, job) in cases {
            assert!(matches!(ToWorker::Job(job).write(), Err(WireError::Value(_))), "{name}");
        }
    }
}
