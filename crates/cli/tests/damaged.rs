//! Ten thousand damaged H.264 keyframes through the render pool and its jail. Whatever becomes of each, the pool serves the
//! next; and a picture that came out and is not the right one is one in which the ffmpeg program, told to be strict, finds
//! no error either: then nothing in the bitstream tells.
#![expect(clippy::disallowed_methods, reason = "runs ffmpeg and waits for its end")]

mod common;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use common::FRAMEHOOK;
use framehook_media::{Codec, DecoderConfig};
use framehook_server::render::{
    ImageFormat, RenderConfig, RenderError, RenderJob, RenderedPicture, RenditionSpec, Worker, WorkerSet,
};
use framehook_testkit::clip::{Chroma, ClipSpec};
use framehook_testkit::dice::Dice;
use framehook_testkit::jpeg;

const DAMAGED: u64 = 10_000;

/// Repeats an earlier run's damage.
const SEED_VARIABLE: &str = "FRAMEHOOK_DAMAGE_SEED";

/// Below this a picture is not the one that was sent. Two encodings of the same samples are equal; this leaves room for a
/// block or two of another shade that nobody could see.
const PSNR_MIN_DB: f64 = 45.0;

/// One picture's deadline: the server's own default.
const DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of an FLV video tag in front of its AVCC data: frame and codec, packet type, composition time.
const TAG_HEAD_BYTES: usize = 5;

/// A whole keyframe, the picture it gives, and others of the same stream to splice in.
struct Keyframe {
    config: Arc<DecoderConfig>,
    data: Bytes,
    clean: Bytes,
    siblings: Vec<Bytes>,
}

/// One of each way in which H.264 is commonly coded, small, so that ten thousand are soon decoded.
fn clips() -> Vec<ClipSpec> {
    let small = ClipSpec {
        width: 320,
        height: 180,
        kbit_per_s: 500,
        duration: Duration::from_secs(2),
        gop: Duration::from_millis(500),
        audio: false,
        ..ClipSpec::default()
    };
    vec![
        small.clone(),
        // Context-adaptive variable-length coding, as webcams and phones send it.
        ClipSpec { b_frames: 0, encoder_args: &["-profile:v", "baseline"], ..small.clone() },
        ClipSpec { encoder_args: &["-x264opts", "slices=4"], ..small.clone() },
        ClipSpec { interlaced: true, height: 192, ..small.clone() },
        ClipSpec { chroma: Chroma::Yuv422, depth: 10, ..small },
    ]
}

async fn keyframes(worker: &mut Worker) -> Result<Vec<Keyframe>> {
    let mut keyframes = Vec::new();
    for spec in clips() {
        let file = spec.build()?.flv()?;
        let config = file.tags.iter().find(|tag| tag.is_decoder_config()).context("a clip has a decoder config")?;
        let record = config.data.slice(TAG_HEAD_BYTES..);
        let config = Arc::new(DecoderConfig { codec: Codec::H264, record });
        let all: Vec<Bytes> =
            file.tags.iter().filter(|tag| tag.is_keyframe()).map(|tag| tag.data.slice(TAG_HEAD_BYTES..)).collect();
        for data in &all {
            let clean = render(worker, &config, data).await.with_context(|| format!("a whole keyframe of {spec}"))?;
            ensure!(!ffmpeg_objects(&config, data)?, "ffmpeg objects to a whole keyframe of {spec}");
            let siblings = all.iter().filter(|other| *other != data).cloned().collect();
            keyframes.push(Keyframe { config: Arc::clone(&config), data: data.clone(), clean, siblings });
        }
    }
    Ok(keyframes)
}

async fn render(worker: &mut Worker, config: &Arc<DecoderConfig>, data: &Bytes) -> Result<Bytes, RenderError> {
    let original_size = RenditionSpec { width: 0, height: 0, format: ImageFormat::Jpeg, quality: 90 };
    let job = RenderJob { config: Arc::clone(config), data: data.clone(), renditions: vec![original_size] };
    let RenderedPicture { images, .. } = worker.render(&job, tokio::time::Instant::now() + DEADLINE).await?;
    Ok(images[0].bytes.clone())
}

/// Damages a keyframe in one of the ways in which lines, disks and people do.
fn damage(keyframe: &Keyframe, dice: &mut Dice) -> (&'static str, Bytes) {
    let mut data = keyframe.data.to_vec();
    let run = |dice: &mut Dice, len: usize| {
        let start = dice.index(len);
        start..(start + 1 + dice.index(1000)).min(len)
    };
    let name = match dice.within(0..6) {
        0 => {
            let bit = dice.index(data.len() * 8);
            data[bit / 8] ^= 1 << (bit % 8);
            "one bit"
        }
        1 => {
            for _ in 0..dice.within(2..17) {
                let bit = dice.index(data.len() * 8);
                data[bit / 8] ^= 1 << (bit % 8);
            }
            "some bits"
        }
        2 => {
            data.truncate(1 + dice.index(data.len() - 1));
            "cut off"
        }
        3 => {
            let run = run(dice, data.len());
            data[run].fill(0);
            "zeroes"
        }
        4 => {
            let run = run(dice, data.len());
            data.drain(run);
            "a gap"
        }
        _ => {
            let sibling = &keyframe.siblings[dice.index(keyframe.siblings.len())];
            let run = run(dice, data.len().min(sibling.len()));
            data[run.clone()].copy_from_slice(&sibling[run]);
            "another picture's bytes"
        }
    };
    (name, data.into())
}

/// Whether ffmpeg, told to be strict, prints an error or gives up.
fn ffmpeg_objects(config: &DecoderConfig, data: &[u8]) -> Result<bool> {
    let mut file = b"FLV\x01\x01\0\0\0\x09\0\0\0\0".to_vec();
    let mut tag = |packet_type: u8, body: &[u8]| -> Result<()> {
        let length = u32::try_from(TAG_HEAD_BYTES + body.len())?;
        file.push(9);
        file.extend_from_slice(&length.to_be_bytes()[1..]);
        file.extend_from_slice(&[0; 7]);
        file.extend_from_slice(&[0x17, packet_type, 0, 0, 0]);
        file.extend_from_slice(body);
        file.extend_from_slice(&(length + 11).to_be_bytes());
        Ok(())
    };
    tag(0, &config.record)?;
    tag(1, data)?;
    let mut ffmpeg = Command::new("ffmpeg")
        .args("-v error -threads 1 -err_detect explode -i - -f null -".split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start ffmpeg")?;
    // It may give up before it has read everything.
    let _ = ffmpeg.stdin.take().context("its input is piped")?.write_all(&file);
    let output = ffmpeg.wait_with_output()?;
    Ok(!output.status.success() || !output.stderr.is_empty())
}

/// What became of damaged keyframes.
#[derive(Default)]
struct Outcomes {
    counts: BTreeMap<String, u64>,
    /// Pictures that came out, are not the right ones, and are known to ffmpeg as broken.
    faults: Vec<String>,
    /// Damage that neither side can see.
    unseen: u64,
    /// Of the refused ones that ffmpeg was asked about, too, how many it objected to.
    asked: u64,
    agreed: u64,
}

impl Outcomes {
    fn add(&mut self, other: Self) {
        for (name, count) in other.counts {
            *self.counts.entry(name).or_default() += count;
        }
        self.faults.extend(other.faults);
        self.unseen += other.unseen;
        self.asked += other.asked;
        self.agreed += other.agreed;
    }
}

/// Takes numbers from `next` until all are done. A number and the seed decide the damage, whoever does it.
async fn drive(mut worker: Worker, keyframes: Arc<Vec<Keyframe>>, seed: u64, next: Arc<AtomicU64>) -> Result<Outcomes> {
    let mut outcomes = Outcomes::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= DAMAGED {
            break;
        }
        let mut dice = Dice::new(seed.wrapping_add(number));
        let keyframe = &keyframes[dice.index(keyframes.len())];
        let (how, data) = damage(keyframe, &mut dice);
        let outcome = match render(&mut worker, &keyframe.config, &data).await {
            Ok(image) if image == keyframe.clean => "the right picture, to the byte".to_owned(),
            Ok(image) => {
                let psnr = jpeg::decode(&image)?.psnr_luma(&jpeg::decode(&keyframe.clean)?);
                // A size of its own is as wrong as can be.
                let psnr = psnr.unwrap_or(0.0);
                if psnr >= PSNR_MIN_DB {
                    "the right picture, to the eye".to_owned()
                } else {
                    if ffmpeg_objects(&keyframe.config, &data)? {
                        outcomes.faults.push(format!("number {number} ({how}): {psnr:.1} dB"));
                    }
                    outcomes.unseen += 1;
                    "another picture, and nothing tells".to_owned()
                }
            }
            Err(error) => {
                // Every hundredth is shown to ffmpeg as well: it must be able to object at all.
                if number.is_multiple_of(100) {
                    outcomes.asked += 1;
                    outcomes.agreed += u64::from(ffmpeg_objects(&keyframe.config, &data)?);
                }
                format!("refused: {}", error.reason())
            }
        };
        *outcomes.counts.entry(outcome).or_default() += 1;
    }
    // Whatever it has been through, it serves the next.
    let keyframe = &keyframes[0];
    let picture = render(&mut worker, &keyframe.config, &keyframe.data).await.context("after all the damage")?;
    ensure!(picture == keyframe.clean, "after all the damage a whole keyframe gives another picture");
    Ok(outcomes)
}

async fn survive(seed: u64) -> Result<Outcomes> {
    let executable = Some(Path::new(FRAMEHOOK).with_file_name("framehook-render"));
    let WorkerSet { mut workers, .. } = WorkerSet::start(&RenderConfig { executable, ..RenderConfig::new() }).await?;
    let keyframes = Arc::new(keyframes(&mut workers[0]).await?);
    let next = Arc::new(AtomicU64::new(0));
    let mut driven = tokio::task::JoinSet::new();
    for worker in workers {
        driven.spawn(drive(worker, Arc::clone(&keyframes), seed, Arc::clone(&next)));
    }
    let mut outcomes = Outcomes::default();
    while let Some(ended) = driven.join_next().await {
        outcomes.add(ended.context("a driver panicked")??);
    }
    Ok(outcomes)
}

#[test]
fn a_damaged_keyframe_gives_no_wrong_picture_that_can_be_told() {
    let seed = Dice::seed_from(SEED_VARIABLE);
    println!("{SEED_VARIABLE}={seed} repeats this damage");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcomes = runtime.block_on(survive(seed)).unwrap();
    for (outcome, count) in &outcomes.counts {
        println!("{count:6}  {outcome}");
    }
    println!("{:6}  of {} refused ones that ffmpeg was shown, it objected to", outcomes.agreed, outcomes.asked);
    let faults = outcomes.faults.join("\n");
    assert!(faults.is_empty(), "wrong pictures that ffmpeg objects to, {SEED_VARIABLE}={seed}:\n{faults}");
    assert_eq!(outcomes.counts.values().sum::<u64>(), DAMAGED);
    assert!(outcomes.agreed > 0, "ffmpeg objects to nothing, so its silence says nothing");
}
