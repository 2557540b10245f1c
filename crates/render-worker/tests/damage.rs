//! What is broken, cut off, incomplete or oversized never comes out as a picture, and never spoils the next one.
#![expect(clippy::disallowed_methods, reason = "a test starts workers and ffmpeg itself")]

mod support;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use framehook_render_wire::{FailureReason, RenditionSpec};
use framehook_testkit::clip::{Chroma, ClipSpec};
use framehook_testkit::jpeg;
use support::pcm::{self, Field};
use support::{EntryPoint, Worker, entry_points, first_entry_point, short};

/// PSNR of the luma from which two pictures are the same to a viewer, in dB.
const SAME_PSNR: f64 = 45.0;

/// A small generator of numbers (xorshift64*), so that every run damages alike.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

/// One of the ways in which a network, a disk or an encoder spoils a unit.
fn damaged(unit: &[u8], random: &mut Random) -> (&'static str, Vec<u8>) {
    let mut damaged = unit.to_vec();
    let at = random.below(unit.len());
    match random.below(6) {
        0 => {
            damaged[at] ^= 1 << random.below(8);
            ("one bit flipped", damaged)
        }
        1 => {
            for _ in 0..=random.below(20) {
                let at = random.below(unit.len());
                damaged[at] ^= 1 << random.below(8);
            }
            ("bits flipped", damaged)
        }
        2 => {
            let end = (at + 1 + random.below(200)).min(unit.len());
            damaged[at..end].fill(0);
            ("a run of zeros", damaged)
        }
        3 => {
            let end = (at + 1 + random.below(200)).min(unit.len());
            (at..end).for_each(|index| damaged[index] = random.below(256) as u8);
            ("a run of noise", damaged)
        }
        4 => {
            damaged.drain(at..(at + 1 + random.below(50)).min(unit.len()));
            ("bytes lost", damaged)
        }
        _ => {
            damaged.truncate(at.max(1));
            ("cut off", damaged)
        }
    }
}

/// The lengths in front of the NAL units made right again, so that damage reaches the decoder and not only the framing.
fn reframed(entry: &EntryPoint, random: &mut Random) -> Result<Vec<u8>> {
    let mut units = nal_units(&entry.unit)?;
    let index = units.iter().position(|unit| matches!(unit[0] & 0x1f, 1 | 5)).context("a slice")?;
    let (_, spoilt) = damaged(&units[index][4..], random);
    let kept = units[index][..4].to_vec();
    units[index] = [kept, spoilt].concat();
    Ok(framed(&units))
}

fn nal_units(unit: &[u8]) -> Result<Vec<Vec<u8>>> {
    use framehook_media::avcc::{LengthSize, nal_units};
    Ok(nal_units(unit, LengthSize::Four).map(|unit| unit.map(<[u8]>::to_vec)).collect::<Result<_, _>>()?)
}

fn framed(units: &[Vec<u8>]) -> Vec<u8> {
    units.iter().flat_map(|unit| (unit.len() as u32).to_be_bytes().into_iter().chain(unit.iter().copied())).collect()
}

/// Whether the ffmpeg program, told to stop at any error, decodes the unit without one. Some damage libavcodec cannot tell:
/// behind it a CABAC slice decodes to other macroblocks, and when the last of the picture is reached before a code is
/// impossible, the decoder does not ask whether the slice ends there too.
fn ffmpeg_finds_nothing(entry: &EntryPoint, unit: &[u8]) -> Result<bool> {
    let avcc = framehook_media::avcc::Avcc::parse(&entry.config)?;
    let mut stream = Vec::new();
    let units = nal_units(unit)?;
    for nal_unit in avcc.sps.iter().chain(&avcc.pps).copied().chain(units.iter().map(Vec::as_slice)) {
        stream.extend([0, 0, 0, 1]);
        stream.extend(nal_unit);
    }
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), stream)?;
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-xerror", "-err_detect", "explode", "-f", "h264", "-i"])
        .arg(file.path())
        .args(["-f", "null", "-"])
        .output()?;
    Ok(output.status.success() && output.stderr.is_empty())
}

#[test]
fn a_damaged_unit_gives_the_clean_picture_or_none() -> Result<()> {
    let half_second = Duration::from_millis(500);
    let clip = ClipSpec { duration: 6 * half_second, gop: half_second, ..short(320, 180) };
    let entries = entry_points(&clip.build()?)?;
    let mut worker = Worker::start()?;
    let clean = entries.iter().map(|entry| Ok(worker.picture(entry)?.picture())).collect::<Result<Vec<_>>>()?;
    let mut random = Random(0x5eed);
    let (mut refused, mut same, mut undetectable) = (0, 0, 0);
    for round in 0..600 {
        let which = round % entries.len();
        let entry = &entries[which];
        let (kind, unit) = match round % 3 {
            0 => damaged(&entry.unit, &mut random),
            _ => ("inside a slice", reframed(entry, &mut random)?),
        };
        match worker.try_render(&entry.config, &unit, &[RenditionSpec::ORIGINAL])? {
            Ok(outcome) if jpeg::decode(&outcome.images[0])?.psnr_luma(&clean[which])? >= SAME_PSNR => same += 1,
            Ok(_) => {
                undetectable += 1;
                assert!(ffmpeg_finds_nothing(entry, &unit)?, "round {round}, {kind}: another picture passed as good");
            }
            Err(failure) => {
                refused += 1;
                let expected = matches!(failure.reason, FailureReason::Corrupt | FailureReason::NoPicture);
                assert!(expected, "round {round}, {kind}: {failure:?}");
            }
        }
    }
    println!("{refused} refused, {same} came out the same, {undetectable} differ and no decoder can tell");
    assert!(refused > 500, "the damage was too small to mean anything: {refused} refused");
    assert!(undetectable < 30, "{undetectable} of 600 passed as good");
    assert_eq!(worker.picture(&entries[0])?.picture(), clean[0], "after all that");
    Ok(())
}

#[test]
fn every_slice_must_be_there() -> Result<()> {
    let slices: &[&str] = &["-x264-params", "slices=7"];
    let mut worker = Worker::start()?;
    for (kind, interlaced) in [("progressive", false), ("interlaced macroblocks", true)] {
        let spec = ClipSpec { encoder_args: slices, interlaced, ..short(320, 320) };
        let (_, entry) = first_entry_point(&spec)?;
        let units = nal_units(&entry.unit)?;
        worker.picture(&entry)?;
        let slices: Vec<usize> = (0..units.len()).filter(|&index| units[index][0] & 0x1f == 5).collect();
        assert!(slices.len() >= 4, "{kind}: {} slices", slices.len());
        for missing in slices {
            let mut rest = units.clone();
            rest.remove(missing);
            let result = worker.try_render(&entry.config, &framed(&rest), &[RenditionSpec::ORIGINAL])?;
            let failure = result.expect_err("a picture with a hole");
            assert_eq!(failure.reason, FailureReason::Corrupt, "{kind}, without unit {missing}");
        }
    }
    Ok(())
}

#[test]
fn both_fields_must_be_there_and_whole() -> Result<()> {
    let mut worker = Worker::start()?;
    let slices = pcm::field_pair(60, 180);
    let outcome = worker.render(&pcm::config(), &pcm::unit(&slices), &[RenditionSpec::ORIGINAL])?;
    assert!(outcome.rendered.facts.interlaced);
    let picture = outcome.picture();
    assert_eq!((picture.width, picture.height), (pcm::WIDTH, pcm::HEIGHT));
    let (top, bottom) = (picture.at(9, 8)[1], picture.at(9, 9)[1]);
    assert!(bottom > top + 80, "rows of the two fields alternate: {top} {bottom}");

    let without = |gone: &dyn Fn(&pcm::PcmSlice) -> bool| -> Vec<u8> {
        pcm::unit(&slices.iter().copied().filter(|slice| !gone(slice)).collect::<Vec<_>>())
    };
    let mut cases = vec![
        ("no bottom field".to_owned(), without(&|slice| slice.field == Field::Bottom)),
        ("no top field".to_owned(), without(&|slice| slice.field == Field::Top)),
    ];
    for missing in &slices {
        cases.push((format!("without {missing:?}"), without(&|slice| slice == missing)));
    }
    for (kind, unit) in cases {
        let result = worker.try_render(&pcm::config(), &unit, &[RenditionSpec::ORIGINAL])?;
        let reason = result.expect_err(&kind).reason;
        assert!(matches!(reason, FailureReason::Corrupt | FailureReason::NoPicture), "{kind}: {reason:?}");
    }
    Ok(())
}

#[test]
fn nothing_of_one_stream_reaches_another() -> Result<()> {
    let (_, cabac) = first_entry_point(&short(320, 180))?;
    let (_, cavlc) = first_entry_point(&ClipSpec { b_frames: 0, encoder_args: &["-coder", "0"], ..short(320, 180) })?;
    let (_, other_size) = first_entry_point(&short(640, 360))?;
    let fresh = |entry: &EntryPoint| -> Result<Vec<u8>> { Ok(Worker::start()?.picture(entry)?.images.remove(0)) };
    let expected = fresh(&cabac)?;

    let mut worker = Worker::start()?;
    for round in 0..3 {
        for entry in [&cabac, &cavlc, &other_size, &cabac] {
            assert_eq!(worker.picture(entry)?.images[0], fresh(entry)?, "round {round}");
        }
        // The other stream's parameter sets inside a unit that came under this stream's config.
        let avcc = framehook_media::avcc::Avcc::parse(&cavlc.config)?;
        let sets: Vec<Vec<u8>> = avcc.sps.iter().chain(&avcc.pps).map(|set| set.to_vec()).collect();
        let unit = [framed(&sets), cavlc.unit.clone()].concat();
        assert_eq!(
            worker.render(&cabac.config, &unit, &[RenditionSpec::ORIGINAL])?.images[0],
            fresh(&cavlc)?,
            "parameter sets inside the unit count"
        );
        assert_eq!(worker.picture(&cabac)?.images[0], expected, "and do not outlive it");
        // A failure in between.
        let cut = &cabac.unit[..cabac.unit.len() / 2];
        assert!(worker.try_render(&cabac.config, cut, &[RenditionSpec::ORIGINAL])?.is_err());
        assert_eq!(worker.picture(&cabac)?.images[0], expected, "nor does damage");
    }
    Ok(())
}

#[test]
fn a_picture_that_is_no_entry_point_is_none() -> Result<()> {
    let (clip, entry) = first_entry_point(&ClipSpec { b_frames: 0, ..short(320, 180) })?;
    let inter = clip.flv()?.tags.into_iter().rfind(|tag| tag.data.starts_with(&[0x27, 1])).context("a P picture")?;
    let result = Worker::start()?.try_render(&entry.config, &inter.data[5..], &[RenditionSpec::ORIGINAL])?;
    let reason = result.expect_err("a P picture").reason;
    assert!(matches!(reason, FailureReason::Corrupt | FailureReason::NoPicture), "{reason:?}");
    Ok(())
}

#[test]
fn units_that_are_no_video_are_refused() -> Result<()> {
    let (_, entry) = first_entry_point(&short(320, 180))?;
    let mut worker = Worker::start()?;
    let text = b"this is not a video at all, and its first four bytes are a length".to_vec();
    let cases: [(&str, Vec<u8>, Vec<u8>); 5] = [
        ("no config", Vec::new(), entry.unit.clone()),
        ("a config of noise", text.clone(), entry.unit.clone()),
        ("a unit of noise", entry.config.clone(), text),
        ("one byte", entry.config.clone(), vec![0]),
        ("an empty NAL unit", entry.config.clone(), vec![0, 0, 0, 0]),
    ];
    for (kind, config, unit) in cases {
        let result = worker.try_render(&config, &unit, &[RenditionSpec::ORIGINAL])?;
        let reason = result.expect_err(kind).reason;
        assert!(matches!(reason, FailureReason::Corrupt | FailureReason::NoPicture), "{kind}: {reason:?}");
    }
    worker.picture(&entry)?;
    Ok(())
}

/// An SPS of High profile for a picture of so many macroblocks, and the rest of a real config around it.
fn config_with_size(config: &[u8], mb_width: u32, mb_height: u32) -> Result<Vec<u8>> {
    let avcc = framehook_media::avcc::Avcc::parse(config)?;
    let sps = pcm::progressive_sps(mb_width, mb_height);
    let mut written = Vec::new();
    framehook_media::avcc::Avcc { sps: vec![&sps], ..avcc }.write(&mut written);
    Ok(written)
}

#[test]
fn a_picture_beyond_the_limit_is_refused_before_it_takes_memory() -> Result<()> {
    let (_, entry) = first_entry_point(&short(320, 180))?;
    let mut worker = Worker::start()?;
    for (mb_width, mb_height) in [(1024, 1024), (513, 272), (65_536, 2)] {
        let config = config_with_size(&entry.config, mb_width, mb_height)?;
        let result = worker.try_render(&config, &entry.unit, &[RenditionSpec::ORIGINAL])?;
        let failure = result.expect_err("too many pixels");
        assert_eq!(failure.reason, FailureReason::TooLarge, "{mb_width} by {mb_height}: {failure:?}");
    }
    // At the limit it is the unit that is wrong, and what the decoder had to allocate is given back.
    for _ in 0..5 {
        let config = config_with_size(&entry.config, 512, 272)?;
        let failure = worker.try_render(&config, &entry.unit, &[RenditionSpec::ORIGINAL])?.expect_err("damage");
        assert!(matches!(failure.reason, FailureReason::Corrupt | FailureReason::NoPicture), "{failure:?}");
    }
    worker.picture(&entry)?;
    Ok(())
}

#[test]
fn an_image_that_would_be_absurdly_long_is_refused() -> Result<()> {
    let (_, entry) = first_entry_point(&short(96, 64))?;
    let mut worker = Worker::start()?;
    let thin = ClipSpec { sar: (1, 60), ..short(96, 64) };
    let (_, thin) = first_entry_point(&thin)?;
    let wide = [RenditionSpec { width: 3000, ..RenditionSpec::ORIGINAL }];
    let failure = worker.try_render(&thin.config, &thin.unit, &wide)?.expect_err("3000 by 96000");
    assert_eq!(failure.reason, FailureReason::TooLarge, "{failure:?}");
    worker.picture(&entry)?;
    Ok(())
}

#[test]
fn the_largest_pictures_fit_or_fail_without_a_crash() -> Result<()> {
    let mut worker = Worker::start()?;
    let eight_k = ClipSpec { kbit_per_s: 20_000, encoder_args: &["-frames:v", "1"], ..short(8192, 4320) };
    let (_, entry) = first_entry_point(&eight_k)?;
    let outcome =
        worker.render(&entry.config, &entry.unit, &[RenditionSpec { width: 1920, ..RenditionSpec::ORIGINAL }])?;
    assert_eq!((outcome.rendered.images[0].size.width, outcome.rendered.images[0].size.height), (1920, 1012));

    let hungry = ClipSpec { chroma: Chroma::Yuv444, depth: 10, ..eight_k };
    let (_, entry) = first_entry_point(&hungry)?;
    match worker.try_render(&entry.config, &entry.unit, &[RenditionSpec::ORIGINAL])? {
        Ok(outcome) => assert_eq!(outcome.rendered.images[0].size.width, 8192),
        Err(failure) => assert_eq!(failure.reason, FailureReason::OutOfMemory, "{failure:?}"),
    }
    let (_, small) = first_entry_point(&short(320, 180))?;
    worker.picture(&small)?;
    Ok(())
}
