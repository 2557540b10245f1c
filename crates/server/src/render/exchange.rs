//! One worker's exchange: memory that both sides have mapped.
//!
//! The worker may write there at any time, whatever was agreed, so bytes are copied out once and only the copy is looked at.

use std::fs::File;
use std::io;
use std::sync::Arc;

use framehook_render_wire::{EXCHANGE_BYTES, IMAGES_BYTES_MAX, IMAGES_OFFSET, ImageAt};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::retry_on_intr;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory as _, VolatileMemoryError, WriteVolatile as _};

/// What may stay allocated between jobs. An ordinary job uses a few hundred KiB; only the rare giant pays for fresh pages.
pub(super) const KEPT_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Exchange {
    file: Arc<File>,
    memory: MmapRegion,
    /// How far from their beginnings input and images have pages.
    input_pages_bytes: usize,
    images_pages_bytes: usize,
}

impl Exchange {
    /// Memory of a size that nobody can change, without pages yet.
    pub(super) fn new() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create("framehook-exchange", flags)?);
        file.set_len(EXCHANGE_BYTES as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let file = Arc::new(file);
        let memory = MmapRegion::from_file(FileOffset::from_arc(Arc::clone(&file), 0), EXCHANGE_BYTES);
        let memory = memory.map_err(io::Error::other)?;
        Ok(Self { file, memory, input_pages_bytes: 0, images_pages_bytes: 0 })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Puts config and unit where the worker looks for them, one after the other.
    ///
    /// # Errors
    /// When they are longer than the wire allows or the kernel has no memory for them.
    pub(super) fn put_input(&mut self, config: &[u8], unit: &[u8]) -> io::Result<()> {
        let bytes = config.len() + unit.len();
        if bytes > IMAGES_OFFSET {
            return Err(io::Error::other(format!("the wire allows {IMAGES_OFFSET} bytes of input and not {bytes}")));
        }
        if bytes > self.input_pages_bytes {
            self.make_pages(0, bytes)?;
            self.input_pages_bytes = bytes;
        }
        self.memory.get_slice(0, config.len()).map_err(not_copied)?.copy_from(config);
        self.memory.get_slice(config.len(), unit.len()).map_err(not_copied)?.copy_from(unit);
        Ok(())
    }

    /// A copy of an image.
    ///
    /// # Errors
    /// When it does not lie among the images or the kernel has no memory for what the worker has left out.
    pub(super) fn take_image(&mut self, at: &ImageAt) -> io::Result<Vec<u8>> {
        let (offset, bytes) = (at.offset as usize, at.bytes as usize);
        let end = offset + bytes;
        if end > IMAGES_BYTES_MAX {
            return Err(io::Error::other(format!("the images have {IMAGES_BYTES_MAX} bytes, and one ends at {end}")));
        }
        if end > self.images_pages_bytes {
            self.make_pages(IMAGES_OFFSET, end)?;
            self.images_pages_bytes = end;
        }
        let mut image = Vec::with_capacity(bytes);
        let place = self.memory.get_slice(IMAGES_OFFSET + offset, bytes).map_err(not_copied)?;
        image.write_all_volatile(&place).map_err(not_copied)?;
        Ok(image)
    }

    /// Bytes of all pages that there are, whoever made them.
    pub(super) fn allocated_bytes(&self) -> io::Result<usize> {
        // In units of 512 bytes, whatever the file system's blocks are: stat(2).
        Ok(rustix::fs::fstat(&self.file)?.st_blocks as usize * 512)
    }

    /// Gives all pages back.
    pub(super) fn give_back(&mut self) -> io::Result<()> {
        (self.input_pages_bytes, self.images_pages_bytes) = (0, 0);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(retry_on_intr(|| rustix::fs::fallocate(&self.file, flags, 0, EXCHANGE_BYTES as u64))?)
    }

    /// Has the kernel make the pages that are still missing. To touch one would do that too, but where the kernel counts what
    /// it has promised, and has promised all, touching is a signal and the end of this process; this is an error.
    fn make_pages(&self, offset: usize, bytes: usize) -> io::Result<()> {
        let (offset, bytes) = (offset as u64, bytes as u64);
        Ok(retry_on_intr(|| rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, bytes))?)
    }
}

fn not_copied(error: VolatileMemoryError) -> io::Error {
    io::Error::other(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use framehook_render_wire::Size;

    use super::*;

    fn image_at(offset: usize, bytes: usize) -> ImageAt {
        ImageAt { offset: offset as u32, bytes: bytes as u32, size: Size::new(2, 2) }
    }

    #[test]
    fn what_one_side_puts_there_the_other_takes() {
        let mut exchange = Exchange::new().expect("memory");
        exchange.put_input(b"config", b" and unit").expect("fits");
        let mut input = [0; 15];
        exchange.file().read_exact_at(&mut input, 0).expect("read");
        assert_eq!(&input, b"config and unit");

        exchange.file().write_all_at(b"image", (EXCHANGE_BYTES - 5) as u64).expect("written");
        assert_eq!(exchange.take_image(&image_at(IMAGES_BYTES_MAX - 5, 5)).expect("fits"), b"image");
        // One that the worker only speaks of.
        assert_eq!(exchange.take_image(&image_at(7, 3)).expect("fits"), [0; 3]);
    }

    #[test]
    fn nobody_can_change_its_size() {
        let exchange = Exchange::new().expect("memory");
        for bytes in [0, EXCHANGE_BYTES - 1, EXCHANGE_BYTES + 1] {
            let refused = exchange.file().set_len(bytes as u64).expect_err("it is sealed");
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{refused}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut exchange = Exchange::new().expect("memory");
        let unit = vec![1; IMAGES_OFFSET];
        exchange.put_input(b"", &unit).expect("as much as the wire allows");
        let refused = exchange.put_input(b"c", &unit).expect_err("a byte too many");
        assert!(refused.to_string().contains("not 8454145"), "{refused}");
        let refused = exchange.take_image(&image_at(IMAGES_BYTES_MAX - 1, 2)).expect_err("a byte too far");
        assert!(refused.to_string().contains("ends at 67108865"), "{refused}");
    }

    #[test]
    fn pages_are_there_until_they_are_given_back() {
        let allocated = |exchange: &Exchange| exchange.allocated_bytes().expect("a file");
        let mut exchange = Exchange::new().expect("memory");
        assert_eq!(allocated(&exchange), 0);
        exchange.make_pages(0, 50_000).expect("memory");
        assert!(allocated(&exchange) >= 50_000);
        exchange.put_input(b"config", &[1; 100_000]).expect("fits");
        exchange.take_image(&image_at(0, 20_000)).expect("fits");
        assert!(allocated(&exchange) >= 120_006);
        // Those that the worker makes are pages too.
        exchange.file().write_all_at(&[1; 9 << 20], IMAGES_OFFSET as u64).expect("written");
        assert!(allocated(&exchange) >= 9 << 20);
        exchange.give_back().expect("given back");
        assert_eq!(allocated(&exchange), 0);
        assert_eq!((exchange.input_pages_bytes, exchange.images_pages_bytes), (0, 0));
    }
}
