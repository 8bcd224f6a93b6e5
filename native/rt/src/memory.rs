//! Memory given back to the system after a burst of work that needed much more than it leaves behind.

/// Gives unused heap memory back to the system. Takes milliseconds per 100 MiB; for the configuration's thread, never for
/// a worker's.
#[allow(
    unsafe_code,
    reason = "malloc_trim(3) has no safe wrapper in any crate at hand"
)]
pub fn release_unused() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointers and may be called by any thread at any time (MT-Safe).
    unsafe {
        libc::malloc_trim(0);
    }
}
