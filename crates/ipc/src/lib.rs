//! Typed messages with handles inside, between processes: fast, bounded, safe against a hostile peer.
