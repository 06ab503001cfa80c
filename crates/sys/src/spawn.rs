//! Starting a process: `clone(CLONE_VM | CLONE_VFORK | CLONE_PIDFD)` on an own stack.
