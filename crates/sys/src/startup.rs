//! What the environment held before `main`.
