//! How much freed memory this process keeps for the next picture.

/// Freed bytes that are kept, and the size from which an allocation is a mapping of its own, in bytes. The planes of a 720p
/// picture have 1.4 MB and those of a 4K picture 12 MB; the largest that the allocator takes for a mapping's size is 32 MiB.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: libc::c_int = 32 << 20;

/// Keeps the planes' memory from one picture to the next. The allocator would give it back after each, and the kernel would
/// hand out and clear every page anew: about half a millisecond of system time for a picture of 720p. To be called before the
/// first picture.
pub(crate) fn keep_freed() {
    // SAFETY: changes numbers of the allocator; there is one thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        // Neither is refused: both are within what mallopt(3) allows.
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}
