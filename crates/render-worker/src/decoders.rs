//! Open decoders, kept for the next unit of the same config.
//!
//! Opening one anew for each unit costs 0.3 to 1.8 ms for H.264. Streams of one encoder's default settings often share a
//! config byte for byte, so a few decoders serve many streams. A decoder is only kept when nothing of the unit can stay
//! in it: pictures are flushed, the config is sent along with each unit, and a unit with parameter sets of its own ends
//! its decoder's use.

use framehook_render_wire::{Codec, Size};

use crate::decode::{DecodeError, Decoder};

/// Decoders kept: beyond a few configs in turn, nothing is gained.
const KEPT_MAX: usize = 8;

/// Largest picture after which a decoder is kept, 1080p in whole macroblocks. A decoder holds on to the memory of a
/// picture or two, here 3 MB each (four times that with 10 bits and 4:4:4); for larger pictures the start matters less.
const KEPT_PIXELS_MAX: u64 = 1920 * 1088;

/// Least recently used first.
#[derive(Debug, Default)]
pub(crate) struct Decoders {
    kept: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    codec: Codec,
    config: Vec<u8>,
    decoder: Decoder,
}

impl Decoders {
    /// A decoder for units of this config, kept or new.
    pub(crate) fn take(&mut self, codec: Codec, config: &[u8]) -> Result<Decoder, DecodeError> {
        match self.kept.iter().position(|kept| kept.codec == codec && kept.config == config) {
            Some(index) => Ok(self.kept.remove(index).decoder),
            None => Decoder::open(codec, config),
        }
    }

    /// Gives back a decoder that has decoded a whole picture of this size.
    pub(crate) fn keep(&mut self, codec: Codec, config: &[u8], decoder: Decoder, size: Size) {
        if u64::from(size.width) * u64::from(size.height) > KEPT_PIXELS_MAX {
            return;
        }
        if self.kept.len() == KEPT_MAX {
            self.kept.remove(0);
        }
        self.kept.push(Kept { codec, config: config.to_vec(), decoder });
    }
}
