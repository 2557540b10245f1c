//! AVIF from planes: one AV1 key frame by rav1e, in the smallest file around it.

use avif_serialize::Aviffy;
use avif_serialize::constants as tags;
use framehook_render_wire::Size;
use rav1e::prelude::{
    ChromaSamplePosition, ChromaSampling, ColorDescription, ColorPrimaries, Config, Context, EncoderConfig,
    EncoderStatus, MatrixCoefficients, PixelRange, SpeedSettings, TransferCharacteristics,
};

use super::EncodeError;
use crate::picture::Plane;

/// The fastest of rav1e's. The next one costs six times as much for 7 % of the bytes.
const SPEED: u8 = 10;

/// Most pixels. rav1e takes some 40 bytes of memory for each, and the worker's memory is bounded; 2160p fits.
const PIXELS_MAX: u64 = 4096 * 2304;

/// Encodes full-range BT.601 in 4:2:0, and tags it so; primaries and transfer as sRGB, which is what a browser takes the
/// other formats for. The tags stand in the AV1 frame's own header: they are the file's defaults, which need no box.
pub(super) fn encode(planes: [Plane<'_, u8>; 3], quality: u8) -> Result<Vec<u8>, EncodeError> {
    let size = planes[0].size;
    if u64::from(size.width) * u64::from(size.height) > PIXELS_MAX {
        return Err(EncodeError::TooLarge { format: "AVIF", size });
    }
    let frame = key_frame(planes, quality)?;
    let file = Aviffy::new()
        .set_chroma_subsampling((true, true))
        .set_full_color_range(true)
        .set_matrix_coefficients(tags::MatrixCoefficients::Bt601)
        .set_color_primaries(tags::ColorPrimaries::Bt709)
        .set_transfer_characteristics(tags::TransferCharacteristics::Srgb)
        .to_vec(&frame, None, size.width, size.height, 8);
    Ok(file)
}

fn key_frame(planes: [Plane<'_, u8>; 3], quality: u8) -> Result<Vec<u8>, EncodeError> {
    let Size { width, height } = planes[0].size;
    let quantizer = quantizer(quality);
    let encoder = EncoderConfig {
        width: width as usize,
        height: height as usize,
        still_picture: true,
        bit_depth: 8,
        chroma_sampling: ChromaSampling::Cs420,
        chroma_sample_position: ChromaSamplePosition::Unknown,
        pixel_range: PixelRange::Full,
        color_description: Some(ColorDescription {
            color_primaries: ColorPrimaries::BT709,
            transfer_characteristics: TransferCharacteristics::SRGB,
            matrix_coefficients: MatrixCoefficients::BT601,
        }),
        quantizer: quantizer.into(),
        min_quantizer: quantizer,
        speed_settings: SpeedSettings::from_preset(SPEED),
        ..EncoderConfig::default()
    };
    let failed = |error: &dyn std::fmt::Display| EncodeError::Avif(error.to_string());
    let mut context: Context<u8> =
        Config::new().with_encoder_config(encoder).with_threads(1).new_context().map_err(|error| failed(&error))?;
    let mut frame = context.new_frame();
    for (to, from) in frame.planes.iter_mut().zip(planes) {
        to.copy_from_raw_u8(from.samples, from.stride, 1);
    }
    context.send_frame(frame).map_err(|error| failed(&error))?;
    context.flush();
    loop {
        match context.receive_packet() {
            Ok(packet) => return Ok(without_delimiter(packet.data)),
            Err(EncoderStatus::Encoded) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
}

/// A file of one frame has no use for the temporal delimiter before it, and should not have it (AVIF 1.1, 2.1).
fn without_delimiter(mut frame: Vec<u8>) -> Vec<u8> {
    const TEMPORAL_DELIMITER: [u8; 2] = [0x12, 0x00];
    if frame.starts_with(&TEMPORAL_DELIMITER) {
        frame.drain(..TEMPORAL_DELIMITER.len());
    }
    frame
}

/// AV1's quantizer for a quality of 1 to 100, such that equal numbers look much alike in all formats: the line that the
/// encoder `cavif` draws.
fn quantizer(quality: u8) -> u8 {
    let quality = f32::from(quality) / 100.0;
    let coarseness = if quality >= 0.82 {
        (1.0 - quality) * 2.6
    } else if quality > 0.25 {
        1.0 - 0.125 - quality * 0.5
    } else {
        1.0 - quality
    };
    (coarseness * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_better_quality_is_never_coarser() {
        let all: Vec<u8> = (1..=100).map(quantizer).collect();
        assert!(all.windows(2).all(|pair| pair[1] <= pair[0]), "{all:?}");
        assert_eq!((all[0], all[99]), (252, 0));
    }
}
