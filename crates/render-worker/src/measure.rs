//! The floor: what a picture costs in one process that does nothing else.

use std::error::Error;
use std::fs;
use std::time::Duration;

use framehook_render_wire::{Codec, IMAGES_BYTES_MAX, ImageFormat, RenditionSpec};

use crate::render::Renderer;
use crate::stopwatch::Stopwatch;

/// CPU time to spend on measuring at least, after one round to warm up. Short, because whoever compares does so in turns, again
/// and again: one round of the 32 keyframes of `bench picture` is more already, and one file is rendered some twenty times.
const MEASURED_TIME: Duration = Duration::from_millis(250);

/// The same for each format: a picture in AVIF takes a quarter of a second.
const FORMAT_TIME: Duration = Duration::from_secs(2);

/// Renders every unit over and over, `width` pixels wide or with 0 at its own size, and prints the mean CPU time of one
/// picture. All are H.264 under one config.
pub(crate) fn measure(width: &str, config: &str, units: &[&str]) -> Result<(), Box<dyn Error>> {
    let rendition = RenditionSpec { width: width.parse()?, ..RenditionSpec::ORIGINAL };
    let config = fs::read(config)?;
    let units = units.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
    let mut renderer = Renderer::new()?;
    let mut room = vec![0; IMAGES_BYTES_MAX];
    let mut round = || -> Result<(u64, u64, u64), Box<dyn Error>> {
        let mut sums = (0, 0, 0);
        for unit in &units {
            let rendered = renderer
                .render(Codec::H264, &config, unit, &[rendition], &mut room)
                .map_err(|failure| format!("{}: {}", failure.reason.name(), failure.detail))?;
            let timings = rendered.timings;
            sums.0 += u64::from(timings.decode_us);
            sums.1 += u64::from(timings.scale_us);
            sums.2 += u64::from(timings.encode_us);
        }
        Ok(sums)
    };
    round()?;
    let measured = Stopwatch::start_cpu();
    let mut pictures = 0;
    let mut sums = (0, 0, 0);
    while measured.elapsed() < MEASURED_TIME {
        let (decode, scale, encode) = round()?;
        sums = (sums.0 + decode, sums.1 + scale, sums.2 + encode);
        pictures += units.len() as u64;
    }
    let cpu_us = measured.elapsed().as_micros() as u64 / pictures;
    println!("pictures {pictures}");
    println!("cpu_us_per_picture {cpu_us}");
    println!("wall_us_decode {}", sums.0 / pictures);
    println!("wall_us_convert {}", sums.1 / pictures);
    println!("wall_us_encode {}", sums.2 / pictures);
    Ok(())
}

/// Renders every unit at its own size in one format after the other, and prints for each the mean CPU time of a picture,
/// its decoding included, and the bytes of an image. All are H.264 under one config.
pub(crate) fn measure_formats(config: &str, units: &[&str]) -> Result<(), Box<dyn Error>> {
    let config = fs::read(config)?;
    let units = units.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
    let mut renderer = Renderer::new()?;
    let mut room = vec![0; IMAGES_BYTES_MAX];
    for (format, name) in ImageFormat::ALL.into_iter().zip(["jpeg", "png", "webp", "avif"]) {
        let measured = Stopwatch::start_cpu();
        let (mut bytes, mut pictures) = (0, 0);
        while measured.elapsed() < FORMAT_TIME {
            for unit in &units {
                let rendered = renderer
                    .render(
                        Codec::H264,
                        &config,
                        unit,
                        &[RenditionSpec { format, ..RenditionSpec::ORIGINAL }],
                        &mut room,
                    )
                    .map_err(|failure| format!("{}: {}", failure.reason.name(), failure.detail))?;
                bytes += u64::from(rendered.images[0].bytes);
                pictures += 1;
            }
        }
        let cpu_us = measured.elapsed().as_micros() as u64 / pictures;
        println!("{name} cpu_us_per_picture {cpu_us} bytes {}", bytes / pictures);
    }
    Ok(())
}
