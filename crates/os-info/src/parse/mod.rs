//! Pure parsers of the kernel's files: bytes in, values out, whatever the bytes are.

pub(crate) mod cgroup;
