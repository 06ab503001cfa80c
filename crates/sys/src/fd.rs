//! Descriptors: what they are, duplicates, close-on-exec.
