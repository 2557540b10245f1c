//! A picture that is painted back to front with anti-aliased shapes. A shape is a signed distance in pixels: negative
//! inside, positive outside.

#[derive(Clone, Copy)]
pub(super) struct Point {
    pub(super) x: f32,
    pub(super) y: f32,
}

pub(super) fn point(x: f32, y: f32) -> Point {
    Point { x, y }
}

impl Point {
    pub(super) fn distance(self, other: Self) -> f32 {
        (self.x - other.x).hypot(self.y - other.y)
    }

    /// Turned around the origin, clockwise on screen.
    pub(super) fn turned(self, radians: f32) -> Self {
        let (sin, cos) = radians.sin_cos();
        point(self.x * cos - self.y * sin, self.x * sin + self.y * cos)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Colour(pub(super) u32);

impl Colour {
    fn channels(self) -> [f32; 3] {
        [16, 8, 0].map(|shift| (self.0 >> shift & 0xff) as f32)
    }
}

/// Left, top, right, bottom: where a shape may have paint.
pub(super) type Bounds = [f32; 4];

pub(super) struct Canvas {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize) -> Self {
        Self { width, height, rgb: vec![0; width * height * 3] }
    }

    pub(super) fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    pub(super) fn width(&self) -> f32 {
        self.width as f32
    }

    pub(super) fn height(&self) -> f32 {
        self.height as f32
    }

    pub(super) fn everywhere(&self) -> Bounds {
        [0.0, 0.0, self.width(), self.height()]
    }

    /// Paints the inside of a shape. `opacity` is 0 to 1.
    pub(super) fn paint(&mut self, bounds: Bounds, colour: Colour, opacity: f32, shape: impl Fn(Point) -> f32) {
        let [left, top, right, bottom] = bounds;
        let side = |at: f32, length: usize| (at.max(0.0) as usize).min(length);
        let paint = colour.channels();
        for y in side(top.floor(), self.height)..side(bottom.ceil(), self.height) {
            for x in side(left.floor(), self.width)..side(right.ceil(), self.width) {
                let distance = shape(point(x as f32 + 0.5, y as f32 + 0.5));
                let coverage = (0.5 - distance).clamp(0.0, 1.0) * opacity;
                if coverage > 0.0 {
                    let start = (y * self.width + x) * 3;
                    for (sample, paint) in self.rgb[start..start + 3].iter_mut().zip(paint) {
                        let under = f32::from(*sample);
                        *sample = (under + (paint - under) * coverage).round() as u8;
                    }
                }
            }
        }
    }
}

pub(super) fn circle(centre: Point, radius: f32) -> impl Fn(Point) -> f32 {
    move |at| at.distance(centre) - radius
}

/// A line with round ends.
pub(super) fn stroke(from: Point, to: Point, width: f32) -> impl Fn(Point) -> f32 {
    let (dx, dy) = (to.x - from.x, to.y - from.y);
    let length_squared = (dx * dx + dy * dy).max(f32::EPSILON);
    move |at| {
        let along = (((at.x - from.x) * dx + (at.y - from.y) * dy) / length_squared).clamp(0.0, 1.0);
        at.distance(point(from.x + along * dx, from.y + along * dy)) - width / 2.0
    }
}

/// A rectangle around a centre with rounded corners.
pub(super) fn rounded_box(centre: Point, width: f32, height: f32, radius: f32) -> impl Fn(Point) -> f32 {
    move |at| {
        let x = (at.x - centre.x).abs() - width / 2.0 + radius;
        let y = (at.y - centre.y).abs() - height / 2.0 + radius;
        x.max(0.0).hypot(y.max(0.0)) + x.max(y).min(0.0) - radius
    }
}
