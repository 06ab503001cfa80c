//! Messages that carry descriptors: `sendmsg(2)` and `recvmsg(2)` with owned descriptors.
