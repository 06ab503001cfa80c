//! Node's os module for Rust, and what the container really allows.
