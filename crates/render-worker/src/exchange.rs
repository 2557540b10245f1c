//! The exchange: memory that this process shares with its server.
//!
//! It is mapped before the lock. Behind it a job is read and images are given away without a system call, so that the calls that
//! read and write files need not be allowed.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use framehook_render_wire::{EXCHANGE_BYTES, IMAGES_BYTES_MAX, IMAGES_OFFSET};
use rustix::mm::{MapFlags, ProtFlags};

use crate::picture::OutOfMemory;

/// The exchange, mapped for as long as the process lives.
#[derive(Debug)]
pub(crate) struct Exchange {
    start: NonNull<u8>,
}

impl Exchange {
    /// # Errors
    /// What the kernel said, or `InvalidInput` for a file that is too short: touching what is not there would be a signal.
    pub(crate) fn map(file: impl AsFd) -> io::Result<Self> {
        if rustix::fs::fstat(&file)?.st_size < EXCHANGE_BYTES as i64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("it has fewer than {EXCHANGE_BYTES} bytes"),
            ));
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a place where nothing is.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), EXCHANGE_BYTES, access, MapFlags::SHARED, file, 0) }?;
        NonNull::new(start.cast()).map(|start| Self { start }).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The first bytes, copied: the server could change them, and a parser must not read twice.
    ///
    /// # Panics
    /// If so many do not lie before the images.
    pub(crate) fn input(&self, bytes: usize) -> Result<Vec<u8>, OutOfMemory> {
        assert!(bytes <= IMAGES_OFFSET, "the wire allows {IMAGES_OFFSET} bytes and not {bytes}");
        let mut input = Vec::new();
        input.try_reserve_exact(bytes).map_err(|_| OutOfMemory)?;
        // SAFETY: `bytes` bytes lie in the mapping, which nobody can shrink, and there is room for them in memory of our own.
        // They may change meanwhile; any bytes are good.
        unsafe {
            ptr::copy_nonoverlapping(self.start.as_ptr(), input.as_mut_ptr(), bytes);
            input.set_len(bytes);
        }
        Ok(input)
    }

    /// Puts a part of the images `offset` bytes behind their beginning.
    ///
    /// # Panics
    /// If it does not fit there.
    pub(crate) fn put_image(&self, offset: usize, bytes: &[u8]) {
        let fits = offset.checked_add(bytes.len()).is_some_and(|end| end <= IMAGES_BYTES_MAX);
        assert!(fits, "{} bytes at {offset} do not fit into {IMAGES_BYTES_MAX}", bytes.len());
        // SAFETY: the target lies in the mapping, of which nothing in this process holds a reference.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(IMAGES_OFFSET + offset), bytes.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use rustix::fs::MemfdFlags;

    use super::*;

    fn file(bytes: usize) -> File {
        let file = File::from(rustix::fs::memfd_create("exchange", MemfdFlags::CLOEXEC).expect("a memory file"));
        file.set_len(bytes as u64).expect("sized");
        file
    }

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let file = file(EXCHANGE_BYTES);
        let exchange = Exchange::map(&file).expect("mapped");
        file.write_all_at(b"config and unit", 0).expect("written");
        assert_eq!(exchange.input(15).expect("memory"), b"config and unit");
        exchange.put_image(IMAGES_BYTES_MAX - 5, b"image");
        let mut image = [0; 5];
        file.read_exact_at(&mut image, (EXCHANGE_BYTES - 5) as u64).expect("read");
        assert_eq!(&image, b"image");
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let refused = Exchange::map(file(EXCHANGE_BYTES - 1)).expect_err("too short");
        assert_eq!(refused.to_string(), format!("it has fewer than {EXCHANGE_BYTES} bytes"));
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn nothing_is_put_behind_its_end() {
        Exchange::map(file(EXCHANGE_BYTES)).expect("mapped").put_image(IMAGES_BYTES_MAX - 4, b"image");
    }
}
