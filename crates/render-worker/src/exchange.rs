//! The exchange: memory that this process shares with its server.
//!
//! It is mapped before the lock. Behind it a job is read where it lies and a JPEG is written where it is wanted, without a system
//! call, so that the calls that read and write files need not be allowed.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::slice;

use framehook_render_wire::{EXCHANGE_BYTES, IMAGES_OFFSET};
use rustix::fs::SealFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// The exchange, mapped for as long as the process lives.
#[derive(Debug)]
pub(crate) struct Exchange {
    start: NonNull<u8>,
}

impl Exchange {
    /// # Errors
    /// What the kernel said, or `InvalidInput` for a file that is too short or could become so: touching what is not there would
    /// be a signal.
    pub(crate) fn map(file: impl AsFd) -> io::Result<Self> {
        if rustix::fs::fstat(&file)?.st_size < EXCHANGE_BYTES as i64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("it has fewer than {EXCHANGE_BYTES} bytes"),
            ));
        }
        if !rustix::fs::fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it could become smaller"));
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a place where nothing is.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), EXCHANGE_BYTES, access, MapFlags::SHARED, file, 0) }?;
        NonNull::new(start.cast()).map(|start| Self { start }).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// What the server wrote for a job, this many bytes of it, and the room for its images. For as long as the job lasts: between
    /// a job and its outcome the server keeps away from both.
    ///
    /// # Panics
    /// If the input would reach into the images.
    pub(crate) fn parts(&mut self, input_bytes: usize) -> (&[u8], &mut [u8]) {
        assert!(input_bytes <= IMAGES_OFFSET, "the wire allows {IMAGES_OFFSET} bytes and not {input_bytes}");
        // SAFETY: both lie in the mapping, which nobody can shrink, and do not overlap; any bytes are good. Nothing else in
        // this process points there while the exchange is borrowed. The server, which this process obeys anyway, touches the
        // memory only while no job is under way, and ends the process before it gives a job up.
        unsafe {
            let images = self.start.as_ptr().add(IMAGES_OFFSET);
            (
                slice::from_raw_parts(self.start.as_ptr(), input_bytes),
                slice::from_raw_parts_mut(images, EXCHANGE_BYTES - IMAGES_OFFSET),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use framehook_render_wire::IMAGES_BYTES_MAX;
    use rustix::fs::MemfdFlags;

    use super::*;

    fn file(bytes: usize) -> File {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create("exchange", flags).expect("a memory file"));
        file.set_len(bytes as u64).expect("sized");
        file
    }

    fn sealed(bytes: usize) -> File {
        let file = file(bytes);
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).expect("sealed");
        file
    }

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let file = sealed(EXCHANGE_BYTES);
        let mut exchange = Exchange::map(&file).expect("mapped");
        file.write_all_at(b"config and unit", 0).expect("written");
        let (input, images) = exchange.parts(15);
        assert_eq!(input, b"config and unit");
        images[IMAGES_BYTES_MAX - 5..].copy_from_slice(b"image");
        let mut image = [0; 5];
        file.read_exact_at(&mut image, (EXCHANGE_BYTES - 5) as u64).expect("read");
        assert_eq!(&image, b"image");
    }

    #[test]
    fn a_file_that_is_too_short_or_could_become_so_is_refused() {
        let refused = Exchange::map(sealed(EXCHANGE_BYTES - 1)).expect_err("too short");
        assert_eq!(refused.to_string(), format!("it has fewer than {EXCHANGE_BYTES} bytes"));
        let refused = Exchange::map(file(EXCHANGE_BYTES)).expect_err("not sealed");
        assert_eq!(refused.to_string(), "it could become smaller");
    }

    #[test]
    fn input_ends_before_the_images_begin() {
        let mut exchange = Exchange::map(sealed(EXCHANGE_BYTES)).expect("mapped");
        let (input, images) = exchange.parts(IMAGES_OFFSET);
        assert_eq!((input.as_ptr_range().end, images.len()), (images.as_ptr(), IMAGES_BYTES_MAX));
    }

    #[test]
    #[should_panic(expected = "the wire allows")]
    fn more_input_than_the_wire_allows_is_not_read() {
        Exchange::map(sealed(EXCHANGE_BYTES)).expect("mapped").parts(IMAGES_OFFSET + 1);
    }
}
