//! What runs when the process ends normally.
