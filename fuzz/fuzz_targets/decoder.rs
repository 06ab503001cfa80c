//! The fuzz target for cargo-fuzz: `cargo +nightly fuzz run decoder --features libfuzzer`.
#![no_main]

mod attack;
mod bounded;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    attack::attack(data);
});
