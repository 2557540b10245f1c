//! What the fuzzer calls, and what the property tests draw from.

use crate::{FromWorker, ToWorker};

/// Any bytes are refused, or parse to a value that is written as the same bytes and so has one encoding only.
///
/// # Panics
/// When that does not hold.
pub fn messages(bytes: &[u8]) {
    if let Ok(message) = ToWorker::parse(bytes) {
        assert_eq!(message.write().as_deref(), Ok(bytes), "a parsed message is written as it came");
    }
    if let Ok(message) = FromWorker::parse(bytes) {
        assert_eq!(message.write().as_deref(), Ok(bytes), "a parsed message is written as it came");
    }
}

#[cfg(test)]
pub(crate) mod arbitrary {
    use crate::*;
    use alloc::string::String;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    pub(crate) fn job_example() -> Job {
        Job {
            id: 7,
            codec: Codec::H264,
            config_bytes: 40,
            unit_bytes: 150_000,
            renditions: vec![RenditionSpec::ORIGINAL],
        }
    }

    pub(crate) fn outcome_example() -> Outcome {
        let size = Size::new(1280, 720);
        Outcome {
            job_id: 7,
            result: Ok(Rendered {
                facts: PictureFacts {
                    size,
                    sample_aspect: SampleAspect::SQUARE,
                    orientation: Orientation::UPRIGHT,
                    matrix: ColourMatrix::Bt709,
                    matrix_tagged: true,
                    range: ColourRange::Limited,
                    chroma: Chroma::C420,
                    bit_depth: 8,
                    interlaced: false,
                },
                judgement: Judgement { luma_mean: 101.5, luma_deviation: 33.25, black: false },
                timings: Timings { decode_us: 14_000, scale_us: 300, encode_us: 1_700 },
                images: vec![ImageAt { offset: 0, bytes: 154_321, size }],
            }),
        }
    }

    fn codec() -> impl Strategy<Value = Codec> {
        select(vec![Codec::H264, Codec::Hevc, Codec::Av1, Codec::Vp9])
    }

    fn rendition() -> impl Strategy<Value = RenditionSpec> {
        (0..=TEMPLATE_WIDTH_MAX, 0..=TEMPLATE_HEIGHT_MAX, select(ImageFormat::ALL.to_vec()), 1u8..=100)
            .prop_map(|(width, height, format, quality)| RenditionSpec { width, height, format, quality })
    }

    pub(crate) fn job() -> impl Strategy<Value = Job> {
        (
            any::<u64>(),
            codec(),
            0..=CONFIG_BYTES_MAX as u32,
            1..=UNIT_BYTES_MAX as u32,
            proptest::collection::vec(rendition(), 1..=RENDITIONS_MAX),
        )
            .prop_map(|(id, codec, config_bytes, unit_bytes, renditions)| Job {
                id,
                codec,
                config_bytes,
                unit_bytes,
                renditions,
            })
    }

    fn text() -> impl Strategy<Value = String> {
        "[ -~]{0,200}"
    }

    pub(crate) fn hello() -> impl Strategy<Value = Hello> {
        (any::<u32>(), proptest::collection::vec(codec(), 0..4), text(), any::<[bool; 7]>(), any::<(u8, u32, u64)>())
            .prop_map(|(pid, decoders, library, flags, (abi, uid, memory_bytes_max))| Hello {
                pid,
                decoders,
                library,
                jail: JailReport {
                    disabled: flags[0],
                    no_new_privs: flags[1],
                    seccomp: flags[2],
                    landlock: if abi == 0 { Landlock::Absent } else { Landlock::Enforced { abi } },
                    uid,
                    memory_bytes_max,
                    socket_refused: flags[3],
                    open_refused: flags[4],
                    exec_refused: flags[5],
                    executable_memory_refused: flags[6],
                },
            })
    }

    fn facts() -> impl Strategy<Value = PictureFacts> {
        (
            (1u32..=8192, 1u32..=4352),
            (1u32.., 1u32..),
            (any::<bool>(), 0u8..4),
            select(vec![ColourMatrix::Bt601, ColourMatrix::Bt709, ColourMatrix::Bt2020]),
            select(vec![ColourRange::Limited, ColourRange::Full]),
            select(vec![Chroma::C420, Chroma::C422, Chroma::C444]),
            8u8..=16,
            any::<(bool, bool)>(),
        )
            .prop_map(|(size, aspect, turn, matrix, range, chroma, bit_depth, (matrix_tagged, interlaced))| {
                PictureFacts {
                    size: Size::new(size.0, size.1),
                    sample_aspect: SampleAspect::new(aspect.0, aspect.1).expect("above zero"),
                    orientation: Orientation::new(turn.0, turn.1).expect("below 4"),
                    matrix,
                    matrix_tagged,
                    range,
                    chroma,
                    bit_depth,
                    interlaced,
                }
            })
    }

    /// Shares of the room, so that as many as there may be fit together.
    fn image() -> impl Strategy<Value = ImageAt> {
        let share = (IMAGES_BYTES_MAX / RENDITIONS_MAX) as u32;
        let side = 1u32..=IMAGE_SIDE_MAX;
        (0..=IMAGES_BYTES_MAX as u32 - share, 1..=share, side.clone(), side)
            .prop_map(|(offset, bytes, width, height)| ImageAt { offset, bytes, size: Size::new(width, height) })
    }

    fn rendered() -> impl Strategy<Value = Rendered> {
        let images: BoxedStrategy<Vec<ImageAt>> = proptest::collection::vec(image(), 1..=RENDITIONS_MAX).boxed();
        (facts(), (0f32..=255.0, 0f32..=128.0, any::<bool>()), any::<[u32; 3]>(), images).prop_map(
            |(facts, (luma_mean, luma_deviation, black), [decode_us, scale_us, encode_us], images)| Rendered {
                facts,
                judgement: Judgement { luma_mean, luma_deviation, black },
                timings: Timings { decode_us, scale_us, encode_us },
                images,
            },
        )
    }

    pub(crate) fn outcome() -> impl Strategy<Value = Outcome> {
        let failed =
            (select(FailureReason::ALL.to_vec()), text()).prop_map(|(reason, detail)| Failure { reason, detail });
        let result = prop_oneof![rendered().prop_map(Ok), failed.prop_map(Err)];
        (any::<u64>(), result).prop_map(|(job_id, result)| Outcome { job_id, result })
    }
}
