//! Sockets: pairs, listeners, accept, and the questions asked of them.
