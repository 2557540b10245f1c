//! One job, from unit to images: decode, judge, then for each rendition scale, convert, turn and encode.

use framehook_render_wire::sizing::{display_size, output_size};
use framehook_render_wire::{
    Chroma, Codec, Failure, FailureReason, IMAGE_SIDE_MAX, ImageAt, Orientation, PICTURE_PIXELS_MAX, PictureFacts,
    Rendered, RenditionSpec, Size, Timings,
};

use crate::colour::{Encoding, to_bt601};
use crate::decode::{Background, DecodeError, Decoder};
use crate::decoders::Decoders;
use crate::encode::{EncodeError, Encoder, Intake};
use crate::fingerprint::fingerprint;
use crate::judge::judge;
use crate::orientation::turn;
use crate::picture::{AnyPlanes, OutOfMemory, OwnedPlane, Picture, Plane, Planes, Sample, Transfer};
use crate::scale::Scaler;
use crate::stopwatch::Stopwatch;
use crate::unit::{Inspection, UnitError, inspect};

/// Keeps open decoders, tables and buffers from one job to the next, and nothing of any picture.
pub(crate) struct Renderer {
    decoders: Decoders,
    scaler: Scaler,
    encoder: Encoder,
}

impl Renderer {
    pub(crate) fn new() -> Result<Self, EncodeError> {
        Ok(Self { decoders: Decoders::default(), scaler: Scaler::default(), encoder: Encoder::new()? })
    }

    /// Renders every rendition from one decode, and writes the images one after the other to where there is room for them.
    pub(crate) fn render(
        &mut self,
        codec: Codec,
        config: &[u8],
        unit: &[u8],
        renditions: &[RenditionSpec],
        room: &mut [u8],
    ) -> Result<Rendered, Failure> {
        let started = Stopwatch::start();
        let inspection = inspect(codec, config, unit)?;
        let mut decoder = self.decoders.take(codec, config)?;
        let picture = decode(&mut decoder, unit, inspection)?;
        let facts = facts(&picture)?;
        let mut timings = Timings { decode_us: started.elapsed_us(), ..Timings::default() };

        let encoding = Encoding { matrix: facts.matrix, range: facts.range, bit_depth: facts.bit_depth };
        let (judgement, images) = match picture.planes {
            AnyPlanes::Narrow(planes) => {
                (judge(planes.luma, encoding), self.images(planes, encoding, &facts, renditions, room, &mut timings)?)
            }
            AnyPlanes::Wide(planes) => {
                (judge(planes.luma, encoding), self.images(planes, encoding, &facts, renditions, room, &mut timings)?)
            }
        };
        if !inspection.brings_parameter_sets {
            self.decoders.keep(codec, config, decoder, facts.size);
        }
        Ok(Rendered { facts, judgement, timings, images })
    }

    fn images<T: Sample>(
        &mut self,
        planes: Planes<'_, T>,
        encoding: Encoding,
        facts: &PictureFacts,
        renditions: &[RenditionSpec],
        room: &mut [u8],
        timings: &mut Timings,
    ) -> Result<Vec<ImageAt>, Failure> {
        let mut filled = 0;
        let next = |rendition| {
            let (size, bytes) = self.image(planes, encoding, facts, rendition, &mut room[filled..], timings)?;
            let image = ImageAt { offset: filled as u32, bytes: bytes as u32, size };
            filled += bytes;
            Ok(image)
        };
        renditions.iter().map(next).collect()
    }

    /// Puts one image at the beginning of the room, and tells its size and how many bytes it has.
    fn image<T: Sample>(
        &mut self,
        planes: Planes<'_, T>,
        encoding: Encoding,
        facts: &PictureFacts,
        rendition: &RenditionSpec,
        room: &mut [u8],
        timings: &mut Timings,
    ) -> Result<(Size, usize), Failure> {
        let displayed = display_size(facts.size, facts.sample_aspect, facts.orientation);
        let size = output_size(displayed, rendition.template());
        check_image_size(size)?;
        // Turned last, when the picture is small and one byte a sample.
        let unturned = if facts.orientation.swaps_sides() { size.swapped() } else { size };

        let started = Stopwatch::start();
        let scaled = self.scaler.scale(planes, facts.chroma, unturned)?;
        let intake = Intake::of(rendition.format);
        let converted = to_bt601(scaled.as_planes(), encoding, intake.range)?;
        let to = if intake.halves_chroma { Chroma::C420 } else { Chroma::C444 };
        let cb = self.scaler.change_chroma(converted.cb.as_plane(), facts.chroma, to, unturned)?;
        let cr = self.scaler.change_chroma(converted.cr.as_plane(), facts.chroma, to, unturned)?;
        let planes = [converted.luma.as_plane(), cb.as_plane(), cr.as_plane()];
        let turned = turn_upright(planes, facts.orientation)?;
        let planes = turned.as_ref().map_or(planes, |turned| turned.each_ref().map(OwnedPlane::as_plane));
        timings.scale_us = timings.scale_us.saturating_add(started.elapsed_us());

        let started = Stopwatch::start();
        let bytes = self.encoder.encode(rendition.format, planes, rendition.quality, room)?;
        timings.encode_us = timings.encode_us.saturating_add(started.elapsed_us());
        Ok((size, bytes))
    }
}

/// Decodes a unit; field pairs twice, over different backgrounds. For a frame libavcodec knows which macroblocks no slice
/// covered, but for fields it does not look, and what is missing would show whatever the memory held before.
fn decode<'a>(decoder: &'a mut Decoder, unit: &[u8], inspection: Inspection) -> Result<Picture<'a>, DecodeError> {
    if !inspection.is_field_pair {
        return decoder.decode(unit, Background::Any);
    }
    let over_zeros = fingerprint(&decoder.decode(unit, Background::Filled(0))?.planes);
    let picture = decoder.decode(unit, Background::Filled(255))?;
    if fingerprint(&picture.planes) != over_zeros {
        return Err(DecodeError::Corrupt);
    }
    Ok(picture)
}

/// The planes as they are to be seen; `None` when they are so already.
fn turn_upright(
    planes: [Plane<'_, u8>; 3],
    orientation: Orientation,
) -> Result<Option<[OwnedPlane<u8>; 3]>, OutOfMemory> {
    if orientation == Orientation::UPRIGHT {
        return Ok(None);
    }
    let [luma, cb, cr] = planes.map(|plane| turn(plane, orientation));
    Ok(Some([luma?, cb?, cr?]))
}

fn facts(picture: &Picture<'_>) -> Result<PictureFacts, Failure> {
    match picture.transfer {
        Transfer::Sdr => {}
        Transfer::Pq => return Err(failure(FailureReason::HdrUnsupported, "the transfer function is PQ")),
        Transfer::Hlg => return Err(failure(FailureReason::HdrUnsupported, "the transfer function is HLG")),
    }
    picture
        .facts()
        .map_err(|code| failure(FailureReason::Unsupported, format_args!("matrix coefficients {code} are not known")))
}

fn check_image_size(size: Size) -> Result<(), Failure> {
    let pixels = u64::from(size.width) * u64::from(size.height);
    let side = size.width.max(size.height);
    if side > IMAGE_SIDE_MAX || pixels > u64::from(PICTURE_PIXELS_MAX) {
        let detail = format_args!("the image would have {}x{} pixels", size.width, size.height);
        return Err(failure(FailureReason::TooLarge, detail));
    }
    Ok(())
}

fn failure(reason: FailureReason, detail: impl ToString) -> Failure {
    Failure { reason, detail: detail.to_string() }
}

impl From<OutOfMemory> for Failure {
    fn from(error: OutOfMemory) -> Self {
        failure(FailureReason::OutOfMemory, error)
    }
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::OutOfMemory(error) => error.into(),
            EncodeError::TooLarge { .. } | EncodeError::NoRoom { .. } => failure(FailureReason::TooLarge, error),
            EncodeError::Jpeg(_) | EncodeError::Png(_) | EncodeError::Webp(_) | EncodeError::Avif(_) => {
                failure(FailureReason::Internal, error)
            }
        }
    }
}

impl From<UnitError> for Failure {
    fn from(error: UnitError) -> Self {
        let reason = match error {
            UnitError::TooLarge => FailureReason::TooLarge,
            UnitError::Config | UnitError::Framing | UnitError::MissingField => FailureReason::Corrupt,
        };
        failure(reason, error)
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        let reason = match error {
            DecodeError::Corrupt => FailureReason::Corrupt,
            DecodeError::NoPicture => FailureReason::NoPicture,
            DecodeError::OutOfMemory => FailureReason::OutOfMemory,
            DecodeError::UnsupportedCodec(_) | DecodeError::UnsupportedFormat => FailureReason::Unsupported,
            DecodeError::Internal(_) => FailureReason::Internal,
        };
        failure(reason, error)
    }
}
