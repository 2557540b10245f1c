//! One decode as images of every format, each decoded again by a program that shares no code with its encoder.
#![expect(clippy::disallowed_methods, reason = "a test starts workers itself")]

mod support;

use anyhow::Result;
use framehook_render_wire::{FailureReason, ImageFormat, RenditionSpec};
use framehook_testkit::clip::{Chroma, ClipSpec, Colour, Content, PATCHES, frame_number};
use framehook_testkit::image::{self, Format};
use framehook_testkit::picture::Picture;
use support::{Worker, first_entry_point, short};

const FORMATS: [(ImageFormat, Format); 4] = [
    (ImageFormat::Jpeg, Format::Jpeg),
    (ImageFormat::Png, Format::Png),
    (ImageFormat::Webp, Format::Webp),
    (ImageFormat::Avif, Format::Avif),
];

fn of_every_format(spec: RenditionSpec) -> Vec<RenditionSpec> {
    FORMATS.into_iter().map(|(format, _)| RenditionSpec { format, ..spec }).collect()
}

/// Mean error of each channel over the middle of a patch, against the colour that it was drawn in.
fn patch_error(picture: &Picture, index: usize) -> [f64; 3] {
    let (column, row) = (index % 4, index / 4);
    // Away from the edges, where chroma of two patches mixes, and from the number's strip in the first row.
    let span = |part: usize, side: usize| (part * side + side * 3 / 8) / 4..(part * side + side * 5 / 8) / 4;
    let (mut sums, mut count) = ([0.0; 3], 0.0);
    for y in span(row, picture.height) {
        for x in span(column, picture.width) {
            count += 1.0;
            for (sum, (seen, drawn)) in sums.iter_mut().zip(picture.at(x, y).into_iter().zip(PATCHES[index])) {
                *sum += f64::from(seen) - f64::from(drawn);
            }
        }
    }
    sums.map(|sum| sum / count)
}

#[test]
fn every_format_shows_the_colours_that_were_drawn() -> Result<()> {
    let mut worker = Worker::start()?;
    let cells = [
        (Colour::Bt601, false, Chroma::Yuv420),
        (Colour::Bt709, false, Chroma::Yuv420),
        (Colour::Bt709, true, Chroma::Yuv420),
        (Colour::Bt2020, false, Chroma::Yuv444),
    ];
    for (colour, full_range, chroma) in cells {
        let spec =
            ClipSpec { content: Content::Patches, colour, full_range, chroma, kbit_per_s: 20_000, ..short(320, 240) };
        let (_, entry) = first_entry_point(&spec)?;
        let finest = RenditionSpec { quality: 95, ..RenditionSpec::ORIGINAL };
        let outcome = worker.render(&entry.config, &entry.unit, &of_every_format(finest))?;
        for (file, (_, format)) in outcome.images.iter().zip(FORMATS) {
            let picture = image::decode(file)?;
            for index in 0..PATCHES.len() {
                let error = patch_error(&picture, index);
                // A picture with the wrong matrix is off by 10 and more somewhere, one with the wrong range by 16.
                assert!(
                    error.iter().all(|error| error.abs() < 3.0),
                    "{format:?}, {colour:?}, full range {full_range}, patch {index}: {error:.1?}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn every_format_is_close_to_what_ffmpeg_makes_of_the_same_frame() -> Result<()> {
    let (clip, entry) = first_entry_point(&short(1280, 720))?;
    let reference = clip.frame(entry.number, None)?;
    let outcome = Worker::start()?.render(&entry.config, &entry.unit, &of_every_format(RenditionSpec::ORIGINAL))?;
    // Luma, Cb and Cr in dB. The test picture is all edges and saturated colours, which halved chroma cannot hold.
    let least = [[42.0, 43.0, 41.0], [45.0, 50.0, 50.0], [43.0, 46.0, 46.0], [38.0, 38.0, 38.0]];
    for ((file, (_, format)), least) in outcome.images.iter().zip(FORMATS).zip(least) {
        assert_eq!(image::format(file), Some(format));
        let picture = image::decode(file)?;
        assert_eq!(frame_number(&picture), Some(entry.number), "{format:?}");
        let psnr = picture.psnr_planes(&reference)?;
        println!("{format:?}: {psnr:.1?} dB in {} bytes", file.len());
        assert!(psnr.iter().zip(least).all(|(psnr, least)| *psnr >= least), "{format:?}: {psnr:.1?} dB");
    }
    Ok(())
}

#[test]
fn odd_and_tiny_images_come_out_in_every_format() -> Result<()> {
    let (clip, entry) = first_entry_point(&short(322, 182))?;
    let mut worker = Worker::start()?;
    for (width, height) in [(1, 1), (1, 2), (2, 1), (3, 5), (17, 1), (1, 33), (321, 181), (63, 65)] {
        let specs = of_every_format(RenditionSpec { width, height, ..RenditionSpec::ORIGINAL });
        let outcome = worker.render(&entry.config, &entry.unit, &specs)?;
        let asked = match width < height {
            // The picture is wide, so a template that is tall is turned.
            true => (usize::from(height), usize::from(width)),
            false => (usize::from(width), usize::from(height)),
        };
        for (file, (_, format)) in outcome.images.iter().zip(FORMATS) {
            let picture = image::decode(file)?;
            assert_eq!((picture.width, picture.height), asked, "{format:?}");
            if asked.0 > 16 && asked.1 > 16 {
                let psnr = picture.psnr_luma(&clip.frame(entry.number, Some(asked))?)?;
                assert!(psnr >= 24.0, "{format:?} {asked:?}: {psnr:.1} dB");
            }
        }
    }
    Ok(())
}

#[test]
fn a_picture_that_is_turned_is_turned_in_every_format() -> Result<()> {
    let encoder_args = &["-bsf:v", "h264_metadata=display_orientation=insert:rotate=90"];
    let (clip, entry) = first_entry_point(&ClipSpec { encoder_args, ..short(640, 360) })?;
    let outcome = Worker::start()?.render(&entry.config, &entry.unit, &of_every_format(RenditionSpec::ORIGINAL))?;
    for (file, (_, format)) in outcome.images.iter().zip(FORMATS) {
        let picture = image::decode(file)?;
        assert_eq!((picture.width, picture.height), (360, 640), "{format:?}");
        let psnr = picture.psnr_luma(&clip.frame(entry.number, Some((360, 640)))?)?;
        assert!(psnr >= 33.0, "{format:?}: {psnr:.1} dB");
    }
    Ok(())
}

#[test]
fn quality_is_obeyed_by_each_lossy_format_and_ignored_by_png() -> Result<()> {
    let (_, entry) = first_entry_point(&short(640, 360))?;
    let mut worker = Worker::start()?;
    for (format, name) in FORMATS {
        let asked = [30, 85, 95].map(|quality| RenditionSpec { format, quality, ..RenditionSpec::ORIGINAL });
        let outcome = worker.render(&entry.config, &entry.unit, &asked)?;
        let [coarse, usual, fine] = [0, 1, 2].map(|index: usize| outcome.images[index].len());
        match name {
            Format::Png => assert!(coarse == usual && usual == fine),
            _ => assert!(coarse * 4 < usual * 3 && usual < fine, "{name:?}: {coarse}, {usual}, {fine}"),
        }
    }
    Ok(())
}

#[test]
fn files_say_what_their_colours_mean() -> Result<()> {
    let (_, entry) = first_entry_point(&short(320, 180))?;
    let outcome = Worker::start()?.render(&entry.config, &entry.unit, &of_every_format(RenditionSpec::ORIGINAL))?;
    let [_, png, webp, avif] = &outcome.images[..] else { panic!("four images") };
    assert!(png.windows(4).any(|chunk| chunk == b"sRGB"));
    assert_eq!(&webp[12..16], b"VP8 ", "lossy, without an extended header");
    // No temporal delimiter before the sequence header (AVIF 1.1, 2.1), which says matrix, range and all.
    assert_eq!(image::av1_frame(avif)?.first(), Some(&0x0a));
    Ok(())
}

#[test]
fn what_a_format_cannot_hold_is_refused_and_the_worker_goes_on() -> Result<()> {
    let mut worker = Worker::start()?;
    let thin = ClipSpec { sar: (1, 60), ..short(96, 64) };
    let (_, thin) = first_entry_point(&thin)?;
    // 600 by 19,200: a JPEG may be that long, a WebP not.
    let long = |format| [RenditionSpec { width: 600, format, ..RenditionSpec::ORIGINAL }];
    worker.render(&thin.config, &thin.unit, &long(ImageFormat::Jpeg))?;
    let (_, huge) = first_entry_point(&ClipSpec { encoder_args: &["-frames:v", "1"], ..short(8192, 4320) })?;
    let whole = |format| [RenditionSpec { format, ..RenditionSpec::ORIGINAL }];
    for (entry, asked) in [(&thin, long(ImageFormat::Webp)), (&huge, whole(ImageFormat::Avif))] {
        let failure = worker.try_render(&entry.config, &entry.unit, &asked)?.expect_err("too large");
        assert_eq!(failure.reason, FailureReason::TooLarge, "{failure:?}");
    }
    Ok(())
}

#[test]
fn the_largest_images_of_each_format_fit_into_the_jail() -> Result<()> {
    let mut worker = Worker::start()?;
    let (_, four_k) = first_entry_point(&ClipSpec { encoder_args: &["-frames:v", "1"], ..short(3840, 2160) })?;
    let outcome = worker.render(&four_k.config, &four_k.unit, &of_every_format(RenditionSpec::ORIGINAL))?;
    for (file, (_, format)) in outcome.images.iter().zip(FORMATS) {
        assert_eq!(image::size(file)?, (3840, 2160), "{format:?}");
    }
    Ok(())
}
