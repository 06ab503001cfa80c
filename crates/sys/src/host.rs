//! What the kernel says of this machine, for `os-info`.
