//! The integration tests, one binary: quick to link, and one place to look.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "tests say what they mean"
)]

mod acks;
mod acks_model;
mod apps;
mod architecture;
mod authored;
mod authoring;
mod authzen;
mod cli;
mod compositions;
mod conformance;
mod crash;
mod door;
mod evidence;
mod faults;
mod fuzz_corpus;
mod generated;
mod hub_port;
mod inbox;
mod inbox_rig;
mod journal;
mod keeping;
mod lattice;
mod llm;
mod llm_budgets;
mod llm_convention;
mod llm_provider;
mod llm_sdks;
mod oracle;
mod peers;
mod requirements;
mod review;
mod schemas;
mod secrets;
mod sessions;
mod shadow;
mod support;
mod support_policy;
mod tasks;
mod tutorial;
mod upstream;
