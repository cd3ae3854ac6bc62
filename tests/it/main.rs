//! The integration tests, one binary: quick to link, and one place to look.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "tests say what they mean"
)]

mod architecture;
mod authored;
mod authoring;
mod authzen;
mod cli;
mod conformance;
mod crash;
mod door;
mod evidence;
mod faults;
mod fuzz_corpus;
mod generated;
mod journal;
mod keeping;
mod oracle;
mod peers;
mod review;
mod schemas;
mod secrets;
mod shadow;
mod support;
mod support_policy;
mod tutorial;
mod upstream;
