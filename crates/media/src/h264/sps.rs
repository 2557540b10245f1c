//! The sequence parameter set (7.3.2.1.1) and its video usability information (annex E).

use super::{
    NalType,
    bits::{BitReader, OutOfBits},
};

/// Largest width or height in pixels. Level 6.2 allows 16,880 in one direction with little in the other; nobody streams
/// beyond 8K, and the frame store of a decoder grows with the product.
pub const DIMENSION_MAX: u32 = 16_384;

/// What the SPS says about every picture that refers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sps {
    /// What picture parameter sets name it by, 0 to 31.
    pub id: u8,
    pub profile_idc: u8,
    /// `constraint_set0_flag` in bit 7 and so on.
    pub constraint_flags: u8,
    /// Ten times the level.
    pub level_idc: u8,
    pub chroma_format: ChromaFormat,
    /// The three planes of a 4:4:4 picture are coded one by one.
    pub separate_planes: bool,
    /// 8 to 14.
    pub bit_depth_luma: u8,
    pub bit_depth_chroma: u8,
    /// Whole macroblocks, before cropping, in pixels.
    pub coded_width: u32,
    pub coded_height: u32,
    /// After cropping, in pixels: the picture people see, before its sample aspect ratio. 1 to [`DIMENSION_MAX`].
    pub width: u32,
    pub height: u32,
    /// Bits of `frame_num` in a slice header, 4 to 16.
    pub frame_num_bits: u32,
    /// False if pictures may be fields (interlaced).
    pub frame_mbs_only: bool,
    /// Width to height of one pixel, both above zero. `None` if it is not said or says "unspecified".
    pub sample_aspect_ratio: Option<(u16, u16)>,
    pub colour: Colour,
    pub timing: Option<Timing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChromaFormat {
    Monochrome,
    Yuv420,
    Yuv422,
    Yuv444,
}

/// Code points of ITU-T H.273, as they stand in the bitstream. 2 is "unspecified", also when nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    pub full_range: bool,
    pub primaries: u8,
    pub transfer: u8,
    pub matrix: u8,
}

/// `num_units_in_tick` and `time_scale` (E.2.1). Two ticks make a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub units_per_tick: u32,
    pub units_per_sec: u32,
    pub fixed_frame_rate: bool,
}

/// Why a NAL unit is not an SPS that we would decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpsError {
    #[error("NAL unit is not an SPS")]
    NotSps,
    #[error("SPS is cut off")]
    Truncated,
    #[error("SPS has {field} {value}, which is out of range")]
    OutOfRange { field: &'static str, value: u64 },
}

impl From<OutOfBits> for SpsError {
    fn from(_: OutOfBits) -> Self {
        Self::Truncated
    }
}

impl Sps {
    /// Parses a NAL unit, header byte included, up to the timing information of its VUI.
    ///
    /// # Errors
    /// Any [`SpsError`]; in particular for pictures beyond [`DIMENSION_MAX`] or cropped to nothing.
    pub fn parse(unit: &[u8]) -> Result<Self, SpsError> {
        let Some((&header, payload)) = unit.split_first() else { return Err(SpsError::NotSps) };
        if NalType::of(header) != NalType::Sps {
            return Err(SpsError::NotSps);
        }
        let bits = &mut BitReader::new(payload);
        let profile_idc = bits.bits(8)? as u8;
        let constraint_flags = bits.bits(8)? as u8;
        let level_idc = bits.bits(8)? as u8;
        let id = ue_up_to(bits, "seq_parameter_set_id", 31)? as u8;
        let samples = Samples::parse(bits, profile_idc)?;
        let frame_num_bits = 4 + ue_up_to(bits, "log2_max_frame_num_minus4", 12)?;
        skip_picture_order_count(bits)?;
        bits.ue()?; // max_num_ref_frames
        bits.flag()?; // gaps_in_frame_num_value_allowed_flag

        let coded_width = macroblocks(bits, "width in macroblocks")? * 16;
        let height_units = macroblocks(bits, "height in macroblocks")?;
        let frame_mbs_only = bits.flag()?;
        let fields = if frame_mbs_only { 1 } else { 2 };
        let coded_height = height_units * 16 * fields;
        if coded_height > DIMENSION_MAX {
            return Err(SpsError::OutOfRange { field: "height", value: coded_height.into() });
        }
        if !frame_mbs_only {
            bits.flag()?; // mb_adaptive_frame_field_flag
        }
        bits.flag()?; // direct_8x8_inference_flag
        let (crop_width, crop_height) = if bits.flag()? {
            let (unit_width, unit_height) = samples.crop_unit(fields);
            let [left, right, top, bottom] = [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?].map(u64::from);
            ((left + right) * unit_width, (top + bottom) * unit_height)
        } else {
            (0, 0)
        };
        let width = cropped("crop width", coded_width, crop_width)?;
        let height = cropped("crop height", coded_height, crop_height)?;
        let vui = if bits.flag()? { Vui::parse(bits)? } else { Vui::default() };

        Ok(Self {
            id,
            profile_idc,
            constraint_flags,
            level_idc,
            chroma_format: samples.chroma_format,
            separate_planes: samples.separate_planes,
            bit_depth_luma: samples.bit_depth_luma,
            bit_depth_chroma: samples.bit_depth_chroma,
            coded_width,
            coded_height,
            width,
            height,
            frame_num_bits,
            frame_mbs_only,
            sample_aspect_ratio: vui.sample_aspect_ratio,
            colour: vui.colour,
            timing: vui.timing,
        })
    }
}

/// The part that only High and later profiles write.
struct Samples {
    chroma_format: ChromaFormat,
    separate_planes: bool,
    bit_depth_luma: u8,
    bit_depth_chroma: u8,
}

impl Samples {
    fn parse(bits: &mut BitReader<'_>, profile_idc: u8) -> Result<Self, SpsError> {
        if !matches!(profile_idc, 44 | 83 | 86 | 100 | 110 | 118 | 122 | 128 | 134 | 135 | 138 | 139 | 244) {
            let (bit_depth_luma, bit_depth_chroma) = (8, 8);
            let chroma_format = ChromaFormat::Yuv420;
            return Ok(Self { chroma_format, separate_planes: false, bit_depth_luma, bit_depth_chroma });
        }
        let chroma_format = match ue_up_to(bits, "chroma_format_idc", 3)? {
            0 => ChromaFormat::Monochrome,
            1 => ChromaFormat::Yuv420,
            2 => ChromaFormat::Yuv422,
            _ => ChromaFormat::Yuv444,
        };
        let separate_planes = chroma_format == ChromaFormat::Yuv444 && bits.flag()?;
        let bit_depth_luma = 8 + ue_up_to(bits, "bit_depth_luma_minus8", 6)? as u8;
        let bit_depth_chroma = 8 + ue_up_to(bits, "bit_depth_chroma_minus8", 6)? as u8;
        bits.flag()?; // qpprime_y_zero_transform_bypass_flag
        if bits.flag()? {
            skip_scaling_matrix(bits, chroma_format)?;
        }
        Ok(Self { chroma_format, separate_planes, bit_depth_luma, bit_depth_chroma })
    }

    /// `CropUnitX` and `CropUnitY` (7-19 to 7-22).
    fn crop_unit(&self, fields: u32) -> (u64, u64) {
        let (width, height) = match self.chroma_format {
            _ if self.separate_planes => (1, 1),
            ChromaFormat::Monochrome | ChromaFormat::Yuv444 => (1, 1),
            ChromaFormat::Yuv422 => (2, 1),
            ChromaFormat::Yuv420 => (2, 2),
        };
        (width, height * u64::from(fields))
    }
}

struct Vui {
    sample_aspect_ratio: Option<(u16, u16)>,
    colour: Colour,
    timing: Option<Timing>,
}

impl Default for Vui {
    fn default() -> Self {
        let colour = Colour { full_range: false, primaries: 2, transfer: 2, matrix: 2 };
        Self { sample_aspect_ratio: None, colour, timing: None }
    }
}

impl Vui {
    /// Stops behind the timing information: what follows (HRD, reordering) concerns decoders only.
    fn parse(bits: &mut BitReader<'_>) -> Result<Self, SpsError> {
        let mut vui = Self::default();
        if bits.flag()? {
            vui.sample_aspect_ratio = sample_aspect_ratio(bits)?;
        }
        if bits.flag()? {
            bits.flag()?; // overscan_appropriate_flag
        }
        if bits.flag()? {
            bits.bits(3)?; // video_format
            vui.colour.full_range = bits.flag()?;
            if bits.flag()? {
                vui.colour.primaries = bits.bits(8)? as u8;
                vui.colour.transfer = bits.bits(8)? as u8;
                vui.colour.matrix = bits.bits(8)? as u8;
            }
        }
        if bits.flag()? {
            bits.ue()?; // chroma_sample_loc_type_top_field
            bits.ue()?; // chroma_sample_loc_type_bottom_field
        }
        if bits.flag()? {
            let (units_per_tick, units_per_sec) = (bits.bits(32)?, bits.bits(32)?);
            let fixed_frame_rate = bits.flag()?;
            // Zeros mean nothing and are seen in the wild.
            if units_per_tick > 0 && units_per_sec > 0 {
                vui.timing = Some(Timing { units_per_tick, units_per_sec, fixed_frame_rate });
            }
        }
        Ok(vui)
    }
}

/// Table E-1.
fn sample_aspect_ratio(bits: &mut BitReader<'_>) -> Result<Option<(u16, u16)>, SpsError> {
    const EXTENDED: u32 = 255;
    const TABLE: [(u16, u16); 16] = [
        (1, 1),
        (12, 11),
        (10, 11),
        (16, 11),
        (40, 33),
        (24, 11),
        (20, 11),
        (32, 11),
        (80, 33),
        (18, 11),
        (15, 11),
        (64, 33),
        (160, 99),
        (4, 3),
        (3, 2),
        (2, 1),
    ];
    let ratio = match bits.bits(8)? {
        EXTENDED => Some((bits.bits(16)? as u16, bits.bits(16)? as u16)),
        0 => None,
        indicator => TABLE.get(indicator as usize - 1).copied(),
    };
    Ok(ratio.filter(|&(width, height)| width > 0 && height > 0))
}

fn ue_up_to(bits: &mut BitReader<'_>, field: &'static str, max: u32) -> Result<u32, SpsError> {
    let value = bits.ue()?;
    if value > max { Err(SpsError::OutOfRange { field, value: value.into() }) } else { Ok(value) }
}

/// A count of macroblocks that makes at most [`DIMENSION_MAX`] pixels.
fn macroblocks(bits: &mut BitReader<'_>, field: &'static str) -> Result<u32, SpsError> {
    Ok(ue_up_to(bits, field, DIMENSION_MAX / 16 - 1)? + 1)
}

fn cropped(field: &'static str, coded: u32, crop: u64) -> Result<u32, SpsError> {
    match u32::try_from(crop) {
        Ok(crop) if crop < coded => Ok(coded - crop),
        _ => Err(SpsError::OutOfRange { field, value: crop }),
    }
}

fn skip_scaling_matrix(bits: &mut BitReader<'_>, chroma_format: ChromaFormat) -> Result<(), SpsError> {
    let lists = if chroma_format == ChromaFormat::Yuv444 { 12 } else { 8 };
    for list in 0..lists {
        if !bits.flag()? {
            continue;
        }
        let entries = if list < 6 { 16 } else { 64 };
        let (mut last, mut next) = (8, 8);
        for _ in 0..entries {
            if next != 0 {
                let delta = bits.se()?;
                if !(-128..=127).contains(&delta) {
                    return Err(SpsError::OutOfRange { field: "delta_scale", value: delta.unsigned_abs().into() });
                }
                next = (last + delta + 256) % 256;
            }
            last = if next == 0 { last } else { next };
        }
    }
    Ok(())
}

fn skip_picture_order_count(bits: &mut BitReader<'_>) -> Result<(), SpsError> {
    match ue_up_to(bits, "pic_order_cnt_type", 2)? {
        0 => {
            ue_up_to(bits, "log2_max_pic_order_cnt_lsb_minus4", 12)?;
        }
        1 => {
            bits.flag()?; // delta_pic_order_always_zero_flag
            bits.se()?; // offset_for_non_ref_pic
            bits.se()?; // offset_for_top_to_bottom_field
            for _ in 0..ue_up_to(bits, "num_ref_frames_in_pic_order_cnt_cycle", 255)? {
                bits.se()?; // offset_for_ref_frame
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloc::{string::String, vec, vec::Vec};

    use super::*;

    const UNSPECIFIED: Colour = Colour { full_range: false, primaries: 2, transfer: 2, matrix: 2 };

    struct Case {
        name: &'static str,
        unit: &'static [u8],
        size: (u32, u32),
        coded: (u32, u32),
        chroma: (ChromaFormat, u8),
        ratio: Option<(u16, u16)>,
        colour: Colour,
    }

    /// Written by libx264 r3095 through ffmpeg 5.1 at 25 frames per second, from synthetic sources.
    fn written_by_x264() -> Vec<Case> {
        use ChromaFormat::*;
        let bt709 = Colour { full_range: true, primaries: 1, transfer: 1, matrix: 1 };
        let bt601 = Colour { full_range: false, primaries: 5, transfer: 5, matrix: 5 };
        let pq = Colour { full_range: false, primaries: 9, transfer: 16, matrix: 9 };
        vec![
            Case {
                name: "baseline 720p",
                unit: b"\x67\x42\xc0\x1f\xd9\x00\x50\x05\xbb\x01\x10\x00\x00\x03\x00\x10\x00\x00\x03\x03\x20\xf1\x83\x24\x80",
                size: (1280, 720),
                coded: (1280, 720),
                chroma: (Yuv420, 8),
                ratio: Some((1, 1)),
                colour: UNSPECIFIED,
            },
            Case {
                name: "1080p is cropped; BT.709 in full range",
                unit: b"\x67\x64\x00\x28\xac\xd9\x40\x78\x02\x27\xe5\xc0\x5b\x80\x80\x80\xa0\x00\x00\x03\x00\x20\x00\x00\x06\x41\xe3\x06\x32\xc0",
                size: (1920, 1080),
                coded: (1920, 1088),
                chroma: (Yuv420, 8),
                ratio: Some((1, 1)),
                colour: bt709,
            },
            Case {
                name: "interlaced PAL, wide pixels by table",
                unit: b"\x67\x64\x00\x1e\xac\xd9\x40\xb4\x24\xd8\x23\x50\x50\x50\x54\x00\x00\x03\x00\x04\x00\x00\x03\x00\xc8\x7c\x50\xa6\x58",
                size: (720, 576),
                coded: (720, 576),
                chroma: (Yuv420, 8),
                ratio: Some((16, 11)),
                colour: bt601,
            },
            Case {
                name: "4:2:2 with 10 bits",
                unit: b"\x67\x7a\x00\x1f\xb6\xcd\x94\x05\x00\x5b\xb0\x11\x00\x00\x03\x00\x01\x00\x00\x03\x00\x32\x0f\x18\x31\x96",
                size: (1280, 720),
                coded: (1280, 720),
                chroma: (Yuv422, 10),
                ratio: Some((1, 1)),
                colour: UNSPECIFIED,
            },
            Case {
                name: "4:4:4 can be cropped to odd sizes",
                unit: b"\x67\xf4\x00\x0d\x91\x9b\x28\x2a\x33\xc2\x11\x98\x08\x80\x00\x00\x03\x00\x80\x00\x00\x19\x07\x8a\x14\xcb",
                size: (321, 181),
                coded: (336, 192),
                chroma: (Yuv444, 8),
                ratio: Some((1, 1)),
                colour: UNSPECIFIED,
            },
            Case {
                name: "monochrome",
                unit: b"\x67\x64\x00\x0c\xf3\x65\x05\x06\x7e\x37\x01\x6c\x80\x00\x00\x03\x00\x80\x00\x00\x19\x07\x8a\x14\xcb",
                size: (320, 180),
                coded: (320, 192),
                chroma: (Monochrome, 8),
                ratio: Some((1, 1)),
                colour: Colour { full_range: true, ..UNSPECIFIED },
            },
            Case {
                name: "2160p PQ with 10 bits",
                unit: b"\x67\x6e\x00\x33\xa6\xcb\x40\x1e\x00\x21\xf6\x02\xd4\x24\x40\x25\x00\x00\x03\x00\x01\x00\x00\x03\x00\x32\x0f\x18\x32\xa0",
                size: (3840, 2160),
                coded: (3840, 2160),
                chroma: (Yuv420, 10),
                ratio: Some((1, 1)),
                colour: pq,
            },
        ]
    }

    #[test]
    fn reads_what_x264_writes() {
        for case in written_by_x264() {
            let sps = Sps::parse(case.unit).unwrap();
            assert_eq!((sps.width, sps.height), case.size, "{}", case.name);
            assert_eq!((sps.coded_width, sps.coded_height), case.coded, "{}", case.name);
            assert_eq!((sps.chroma_format, sps.bit_depth_luma), case.chroma, "{}", case.name);
            assert_eq!(sps.bit_depth_luma, sps.bit_depth_chroma, "{}", case.name);
            assert_eq!(sps.sample_aspect_ratio, case.ratio, "{}", case.name);
            assert_eq!(sps.colour, case.colour, "{}", case.name);
            assert_eq!(sps.frame_mbs_only, !case.name.contains("interlaced"), "{}", case.name);
            let timing = sps.timing.unwrap();
            assert_eq!(timing.units_per_sec, 2 * 25 * timing.units_per_tick, "{}", case.name);
            assert_eq!([sps.profile_idc, sps.constraint_flags, sps.level_idc], case.unit[1..4], "{}", case.name);
        }
    }

    #[test]
    fn cut_off_at_any_byte_is_an_error_until_the_timing_is_there() {
        for case in written_by_x264() {
            let whole = Sps::parse(case.unit).unwrap();
            for end in 0..case.unit.len() {
                match Sps::parse(&case.unit[..end]) {
                    Ok(sps) => assert_eq!(sps, whole, "{} cut at {end}", case.name),
                    Err(error) => assert!(matches!(error, SpsError::Truncated | SpsError::NotSps), "{error}"),
                }
            }
        }
    }

    /// An SPS from its bits, written as text so that each field can be seen. Spaces are for the reader.
    fn from_bits(profile_idc: u8, bits: &str) -> Vec<u8> {
        let mut bits: String = bits.split_whitespace().collect();
        bits.push('1');
        while !bits.len().is_multiple_of(8) {
            bits.push('0');
        }
        let mut unit = vec![0x67, profile_idc, 0, 31];
        unit.extend(bits.as_bytes().chunks(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | (bit - b'0'))));
        unit
    }

    /// Exp-Golomb.
    fn ue(value: u64) -> String {
        let code = std::format!("{:b}", value + 1);
        std::format!("{}{code}", "0".repeat(code.len() - 1))
    }

    /// Baseline: id 0, frame numbers of 4 bits, order count type 2, one reference, no gaps, then size and the rest.
    fn baseline(width_mbs: u64, height_mbs: u64, rest: &str) -> Vec<u8> {
        let size = ue(width_mbs - 1) + &ue(height_mbs - 1);
        from_bits(66, &std::format!("1 1 011 010 0 {size} {rest}"))
    }

    #[test]
    fn bounds_the_size_of_the_picture() {
        let uncropped = "1 1 0 0";
        let largest = Sps::parse(&baseline(1024, 1024, uncropped)).unwrap();
        assert_eq!((largest.width, largest.height), (DIMENSION_MAX, DIMENSION_MAX));
        let out_of_range = |unit: &[u8], field| match Sps::parse(unit) {
            Err(SpsError::OutOfRange { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{field} must be refused, got {other:?}"),
        };
        out_of_range(&baseline(1025, 1, uncropped), "width in macroblocks");
        out_of_range(&baseline(1, 1025, uncropped), "height in macroblocks");
        out_of_range(&baseline(u32::MAX as u64, 1, uncropped), "width in macroblocks");
        // 513 map units of two fields each are 1,026 rows of macroblocks.
        out_of_range(&baseline(1, 513, "0 0 1 0 0"), "height");
        // 4 + 4 units of two pixels are all of the 16.
        let all = std::format!("1 1 1 {} {} 1 1 0", ue(4), ue(4));
        out_of_range(&baseline(1, 1, &all), "crop width");
        let beyond_32_bits = std::format!("1 1 1 1 1 {} {} 0", ue(u32::MAX as u64 - 1), ue(u32::MAX as u64 - 1));
        out_of_range(&baseline(1, 1, &beyond_32_bits), "crop height");
    }

    #[test]
    fn crops_interlaced_pictures_in_pairs_of_lines() {
        // One unit at the top is 2 (chroma) × 2 (fields) lines.
        let sps = Sps::parse(&baseline(2, 1, "0 0 1 1 1 010 010 1 0")).unwrap();
        assert_eq!((sps.width, sps.height, sps.coded_width, sps.coded_height), (30, 28, 32, 32));
    }

    #[test]
    fn passes_over_scaling_lists_and_order_count_cycles() {
        // High: 4:2:0, 8 bits, scaling matrix whose first list is sixteen deltas of 0 and whose seventh ends at once
        // (delta −8 makes the next scale 0); order count type 1 with a cycle of two.
        let first_list = std::format!("1 {}", "1".repeat(16));
        let matrix = std::format!("1 {first_list} 00000 1 {} 0", ue(16));
        let cycle = std::format!("010 0 1 1 {} 1 1", ue(2));
        let bits = std::format!("1 010 1 1 0 {matrix} 1 {cycle} 010 0 {} {} 1 1 0 0", ue(19), ue(11));
        let sps = Sps::parse(&from_bits(100, &bits)).unwrap();
        assert_eq!((sps.width, sps.height), (320, 192));
    }

    #[test]
    fn treats_an_odd_vui_as_unspecified() {
        let with_vui = |vui: &str| Sps::parse(&baseline(2, 2, &std::format!("1 1 0 1 {vui}"))).unwrap();
        let quiet = "0 0 0 0";
        assert_eq!(with_vui(&std::format!("0 {quiet}")).sample_aspect_ratio, None);
        assert_eq!(with_vui(&std::format!("1 00000000 {quiet}")).sample_aspect_ratio, None);
        assert_eq!(with_vui(&std::format!("1 00010001 {quiet}")).sample_aspect_ratio, None, "reserved");
        let extended = std::format!("1 11111111 {:016b} {:016b} {quiet}", 37, 41);
        assert_eq!(with_vui(&extended).sample_aspect_ratio, Some((37, 41)));
        let zero = std::format!("1 11111111 {:016b} {:016b} {quiet}", 37, 0);
        assert_eq!(with_vui(&zero).sample_aspect_ratio, None);
        let range_only = "0 0 1 101 1 0 0 0";
        assert_eq!(with_vui(range_only).colour, Colour { full_range: true, ..UNSPECIFIED });
        let no_time = std::format!("0 0 0 0 1 {:032b} {:032b} 1", 0, 50);
        assert_eq!(with_vui(&no_time).timing, None);
        // Emulation prevention is not written by this test's helper, so keep the zeros short.
        let time = std::format!("0 0 0 0 1 {:032b} {:032b} 1", 0x0101_0101, 0x0202_0202);
        let expected = Timing { units_per_tick: 0x0101_0101, units_per_sec: 0x0202_0202, fixed_frame_rate: true };
        assert_eq!(with_vui(&time).timing, Some(expected));
    }

    #[test]
    fn refuses_values_that_no_sps_may_have() {
        let cases = [
            ("seq_parameter_set_id", from_bits(66, &ue(32))),
            ("log2_max_frame_num_minus4", from_bits(66, &std::format!("1 {}", ue(13)))),
            ("pic_order_cnt_type", from_bits(66, &std::format!("1 1 {}", ue(3)))),
            ("chroma_format_idc", from_bits(100, &std::format!("1 {}", ue(4)))),
            ("bit_depth_luma_minus8", from_bits(100, &std::format!("1 010 {}", ue(7)))),
            ("delta_scale", from_bits(100, &std::format!("1 010 1 1 0 1 1 {}", ue(257)))),
        ];
        for (expected, unit) in cases {
            match Sps::parse(&unit) {
                Err(SpsError::OutOfRange { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
        assert_eq!(Sps::parse(b"\x68\xeb"), Err(SpsError::NotSps));
        assert_eq!(Sps::parse(b""), Err(SpsError::NotSps));
    }
}
