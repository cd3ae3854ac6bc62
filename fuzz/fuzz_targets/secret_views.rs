//! `cargo fuzz run -s none secret_views`

#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    targets::secret_views(data);
});
