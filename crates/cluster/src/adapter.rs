//! Adapters that let mio, Tokio and axum use a worker's listener.
//!
//! Each adapter implements a trait of its library, or wraps the listener in a type of its own. The
//! listener does the work.

#[cfg(feature = "axum")]
mod axum;
mod mio;
#[cfg(feature = "tokio")]
pub(crate) mod tokio;
