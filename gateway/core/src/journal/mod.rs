//! The journal's formats: [`record`]s, the [`frame`]s that carry them, the Merkle [`tree`] over them with its [`proof`]s, the signed
//! [`note`]s that fix it, and the hot [`state`] they add up to. Files are the adapters' business.

pub mod frame;
pub mod note;
pub mod proof;
pub mod record;
pub mod state;
pub mod tree;
