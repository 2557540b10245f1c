//! What the clip shows: an evening at sea, and a hook that has caught a frame. The frame carries the time and its number.

use std::f32::consts::TAU;

use super::canvas::{Canvas, Colour, Point, circle, point, rounded_box, stroke};
use super::{FPS, GOP_SECONDS, SECONDS, glyph};

const SUN: Point = Point { x: 415.0, y: 452.0 };
const HORIZON: f32 = 470.0;

/// From the outermost sky to the sun: flat rings instead of a gradient, which would cost bits and show bands.
const SKY: [(f32, Colour); 9] = [
    (f32::INFINITY, Colour(0x1d1b47)),
    (760.0, Colour(0x2c2560)),
    (640.0, Colour(0x453076)),
    (530.0, Colour(0x683c86)),
    (425.0, Colour(0x95498a)),
    (330.0, Colour(0xc75c82)),
    (245.0, Colour(0xec7d74)),
    (170.0, Colour(0xfaa873)),
    (100.0, Colour(0xffe3a3)),
];

const INK: Colour = Colour(0x17153b);
const PAPER: Colour = Colour(0xfff6e6);
const GLOW: Colour = Colour(0xffd479);

/// Draws one frame, numbered from 0.
pub(super) fn draw(canvas: &mut Canvas, frame: usize) {
    let phase = frame as f32 / (SECONDS * FPS) as f32;
    sky(canvas);
    stars(canvas, phase);
    gulls(canvas, phase);
    sea(canvas, phase);
    catch(canvas, frame, phase);
    title(canvas, phase);
}

/// A sine that comes back to its start after `cycles` per loop.
fn swing(phase: f32, cycles: f32, shift: f32) -> f32 {
    (TAU * (phase * cycles + shift)).sin()
}

fn sky(canvas: &mut Canvas) {
    for (radius, colour) in SKY {
        let bounds = if radius.is_finite() {
            [SUN.x - radius - 1.0, SUN.y - radius - 1.0, SUN.x + radius + 1.0, HORIZON + 1.0]
        } else {
            canvas.everywhere()
        };
        canvas.paint(bounds, colour, 1.0, circle(SUN, radius.min(1e6)));
    }
}

fn stars(canvas: &mut Canvas, phase: f32) {
    for index in 0..26_u32 {
        // Scattered by multiplying with odd constants; only where the sky is dark.
        let (x, y) = ((index * 7919 % 1237) as f32 + 20.0, (index * 5_381 % 307) as f32 + 16.0);
        let star = point(x, y);
        if star.distance(SUN) < 560.0 {
            continue;
        }
        let brightness = 0.45 + 0.4 * swing(phase, (index % 3 + 1) as f32, index as f32 * 0.37);
        canvas.paint([x - 3.0, y - 3.0, x + 3.0, y + 3.0], PAPER, brightness, circle(star, 1.7));
    }
}

fn gulls(canvas: &mut Canvas, phase: f32) {
    for (shift, y, size, beats) in [(0.05, 190.0, 17.0, 24.0), (0.11, 232.0, 13.0, 28.0), (0.62, 150.0, 12.0, 26.0)] {
        let x = -60.0 + (phase + shift).fract() * (canvas.width() + 120.0);
        let y = y + 12.0 * swing(phase, 3.0, shift);
        let lift = size * 0.45 * swing(phase, beats, shift);
        let (body, weight) = (point(x, y), size / 4.5);
        for side in [-1.0, 1.0] {
            let elbow = point(x + side * size * 0.75, y - size * 0.4 - lift * 0.6);
            let tip = point(x + side * size * 1.6, y - lift);
            let bounds = [x - size * 2.0, y - size * 2.0, x + size * 2.0, y + size * 2.0];
            canvas.paint(bounds, INK, 1.0, stroke(body, elbow, weight));
            canvas.paint(bounds, INK, 1.0, stroke(elbow, tip, weight * 0.8));
        }
    }
}

fn sea(canvas: &mut Canvas, phase: f32) {
    let width = canvas.width();
    let bottom = canvas.height();
    canvas.paint([0.0, HORIZON, width, bottom], Colour(0x5a3a80), 1.0, move |at| HORIZON - at.y);
    // The sun's path on the water: bars that breathe.
    for index in 0..7_u8 {
        let depth = f32::from(index);
        let y = HORIZON + 8.0 + depth * 9.0 + depth * depth * 0.9;
        let half = (88.0 - depth * 8.0) * (1.0 + 0.16 * swing(phase, 4.0, depth * 0.29));
        let shift = 7.0 * swing(phase, 3.0, depth * 0.41);
        let (from, to) = (point(SUN.x - half + shift, y), point(SUN.x + half + shift, y));
        let bounds = [from.x - 4.0, y - 4.0, to.x + 4.0, y + 4.0];
        canvas.paint(bounds, SKY[7].1, 0.85, stroke(from, to, 4.5));
    }
    boat(canvas, phase);
    // Nearer waves are darker, taller and faster; each moves by whole wavelengths per loop.
    for (top, height, length, lengths_per_loop, colour) in [
        (532.0, 5.0, 160.0, 2.0, Colour(0x46327a)),
        (568.0, 8.0, 213.0, 3.0, Colour(0x35296c)),
        (612.0, 11.0, 256.0, 4.0, Colour(0x27215a)),
        (664.0, 14.0, 320.0, 5.0, Colour(0x1a1846)),
    ] {
        let wave = move |at: Point| {
            let turns = at.x / length + phase * lengths_per_loop;
            let crest = (TAU * turns).sin() + 0.35 * (TAU * (2.0 * turns + 0.2)).sin();
            top + height * crest - at.y
        };
        canvas.paint([0.0, top - 2.0 * height, width, bottom], colour, 1.0, wave);
    }
}

/// A sailing boat that rides the second wave.
fn boat(canvas: &mut Canvas, phase: f32) {
    let place = point(690.0 + 26.0 * swing(phase, 1.0, 0.0), 519.0 + 4.0 * swing(phase, 4.0, 0.1));
    let tilt = 0.07 * swing(phase, 4.0, 0.35);
    let local = move |at: Point| point(at.x - place.x, at.y - place.y).turned(-tilt);
    let bounds = [place.x - 80.0, place.y - 130.0, place.x + 80.0, place.y + 40.0];
    let triangle =
        |a: Point, b: Point, c: Point| move |at: Point| edge(a, b, at).max(edge(b, c, at)).max(edge(c, a, at));
    let mast = stroke(point(0.0, 4.0), point(0.0, -104.0), 4.0);
    let main = triangle(point(6.0, -100.0), point(52.0, -14.0), point(6.0, -14.0));
    let jib = triangle(point(-6.0, -88.0), point(-6.0, -14.0), point(-38.0, -14.0));
    let hull = move |at: Point| (-2.0 - at.y).max(at.y - 22.0).max(at.x.abs() + at.y * 0.9 - 60.0);
    canvas.paint(bounds, INK, 1.0, move |at| mast(local(at)));
    canvas.paint(bounds, PAPER, 1.0, move |at| main(local(at)));
    canvas.paint(bounds, Colour(0xf4a28c), 1.0, move |at| jib(local(at)));
    canvas.paint(bounds, INK, 1.0, move |at| hull(local(at)));
}

/// How far `at` is to the left of the line from `a` to `b`, seen on screen.
fn edge(a: Point, b: Point, at: Point) -> f32 {
    ((at.x - a.x) * (b.y - a.y) - (at.y - a.y) * (b.x - a.x)) / a.distance(b)
}

/// The line from above, the hook, and the frame that hangs from it.
fn catch(canvas: &mut Canvas, frame: usize, phase: f32) {
    let hung = point(970.0, -260.0);
    let angle = 0.035 * swing(phase, 3.0, 0.0);
    let local = move |at: Point| point(at.x - hung.x, at.y - hung.y).turned(-angle);
    let everywhere = [720.0, 0.0, 1220.0, 620.0];
    let mut paint = |colour, shape: &dyn Fn(Point) -> f32| canvas.paint(everywhere, colour, 1.0, |at| shape(local(at)));

    // The frame: paper with a dark window, like an instant photograph, and a ring at its top.
    let (width, height, top) = (330.0, 296.0, 430.0);
    let middle = point(0.0, top + height / 2.0);
    let shadow = rounded_box(point(8.0, middle.y + 10.0), width, height, 16.0);
    paint(INK, &shadow);
    paint(PAPER, &rounded_box(middle, width, height, 14.0));
    let window = point(0.0, top + 118.0);
    paint(INK, &rounded_box(window, width - 36.0, 198.0, 8.0));
    let ring = point(0.0, top - 8.0);
    paint(PAPER, &move |at| (at.distance(ring) - 15.0).abs() - 3.5);

    // The line ends in an eye; the hook turns through the ring and back up to its barb.
    let steel = Colour(0xdfe6f5);
    let (shank, bend) = (26.0, point(0.0, top - 44.0));
    paint(PAPER, &stroke(point(shank, 0.0), point(shank, top - 136.0), 2.5));
    let eye = point(shank, top - 128.0);
    paint(steel, &move |at| (at.distance(eye) - 8.0).abs() - 2.8);
    paint(steel, &stroke(point(shank, top - 120.0), point(shank, bend.y), 6.5));
    paint(steel, &move |at| if at.y >= bend.y { (at.distance(bend) - shank).abs() - 3.25 } else { f32::INFINITY });
    paint(steel, &stroke(point(-shank, bend.y), point(-shank, bend.y - 26.0), 6.0));
    paint(steel, &stroke(point(-shank, bend.y - 28.0), point(-shank + 12.0, bend.y - 10.0), 4.5));

    // Time and number.
    let text = |line: &str, y: f32, size: f32, weight: f32| {
        glyph::line(line, point(-glyph::width(line, size) / 2.0, y), size, weight)
    };
    let seconds = format!("{:02}.{}", frame / FPS, frame % FPS * 10 / FPS);
    paint(GLOW, &text(&seconds, window.y - 42.0, 84.0, 10.5));
    paint(INK, &text(&format!("FRAME {frame:03}"), top + 242.0, 26.0, 4.5));
}

/// The name, and one tick for each keyframe with a light that travels along.
fn title(canvas: &mut Canvas, phase: f32) {
    let at = point(56.0, 56.0);
    let name = "FRAMEHOOK DEMO";
    let (size, weight) = (40.0, 6.5);
    let width = glyph::width(name, size);
    let bounds = [at.x - 8.0, at.y - 8.0, at.x + width + 8.0, at.y + size + 8.0];
    canvas.paint(bounds, PAPER, 1.0, glyph::line(name, at, size, weight));

    let y = at.y + size + 34.0;
    let track = [at.x - 16.0, y - 16.0, at.x + width + 16.0, y + 16.0];
    canvas.paint(track, PAPER, 0.35, stroke(point(at.x, y), point(at.x + width, y), 3.0));
    let keyframes = SECONDS / GOP_SECONDS;
    for tick in 0..=keyframes {
        let x = at.x + width * tick as f32 / keyframes as f32;
        canvas.paint(track, PAPER, 0.6, stroke(point(x, y - 6.0), point(x, y + 6.0), 3.0));
    }
    let light = point(at.x + width * phase, y);
    canvas.paint(track, GLOW, 1.0, stroke(point(at.x, y), light, 4.0));
    canvas.paint(track, GLOW, 1.0, circle(light, 9.0));
}
