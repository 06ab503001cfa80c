//! Shared memory: memfd, seals, mappings.
