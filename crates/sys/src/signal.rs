//! Signals by name, and opt-in handlers that write to an eventfd.
