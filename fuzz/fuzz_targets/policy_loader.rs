//! `cargo fuzz run -s none policy_loader`

#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    targets::policy_loader(data);
});
