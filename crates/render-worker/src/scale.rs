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
        let chroma_size = chroma_size(size, chroma);
        let luma = self.scale_plane(planes.luma, size)?;
        let [cb, cr] = planes.chroma;
        let chroma = [self.scale_plane(cb, chroma_size)?, self.scale_plane(cr, chroma_size)?];
        Ok(ScaledPlanes { luma, chroma })
    }

    /// Brings a plane to this size; one that has it is not touched.
    pub(crate) fn scale_plane<'a, T: Sample>(
        &mut self,
        plane: Plane<'a, T>,
        size: Size,
    ) -> Result<MaybeScaled<'a, T>, OutOfMemory> {
        if plane.size == size {
            return Ok(MaybeScaled::Same(plane));
        }
        let mut scaled = OwnedPlane::new(size)?;
        // Sharp, without visible ringing; the kernel widens with the reduction, so nothing aliases.
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
        let Size { width, height } = plane.size;
        let whole_rows = TypedImageRef::<T::Pixel>::from_buffer(plane.stride as u32, height, T::bytes(plane.samples))
            .expect("a plane covers its rows, aligned as its samples");
        // A view, not the resizer's crop: that would let padding bleed in at the right edge.
        let source =
            TypedCroppedImage::from_ref(&whole_rows, 0, 0, width, height).expect("a row is no longer than its stride");
        let mut target =
            TypedImage::<T::Pixel>::from_buffer(size.width, size.height, T::bytes_mut(&mut scaled.samples))
                .expect("a new plane has the size it was made for");
        self.resizer.resize_typed(&source, &mut target, &options).expect("both sides have pixels of one type");
        Ok(MaybeScaled::Scaled(scaled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled_samples<T: Sample>(plane: Plane<'_, T>, size: Size) -> Vec<T> {
        match Scaler::default().scale_plane(plane, size).expect("a small plane fits") {
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
}
