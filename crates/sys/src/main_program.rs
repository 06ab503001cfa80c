//! The main program of this process, and whether it has begun.

use std::ffi::{c_int, c_void};
use std::fs;

/// Whether the code at `address` belongs to the main program, and not to a library that it loads.
pub(crate) fn contains(address: usize) -> bool {
    let mut search = Search { address, is_found: false };
    // SAFETY: the callback gets this pointer, and uses it only during the call.
    unsafe { libc::dl_iterate_phdr(Some(first_object), (&raw mut search).cast()) };
    search.is_found
}

struct Search {
    address: usize,
    is_found: bool,
}

/// Looks at the first object, which is the main program, and ends the iteration.
unsafe extern "C" fn first_object(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    search: *mut c_void,
) -> c_int {
    // SAFETY: `contains` passes its own search, which nothing else uses meanwhile.
    let search = unsafe { &mut *search.cast::<Search>() };
    // SAFETY: the loader passes a whole structure that lives during the call.
    let info = unsafe { &*info };
    if info.dlpi_phdr.is_null() {
        return 1;
    }
    // SAFETY: the loader keeps that many headers mapped.
    let headers =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    search.is_found =
        headers.iter().filter(|header| header.p_type == libc::PT_LOAD).any(|header| {
            let begin = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
            search.address.wrapping_sub(begin) < header.p_memsz as usize
        });
    1
}

/// Whether this process has a single thread, as before `main`. Where `/proc` is missing, it is taken
/// to have one.
pub(crate) fn has_one_thread() -> bool {
    fs::read_dir("/proc/self/task").map_or(true, |threads| threads.count() <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_this_program_is_told_from_that_of_a_library() {
        assert!(contains(contains as *const () as usize));
        // Where libc is linked statically, it is a part of the program.
        if cfg!(target_feature = "crt-static") {
            return;
        }
        // SAFETY: two C strings; the search looks at all objects.
        let place = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"getpid".as_ptr()) };
        assert!(!place.is_null() && !contains(place as usize));
    }

    #[test]
    fn the_threads_of_this_process_are_counted() {
        let (end, waits) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || waits.recv());
        assert!(!has_one_thread());
        drop(end);
        assert!(thread.join().unwrap().is_err());
    }
}
