//! What a unit says of itself before it is decoded: the few things that the decoder would settle in silence.

use std::collections::BTreeSet;

use framehook_media::avcc::{self, Avcc};
use framehook_media::h264::{FieldReader, NalType, PictureStructure, SpsError};
use framehook_render_wire::{Codec, PICTURE_PIXELS_MAX};

/// What must be known of a unit to decode it well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inspection {
    /// The unit carries parameter sets that its config does not: whoever decodes it must not go on to another stream.
    pub(crate) brings_parameter_sets: bool,
    /// The picture is coded as two fields, of which libavcodec does not notice missing parts.
    pub(crate) is_field_pair: bool,
}

/// Why a unit is not worth decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnitError {
    #[error("the decoder config is malformed")]
    Config,
    #[error("the access unit's framing is broken")]
    Framing,
    /// libavcodec would fill in the other by copying.
    #[error("one of two fields is missing")]
    MissingField,
    #[error("the picture is larger than allowed")]
    TooLarge,
}

/// Looks at a unit and its config.
pub(crate) fn inspect(codec: Codec, config: &[u8], unit: &[u8]) -> Result<Inspection, UnitError> {
    match codec {
        Codec::H264 => inspect_h264(config, unit),
        // Without a look, the careful answer: a decoder of its own for each unit.
        Codec::Hevc | Codec::Av1 | Codec::Vp9 => Ok(Inspection { brings_parameter_sets: true, is_field_pair: false }),
    }
}

fn inspect_h264(config: &[u8], unit: &[u8]) -> Result<Inspection, UnitError> {
    let avcc = Avcc::parse(config).map_err(|_| UnitError::Config)?;
    let mut reader = FieldReader::default();
    for set in avcc.sps.iter().chain(&avcc.pps) {
        check_size(set)?;
        reader.learn(set);
    }
    let mut structures = BTreeSet::new();
    let mut brings_parameter_sets = false;
    for nal_unit in avcc::nal_units(unit, avcc.length_size) {
        let nal_unit = nal_unit.map_err(|_| UnitError::Framing)?;
        match NalType::of(nal_unit[0]) {
            NalType::Sps | NalType::Pps => {
                check_size(nal_unit)?;
                reader.learn(nal_unit);
                brings_parameter_sets |= !avcc.sps.contains(&nal_unit) && !avcc.pps.contains(&nal_unit);
            }
            NalType::Slice | NalType::IdrSlice => structures.extend(reader.structure(nal_unit)),
            _ => {}
        }
    }
    let is_field_pair =
        match (structures.contains(&PictureStructure::TopField), structures.contains(&PictureStructure::BottomField)) {
            (false, false) => false,
            (true, true) => true,
            _ => return Err(UnitError::MissingField),
        };
    Ok(Inspection { brings_parameter_sets, is_field_pair })
}

/// Refuses what the decoder must not even allocate, by the reason that it would not give. Other faults are the decoder's
/// to find.
fn check_size(parameter_set: &[u8]) -> Result<(), UnitError> {
    match framehook_media::h264::Sps::parse(parameter_set) {
        Ok(sps) if u64::from(sps.coded_width) * u64::from(sps.coded_height) > u64::from(PICTURE_PIXELS_MAX) => {
            Err(UnitError::TooLarge)
        }
        Err(SpsError::OutOfRange { field: "width in macroblocks" | "height in macroblocks" | "height", .. }) => {
            Err(UnitError::TooLarge)
        }
        _ => Ok(()),
    }
}
