//! Node's child_process for Rust: spawn, exec, execFile, fork, at vfork speed, without zombies.
