//! The worker's descriptors under the names of mio, Tokio and axum.

#[cfg(feature = "axum")]
mod axum;
mod mio;
#[cfg(feature = "tokio")]
pub(crate) mod tokio;
