//! Whether two decodes gave the same picture, without keeping both.

use std::hash::{DefaultHasher, Hasher};

use crate::picture::{AnyPlanes, Planes, Sample};

/// A number that differs, but for one chance in 2^64, when any visible sample does.
pub(crate) fn fingerprint(planes: &AnyPlanes<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match planes {
        AnyPlanes::Narrow(planes) => take_in(planes, &mut hasher),
        AnyPlanes::Wide(planes) => take_in(planes, &mut hasher),
    }
    hasher.finish()
}

fn take_in<T: Sample>(planes: &Planes<'_, T>, hasher: &mut DefaultHasher) {
    for plane in std::iter::once(&planes.luma).chain(&planes.chroma) {
        plane.rows().for_each(|row| hasher.write(T::bytes(row)));
    }
}
