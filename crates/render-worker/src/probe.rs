//! A tiny entry point for each codec, to see the whole path work on this machine, with this build, behind this lock.

use framehook_render_wire::{Codec, ImageFormat, RenditionSpec, Size};

use crate::decode;
use crate::render::Renderer;

/// A decoder config and one entry point under it.
struct Probe {
    codec: Codec,
    config: &'static [u8],
    unit: &'static [u8],
    size: Size,
}

/// From `ffmpeg -f lavfi -i testsrc2=s=64x48 -frames:v 1 -c:v libx264` and the FLV that it makes, less the SEI.
const PROBES: &[Probe] = &[Probe {
    codec: Codec::H264,
    config: include_bytes!("probe/h264.avcc"),
    unit: include_bytes!("probe/h264.unit"),
    size: Size { width: 64, height: 48 },
}];

/// More than the images of a probe have in all formats together.
const IMAGES_BYTES: usize = 64 << 10;

/// The codecs of this build that turn their probe into an image of the right size, in every format.
pub(crate) fn working_decoders(renderer: &mut Renderer) -> Vec<Codec> {
    let renditions = ImageFormat::ALL.map(|format| RenditionSpec { format, ..RenditionSpec::ORIGINAL });
    let mut room = vec![0; IMAGES_BYTES];
    let mut works = |codec: &Codec| {
        PROBES.iter().filter(|probe| probe.codec == *codec).any(|probe| {
            renderer
                .render(probe.codec, probe.config, probe.unit, &renditions, &mut room)
                .is_ok_and(|rendered| rendered.images.iter().all(|image| image.size == probe.size))
        })
    };
    decode::codecs().into_iter().filter(|codec| works(codec)).collect()
}
