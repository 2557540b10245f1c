//! Clip in, picture out, compared with what ffmpeg makes of the same frame or with the colours it was drawn in.
#![expect(clippy::disallowed_methods, reason = "a test starts workers and ffmpeg itself")]

mod support;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use framehook_render_wire::{ColourMatrix, ColourRange, Orientation, RenditionSpec, Size};
use framehook_testkit::clip::{Chroma, Clip, ClipSpec, Colour, Content, PATCHES, frame_number};
use framehook_testkit::picture::Picture;
use support::{Worker, first_entry_point, short};

/// Least PSNR of the luma against ffmpeg's decode, in dB.
const PSNR_MIN: f64 = 38.0;

/// PSNR of the image's Y plane against the frame's as ffmpeg decodes it, brought to BT.601 at full range. In RGB, where
/// [`Picture`] lives, the halved chroma of saturated edges would show as errors of brightness.
fn psnr_y(image: &[u8], clip: &Clip, number: u32) -> Result<f64> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), image)?;
    let ours = y_plane(file.path(), "null")?;
    let from = if clip.spec.full_range { "pc" } else { "tv" };
    let filter = format!(
        "select=eq(n\\,{number}),scale=in_color_matrix=bt709:in_range={from}:out_color_matrix=bt601:out_range=pc:flags=accurate_rnd+full_chroma_int"
    );
    let theirs = y_plane(&clip.path, &filter)?;
    ensure!(ours.len() == theirs.len() && !ours.is_empty(), "{} and {} samples", ours.len(), theirs.len());
    let squares: f64 = ours.iter().zip(&theirs).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    Ok(10.0 * (255.0_f64.powi(2) * ours.len() as f64 / squares).log10())
}

/// The Y plane of the first frame that the filter lets through, in 8 bits at full range.
fn y_plane(path: &Path, filter: &str) -> Result<Vec<u8>> {
    let filter = format!("{filter},format=yuvj444p,extractplanes=y");
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-i"])
        .arg(path)
        .args(["-vf", &filter, "-frames:v", "1", "-f", "rawvideo", "-"])
        .output()?;
    ensure!(output.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// Errors of one patch against the colour it was drawn in, over its middle: (mean of each channel, largest).
fn patch_errors(picture: &Picture, index: usize) -> ([f64; 3], u8) {
    let (column, row) = (index % 4, index / 4);
    // Away from the edges, where chroma of two patches mixes, and from the number's strip in the first row.
    let span = |part: usize, side: usize| (part * side + side * 3 / 8) / 4..(part * side + side * 5 / 8) / 4;
    let (mut sums, mut largest, mut count) = ([0.0; 3], 0, 0);
    for y in span(row, picture.height) {
        for x in span(column, picture.width) {
            count += 1;
            for (channel, (seen, drawn)) in picture.at(x, y).into_iter().zip(PATCHES[index]).enumerate() {
                sums[channel] += f64::from(seen) - f64::from(drawn);
                largest = largest.max(seen.abs_diff(drawn));
            }
        }
    }
    (sums.map(|sum| sum / f64::from(count)), largest)
}

#[test]
fn colours_are_right_in_every_cell_of_the_matrix() -> Result<()> {
    let mut worker = Worker::start()?;
    for colour in [Colour::Bt601, Colour::Bt709, Colour::Bt2020] {
        for full_range in [false, true] {
            for depth in [8, 10] {
                for chroma in [Chroma::Yuv420, Chroma::Yuv422, Chroma::Yuv444] {
                    let spec = ClipSpec {
                        content: Content::Patches,
                        colour,
                        full_range,
                        depth,
                        chroma,
                        kbit_per_s: 20_000,
                        ..short(320, 240)
                    };
                    let cell = format!("{colour:?}, full range {full_range}, {depth} bit, {chroma:?}");
                    let (_, entry) = first_entry_point(&spec)?;
                    let outcome = worker.picture(&entry)?;
                    let facts = outcome.rendered.facts;
                    let matrix = match colour {
                        Colour::Bt601 => ColourMatrix::Bt601,
                        Colour::Bt709 => ColourMatrix::Bt709,
                        Colour::Bt2020 => ColourMatrix::Bt2020,
                    };
                    let range = if full_range { ColourRange::Full } else { ColourRange::Limited };
                    assert_eq!((facts.matrix, facts.matrix_tagged, facts.range), (matrix, true, range), "{cell}");
                    assert_eq!(u32::from(facts.bit_depth), depth, "{cell}");

                    let picture = outcome.picture();
                    let errors: Vec<_> = (0..PATCHES.len()).map(|index| patch_errors(&picture, index)).collect();
                    let largest = errors.iter().map(|(_, largest)| *largest).max().unwrap_or(0);
                    let mean = |channel: usize| {
                        errors.iter().map(|(mean, _)| mean[channel].abs()).sum::<f64>() / errors.len() as f64
                    };
                    let means = [mean(0), mean(1), mean(2)];
                    println!("{cell}: mean {means:.2?}, largest {largest}");
                    assert!(means.iter().all(|mean| *mean <= 1.0), "{cell}: mean errors {means:?}");
                    assert!(largest <= 4, "{cell}: {errors:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn an_untagged_picture_is_taken_by_its_height() -> Result<()> {
    let mut worker = Worker::start()?;
    for (height, colour, matrix) in
        [(718, Colour::Bt601, ColourMatrix::Bt601), (720, Colour::Bt709, ColourMatrix::Bt709)]
    {
        let spec = ClipSpec { content: Content::Patches, colour, tagged: false, ..short(640, height) };
        let (_, entry) = first_entry_point(&spec)?;
        let outcome = worker.picture(&entry)?;
        assert_eq!((outcome.rendered.facts.matrix, outcome.rendered.facts.matrix_tagged), (matrix, false));
        let picture = outcome.picture();
        for index in 0..PATCHES.len() {
            let (_, largest) = patch_errors(&picture, index);
            assert!(largest <= 4, "height {height}, patch {index}: off by {largest}");
        }
    }
    Ok(())
}

#[test]
fn pictures_of_every_kind_match_the_reference_decode() -> Result<()> {
    let kinds = [
        ("360p", short(640, 360)),
        ("720p", short(1280, 720)),
        ("1080p", short(1920, 1080)),
        ("2160p", ClipSpec { kbit_per_s: 40_000, ..short(3840, 2160) }),
        ("portrait", short(720, 1280)),
        ("width not of whole macroblocks", short(1366, 768)),
        ("odd sides, 4:4:4", ClipSpec { chroma: Chroma::Yuv444, ..short(321, 181) }),
        ("odd height, 4:2:2", ClipSpec { chroma: Chroma::Yuv422, ..short(322, 181) }),
        ("4:2:2, 10 bit", ClipSpec { chroma: Chroma::Yuv422, depth: 10, ..short(640, 360) }),
        ("4:4:4, 10 bit", ClipSpec { chroma: Chroma::Yuv444, depth: 10, ..short(640, 360) }),
        ("10 bit", ClipSpec { depth: 10, ..short(640, 360) }),
        ("full range", ClipSpec { full_range: true, ..short(640, 360) }),
        ("interlaced", ClipSpec { interlaced: true, ..short(720, 576) }),
        ("reordered pictures", ClipSpec { b_frames: 3, ..short(640, 360) }),
        ("lossless", ClipSpec { encoder_args: &["-qp", "0"], ..short(320, 180) }),
        (
            "intra refresh's first picture",
            ClipSpec { encoder_args: &["-x264-params", "intra-refresh=1"], ..short(640, 360) },
        ),
        ("several slices", ClipSpec { encoder_args: &["-x264-params", "slices=7"], ..short(640, 360) }),
        ("baseline", ClipSpec { b_frames: 0, encoder_args: &["-profile:v", "baseline"], ..short(640, 360) }),
    ];
    let mut worker = Worker::start()?;
    for (kind, spec) in kinds {
        let (clip, entry) = first_entry_point(&spec)?;
        let outcome = worker.picture(&entry)?;
        let size = Size::new(spec.width, spec.height);
        assert_eq!((outcome.rendered.facts.size, outcome.rendered.images[0].size), (size, size), "{kind}");
        assert_eq!(outcome.rendered.facts.interlaced, spec.interlaced, "{kind}");
        let picture = outcome.picture();
        let psnr = psnr_y(&outcome.images[0], &clip, entry.number)?;
        println!("{kind}: {psnr:.1} dB, {} bytes", outcome.images[0].len());
        assert!(psnr >= PSNR_MIN, "{kind}: {psnr:.1} dB");
        assert_eq!(frame_number(&picture), Some(entry.number), "{kind}");
    }
    Ok(())
}

#[test]
fn the_smallest_pictures_come_out() -> Result<()> {
    let mut worker = Worker::start()?;
    for (width, height) in [(32, 16), (18, 34), (96, 64)] {
        let (clip, entry) = first_entry_point(&short(width, height))?;
        let finest = [RenditionSpec { quality: 100, ..RenditionSpec::ORIGINAL }];
        let picture = worker.render(&entry.config, &entry.unit, &finest)?.picture();
        let psnr = picture.psnr_luma(&clip.frame(entry.number, None)?)?;
        assert!(psnr >= PSNR_MIN, "{width}x{height}: {psnr:.1} dB");
    }
    Ok(())
}

#[test]
fn monochrome_video_stays_gray() -> Result<()> {
    let spec = ClipSpec { encoder_args: &["-pix_fmt", "gray"], ..short(320, 180) };
    let (clip, entry) = first_entry_point(&spec)?;
    let picture = Worker::start()?.picture(&entry)?.picture();
    let psnr = picture.psnr_luma(&clip.frame(entry.number, None)?)?;
    assert!(psnr >= PSNR_MIN, "{psnr:.1} dB");
    let pixels = (0..320 * 180).map(|index| picture.at(index % 320, index / 320));
    assert!(pixels.into_iter().all(|[red, green, blue]| red == green && green == blue));
    Ok(())
}

#[test]
fn one_decode_makes_every_rendition() -> Result<()> {
    let (clip, entry) = first_entry_point(&short(1280, 720))?;
    let sized = |width, height| RenditionSpec { width, height, ..RenditionSpec::ORIGINAL };
    let asked = [sized(0, 0), sized(640, 0), sized(0, 300), sized(321, 181), sized(360, 640), sized(1920, 0)];
    let sizes = [(1280, 720), (640, 360), (534, 300), (321, 181), (640, 360), (1920, 1080)];
    let outcome = Worker::start()?.render(&entry.config, &entry.unit, &asked)?;
    for ((image, file), size) in outcome.rendered.images.iter().zip(&outcome.images).zip(sizes) {
        let picture = framehook_testkit::jpeg::decode(file)?;
        assert_eq!((image.size.width, image.size.height), size);
        assert_eq!((picture.width, picture.height), (size.0 as usize, size.1 as usize));
        assert_eq!(frame_number(&picture), Some(entry.number), "{size:?}");
        let reference = clip.frame(entry.number, Some((picture.width, picture.height)))?;
        let psnr = picture.psnr_luma(&reference)?;
        println!("{size:?}: {psnr:.1} dB");
        // ffmpeg's bicubic is sharper than ours (its parameter is 0.6 against 0.5), and the test picture is all edges.
        assert!(psnr >= 30.0, "{size:?}: {psnr:.1} dB");
    }
    Ok(())
}

#[test]
fn quality_is_obeyed() -> Result<()> {
    let (_, entry) = first_entry_point(&short(640, 360))?;
    let asked = [30, 85, 95].map(|quality| RenditionSpec { quality, ..RenditionSpec::ORIGINAL });
    let outcome = Worker::start()?.render(&entry.config, &entry.unit, &asked)?;
    let sizes: Vec<usize> = outcome.images.iter().map(Vec::len).collect();
    assert!(sizes[0] * 3 < sizes[1] * 2 && sizes[1] < sizes[2], "{sizes:?}");
    Ok(())
}

#[test]
fn images_are_jfif_with_square_pixels_and_halved_chroma() -> Result<()> {
    let (_, entry) = first_entry_point(&short(640, 360))?;
    let outcome = Worker::start()?.picture(&entry)?;
    let file = &outcome.images[0];
    // T.871, 10.1: SOI, APP0, length 16, "JFIF", version 1.x, no unit, density 1:1, no thumbnail.
    assert_eq!(file[..12], *b"\xff\xd8\xff\xe0\x00\x10JFIF\0\x01");
    assert_eq!(file[13..20], [0, 0, 1, 0, 1, 0, 0]);
    let frame = file.windows(2).position(|marker| marker == b"\xff\xc0").expect("a baseline frame header");
    let sampling: Vec<u8> = file[frame + 10..].chunks(3).take(3).map(|component| component[1]).collect();
    assert_eq!(sampling, [0x22, 0x11, 0x11]);
    Ok(())
}

#[test]
fn wide_and_narrow_samples_become_square_pixels() -> Result<()> {
    let mut worker = Worker::start()?;
    for (size, sar, displayed) in
        [((1440, 1080), (4, 3), (1920, 1080)), ((720, 480), (8, 9), (640, 480)), ((720, 576), (64, 45), (1024, 576))]
    {
        let (clip, entry) = first_entry_point(&ClipSpec { sar, ..short(size.0, size.1) })?;
        let asked = [RenditionSpec::ORIGINAL, RenditionSpec { width: 640, ..RenditionSpec::ORIGINAL }];
        let outcome = worker.render(&entry.config, &entry.unit, &asked)?;
        let picture = outcome.picture();
        assert_eq!((picture.width, picture.height), displayed);
        let psnr = picture.psnr_luma(&clip.frame(entry.number, Some(displayed))?)?;
        assert!(psnr >= 30.0, "{sar:?}: {psnr:.1} dB");
        let scaled = outcome.rendered.images[1].size;
        assert_eq!((scaled.width, scaled.height), (640, (640 * displayed.1 / displayed.0) as u32), "{sar:?}");
    }
    Ok(())
}

#[test]
fn display_orientation_is_applied() -> Result<()> {
    // The SEI turns against the clock; 4:2:0 and 10 bit take the same way, so one format is enough.
    let cases: [(&[&str], (bool, u8)); 5] = [
        (&["-bsf:v", "h264_metadata=display_orientation=insert:rotate=90"], (false, 3)),
        (&["-bsf:v", "h264_metadata=display_orientation=insert:rotate=180"], (false, 2)),
        (&["-bsf:v", "h264_metadata=display_orientation=insert:rotate=-90"], (false, 1)),
        (&["-bsf:v", "h264_metadata=display_orientation=insert:flip=horizontal"], (true, 0)),
        (&["-bsf:v", "h264_metadata=display_orientation=insert:flip=vertical"], (true, 2)),
    ];
    let mut worker = Worker::start()?;
    for (encoder_args, (mirrored, turns)) in cases {
        let (clip, entry) = first_entry_point(&ClipSpec { encoder_args, ..short(640, 360) })?;
        let orientation = Orientation::new(mirrored, turns).expect("below 4");
        let asked = [RenditionSpec::ORIGINAL, RenditionSpec { width: 320, ..RenditionSpec::ORIGINAL }];
        let outcome = worker.render(&entry.config, &entry.unit, &asked)?;
        assert_eq!(outcome.rendered.facts.orientation, orientation, "{encoder_args:?}");
        let picture = outcome.picture();
        // The reference is turned by ffmpeg itself.
        let psnr = picture.psnr_luma(&clip.frame(entry.number, Some((picture.width, picture.height)))?)?;
        assert!(psnr >= PSNR_MIN, "{encoder_args:?}: {psnr:.1} dB");
        let scaled = outcome.rendered.images[1].size;
        let height = if turns % 2 == 1 { 568 } else { 180 };
        assert_eq!((scaled.width, scaled.height), (320, height), "{encoder_args:?}");
    }
    Ok(())
}

#[test]
fn black_pictures_are_told() -> Result<()> {
    let mut worker = Worker::start()?;
    let black = ClipSpec { encoder_args: &["-vf", "drawbox=color=black:t=fill"], ..short(320, 180) };
    for (spec, is_black) in [(short(320, 180), false), (black, true)] {
        let (_, entry) = first_entry_point(&spec)?;
        let judgement = worker.picture(&entry)?.rendered.judgement;
        assert_eq!(judgement.black, is_black, "{judgement:?}");
    }
    Ok(())
}

#[test]
fn hdr_is_refused_by_its_own_reason() -> Result<()> {
    let mut worker = Worker::start()?;
    let transfers: [&[&str]; 2] = [
        &["-bsf:v", "h264_metadata=transfer_characteristics=16"],
        &["-bsf:v", "h264_metadata=transfer_characteristics=18"],
    ];
    for encoder_args in transfers {
        let spec = ClipSpec { colour: Colour::Bt2020, depth: 10, encoder_args, ..short(320, 180) };
        let (_, entry) = first_entry_point(&spec)?;
        let failure = worker.try_render(&entry.config, &entry.unit, &[RenditionSpec::ORIGINAL])?.expect_err("HDR");
        assert_eq!(failure.reason.name(), "hdr_unsupported", "{failure:?}");
    }
    Ok(())
}
