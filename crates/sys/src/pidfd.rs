//! Processes held by descriptor: signal them, wait for them, without pid reuse.
