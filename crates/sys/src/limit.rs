//! Resource limits of this process.
