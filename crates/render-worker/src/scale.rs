//! Changing the size of planes.

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use framehook_render_wire::{Chroma, Size};

use crate::picture::{OutOfMemory, OwnedPlane, Plane, Planes, Sample, chroma_size};

/// A plane that was left as it is, or a new one.
#[derive(Debug)]
pub(crate) enum MaybeScaled<'a, T> {
    Same(Plane<'a, T>),
    Scaled(OwnedPlane<T>),
}

impl<T: Sample> MaybeScaled<'_, T> {
    pub(crate) fn as_plane(&self) -> Plane<'_, T> {
        match self {
            Self::Same(plane) => *plane,
            Self::Scaled(plane) => plane.as_plane(),
        }
    }
}

/// A picture at its image's size.
#[derive(Debug)]
pub(crate) struct ScaledPlanes<'a, T> {
    luma: MaybeScaled<'a, T>,
    chroma: [MaybeScaled<'a, T>; 2],
}

impl<T: Sample> ScaledPlanes<'_, T> {
    pub(crate) fn as_planes(&self) -> Planes<'_, T> {
        Planes { luma: self.luma.as_plane(), chroma: self.chroma.each_ref().map(MaybeScaled::as_plane) }
    }
}

/// How much of a plane, from its upper left corner, becomes the new one; in its samples.
///
/// A chroma sample of 4:2:0 stands for two columns and rows of luma even where the picture ends after the first of them, and
/// JPEG readers go by that. So the chroma of a picture with an odd side covers a little more or less than its own samples;
/// without this its colours would drift by up to a pixel towards the far edges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Extent {
    width: f64,
    height: f64,
}

impl Extent {
    /// All of it.
    fn whole(size: Size) -> Self {
        Self { width: size.width.into(), height: size.height.into() }
    }

    /// What the chroma of a picture of size `to` covers of the chroma, in the same format, of one of size `from`.
    fn of_chroma(chroma_to: Size, from: Size, to: Size) -> Self {
        let side = |chroma_to: u32, from: u32, to: u32| f64::from(chroma_to) * f64::from(from) / f64::from(to);
        Self {
            width: side(chroma_to.width, from.width, to.width),
            height: side(chroma_to.height, from.height, to.height),
        }
    }

    /// What the chroma of a picture in one format, of this size, covers of its chroma in another.
    fn of_change(changed: Size, from: Chroma, to: Chroma) -> Self {
        // Columns and rows of luma for which one sample stands.
        let stands_for = |chroma| match chroma {
            Chroma::C420 => (2, 2),
            Chroma::C422 => (2, 1),
            Chroma::C444 => (1, 1),
        };
        let ((from_columns, from_rows), (to_columns, to_rows)) = (stands_for(from), stands_for(to));
        let side = |changed: u32, to: u32, from: u32| f64::from(changed * to) / f64::from(from);
        Self { width: side(changed.width, to_columns, from_columns), height: side(changed.height, to_rows, from_rows) }
    }
}

/// Keeps the resizer's tables and buffers from one picture to the next.
#[derive(Debug, Default)]
pub(crate) struct Scaler {
    resizer: Resizer,
}

impl Scaler {
    /// Brings a picture to `size`, in its own chroma format.
    pub(crate) fn scale<'a, T: Sample>(
        &mut self,
        planes: Planes<'a, T>,
        chroma: Chroma,
        size: Size,
    ) -> Result<ScaledPlanes<'a, T>, OutOfMemory> {
        let (from, chroma_size) = (planes.luma.size, chroma_size(size, chroma));
        let extent = Extent::of_chroma(chroma_size, from, size);
        let luma = self.scale_plane(planes.luma, Extent::whole(from), size)?;
        let [cb, cr] = planes.chroma;
        let chroma = [self.scale_plane(cb, extent, chroma_size)?, self.scale_plane(cr, extent, chroma_size)?];
        Ok(ScaledPlanes { luma, chroma })
    }

    /// Brings a chroma plane of a picture of size `luma` from one format to another.
    pub(crate) fn change_chroma<'a>(
        &mut self,
        plane: Plane<'a, u8>,
        from: Chroma,
        to: Chroma,
        luma: Size,
    ) -> Result<MaybeScaled<'a, u8>, OutOfMemory> {
        let changed = chroma_size(luma, to);
        self.scale_plane(plane, Extent::of_change(changed, from, to), changed)
    }

    /// Brings a part of a plane to this size; a whole one that has it is not touched.
    fn scale_plane<'a, T: Sample>(
        &mut self,
        plane: Plane<'a, T>,
        extent: Extent,
        size: Size,
    ) -> Result<MaybeScaled<'a, T>, OutOfMemory> {
        if plane.size == size && extent == Extent::whole(size) {
            return Ok(MaybeScaled::Same(plane));
        }
        let extended = extended(plane, extent)?;
        let plane = extended.as_ref().map_or(plane, OwnedPlane::as_plane);
        let mut scaled = OwnedPlane::new(size)?;
        // Sharp, without visible ringing; the kernel widens with the reduction, so nothing aliases.
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom)).crop(
            0.0,
            0.0,
            extent.width,
            extent.height,
        );
        let Size { width, height } = plane.size;
        let whole_rows = TypedImageRef::<T::Pixel>::from_buffer(plane.stride as u32, height, T::bytes(plane.samples))
            .expect("a plane covers its rows, aligned as its samples");
        // A view, beside the resizer's crop: that alone would let padding bleed in at the right edge.
        let source =
            TypedCroppedImage::from_ref(&whole_rows, 0, 0, width, height).expect("a row is no longer than its stride");
        let mut target =
            TypedImage::<T::Pixel>::from_buffer(size.width, size.height, T::bytes_mut(&mut scaled.samples))
                .expect("a new plane has the size it was made for");
        self.resizer.resize_typed(&source, &mut target, &options).expect("both sides have pixels of one type");
        Ok(MaybeScaled::Scaled(scaled))
    }
}

/// The plane with its last column and row repeated, where `extent` reaches past them; by one sample at most.
fn extended<T: Sample>(plane: Plane<'_, T>, extent: Extent) -> Result<Option<OwnedPlane<T>>, OutOfMemory> {
    let side = |covered: f64, there: u32| (covered.ceil() as u32).max(there);
    let size = Size::new(side(extent.width, plane.size.width), side(extent.height, plane.size.height));
    if size == plane.size {
        return Ok(None);
    }
    let mut extended = OwnedPlane::new(size)?;
    let last_row = plane.size.height as usize - 1;
    for (index, row) in extended.rows_mut().enumerate() {
        let source = plane.row(index.min(last_row));
        let (there, beyond) = row.split_at_mut(source.len());
        there.copy_from_slice(source);
        beyond.fill(source[source.len() - 1]);
    }
    Ok(Some(extended))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled_samples<T: Sample>(plane: Plane<'_, T>, size: Size) -> Vec<T> {
        match Scaler::default().scale_plane(plane, Extent::whole(plane.size), size).expect("a small plane fits") {
            MaybeScaled::Same(plane) => plane.rows().flatten().copied().collect(),
            MaybeScaled::Scaled(plane) => plane.samples,
        }
    }

    #[test]
    fn padding_does_not_bleed_into_the_picture() {
        // Rows of 100 with padding of 255 behind them.
        let mut samples = Vec::new();
        for _ in 0..8 {
            samples.extend([100_u8; 9]);
            samples.extend([255_u8; 7]);
        }
        let plane = Plane::new(&samples, 16, Size::new(9, 8)).expect("eight rows");
        for size in [Size::new(5, 3), Size::new(4, 8), Size::new(18, 20), Size::new(1, 1)] {
            let scaled = scaled_samples(plane, size);
            assert_eq!(scaled, vec![100; (size.width * size.height) as usize], "{size:?}");
        }
    }

    #[test]
    fn wide_samples_keep_their_depth() {
        let samples: Vec<u16> = (0..64).map(|index| (index % 8) * 128).collect();
        let plane = Plane::new(&samples, 8, Size::new(8, 8)).expect("64 samples");
        let scaled = scaled_samples(plane, Size::new(4, 4));
        assert!(scaled.iter().any(|&sample| sample > 255), "{scaled:?}");
        assert!(scaled.windows(2).take(3).all(|pair| pair[0] < pair[1]), "{scaled:?}");
    }

    #[test]
    fn each_plane_goes_to_the_size_of_its_format() {
        let samples = [9_u8; 49];
        for (chroma, from, to) in [
            (Chroma::C420, Size::new(4, 4), Size::new(3, 2)),
            (Chroma::C422, Size::new(4, 7), Size::new(3, 3)),
            (Chroma::C444, Size::new(7, 7), Size::new(5, 3)),
        ] {
            let plane =
                |size: Size| Plane::new(&samples, size.width as usize, size).expect("49 samples cover every size");
            let planes = Planes { luma: plane(Size::new(7, 7)), chroma: [plane(from); 2] };
            let mut scaler = Scaler::default();
            let scaled = scaler.scale(planes, chroma, Size::new(5, 3)).expect("a few bytes fit");
            let scaled = scaled.as_planes();
            assert_eq!((scaled.luma.size, scaled.chroma.map(|plane| plane.size)), (Size::new(5, 3), [to; 2]));
            let same = scaler.scale(planes, chroma, Size::new(7, 7)).expect("nothing to do");
            assert!(matches!(same.luma, MaybeScaled::Same(_)) && matches!(same.chroma[0], MaybeScaled::Same(_)));
        }
    }

    /// A ramp that rises by 2 with each column of luma, as samples that each stand for so many columns.
    fn ramp(width: u32, columns_each: u32) -> Vec<u8> {
        (0..width.div_ceil(columns_each)).map(|index| (10 + (2 * index + 1) * columns_each) as u8).collect()
    }

    #[test]
    fn colour_stays_where_it_is_in_a_picture_with_odd_sides() {
        for (from, to) in [(121, 121), (121, 60), (120, 61), (121, 61), (91, 120)] {
            let full = ramp(from, 1);
            let luma = Plane::new(&full, full.len(), Size::new(from, 1)).expect("a row");
            for (chroma, columns_each) in [(Chroma::C444, 1), (Chroma::C420, 2)] {
                let samples = ramp(from, columns_each);
                let plane = Plane::new(&samples, samples.len(), Size::new(samples.len() as u32, 1)).expect("a row");
                let mut scaler = Scaler::default();
                let planes = Planes { luma, chroma: [plane; 2] };
                let size = Size::new(to, 1);
                let scaled = scaler.scale(planes, chroma, size).expect("a few bytes fit");
                let halved = scaler
                    .change_chroma(scaled.as_planes().chroma[0], chroma, Chroma::C420, size)
                    .expect("a few bytes fit");
                let halved = halved.as_plane();
                assert_eq!(halved.size.width, to.div_ceil(2));
                // In the right half, where a drift has grown, but for the edge, which is the filter's.
                let inner = halved.size.width / 2..halved.size.width - 3;
                let offs = inner.clone().map(|index| {
                    // The middle of two columns of the new picture, in columns of the old one.
                    let place = f64::from(2 * index + 1) * f64::from(from) / f64::from(to);
                    f64::from(halved.samples[index as usize]) - (10.0 + 2.0 * place)
                });
                let mean = offs.sum::<f64>() / inner.len() as f64;
                assert!(mean.abs() < 0.3, "{chroma:?} {from} to {to}: off by {mean} in the mean");
            }
        }
    }
}
