//! `cargo fuzz run -s none secret_stream`

#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    targets::secret_stream(data);
});
