//! Fuzz targets as plain functions: hostile bytes in, panic only if one of our own promises is broken.

use alloc::vec::Vec;

use crate::{
    amf0::{self, Value},
    annexb,
    avcc::{self, Avcc, LengthSize},
    flv::{self, AudioCodec, VideoTag},
    h264::{self, FieldReader, Sps},
};

/// What parses can be written and parses to the same again.
pub fn amf0(data: &[u8]) {
    let Ok(values) = amf0::parse_all(data) else { return };
    let mut written = Vec::new();
    values.iter().for_each(|value| amf0::write(&mut written, value));
    let again = amf0::parse_all(&written).expect("what we wrote must parse");
    // NaN is not equal to itself, so compare the bytes of a second writing instead of the values.
    let mut rewritten = Vec::new();
    again.iter().for_each(|value| amf0::write(&mut rewritten, value));
    assert_eq!(written, rewritten);
    for value in &values {
        assert!(depth(value) <= amf0::DEPTH_MAX);
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(properties) | Value::EcmaArray(properties) => {
            1 + properties.iter().map(|(_, value)| depth(value)).max().unwrap_or(0)
        }
        Value::StrictArray(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The header lies within the tag, is decided by its first bytes, and a longer tag has the same one.
pub fn flv_tag(data: &[u8]) {
    let first = &data[..data.len().min(flv::HEADER_BYTES_MAX)];
    let tag = VideoTag::parse(data);
    assert_eq!(tag, VideoTag::parse(first));
    assert!(tag.is_none_or(|tag| tag.header_len <= first.len()));
    assert!(tag.is_some() || data.len() < flv::HEADER_BYTES_MAX);
    assert_eq!(AudioCodec::parse(data), AudioCodec::parse(first));
}

/// An avcC record in front, the parameter sets in it, and the rest of the input as one access unit.
pub fn avcc_sps_pps(data: &[u8]) {
    if let Ok(avcc) = Avcc::parse(data) {
        let mut written = Vec::new();
        avcc.write(&mut written);
        assert_eq!(Avcc::parse(&written).as_ref(), Ok(&avcc));
        for set in &avcc.sps {
            sps(set);
        }
    }
    sps(data);
    for length_size in [LengthSize::One, LengthSize::Two, LengthSize::Four] {
        let units: Vec<_> = avcc::nal_units(data, length_size).map_while(Result::ok).collect();
        let framing_bytes = units.len() * length_size.bytes();
        assert!(units.iter().map(|unit| unit.len()).sum::<usize>() + framing_bytes <= data.len());
        let mut fields = FieldReader::default();
        for unit in &units {
            fields.learn(unit);
            fields.structure(unit);
        }
        h264::is_entry_point(units);
    }
    h264::is_entry_point(annexb::nal_units(data));
}

fn sps(unit: &[u8]) {
    if let Ok(sps) = Sps::parse(unit) {
        assert!((1..=h264::DIMENSION_MAX).contains(&sps.width));
        assert!((1..=h264::DIMENSION_MAX).contains(&sps.height));
        assert!(sps.width <= sps.coded_width && sps.height <= sps.coded_height);
        assert!(sps.sample_aspect_ratio.is_none_or(|(width, height)| width > 0 && height > 0));
    }
}
