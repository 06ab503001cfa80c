//! The one mio loop of brood: readiness, deadlines, wake-ups, signals.
