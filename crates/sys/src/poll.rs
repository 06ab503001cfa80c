//! Waiting for readiness without the loop: `poll(2)`.
