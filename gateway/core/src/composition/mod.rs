//! Compositions: trees of agents. One resolver turns a tree into what a worker runs with; one lattice says what each
//! node of it may do at most. Nothing else in Warden reads a composition.
//!
//! What stands at a node, and what becomes of it:
//!
//! | member | rule | in the projection | in what is enforced |
//! |---|---|---|---|
//! | `instructions` | appended | the root's text, then the overlay's | never: a text gives no rights |
//! | `modelOverride` | overrides | the overlay's, else the root's | the same |
//! | `permission` | restricts | the overlay's map, else the root's, as a whole | the minimum of every map that has a say |
//!
//! - [`tree`] lays a document out flat, so that no walk recurses;
//! - [`resolve`] projects it: the first of two equal slugs wins, and is kept even where it says nothing;
//! - [`permission`] is the order deny < ask < allow over calls; [`effective`] is its minimum down a tree;
//! - [`register`] reads a document strictly, before anybody is bound to it; [`nodes`] is what it finds;
//! - [`delegate`] is a node that acts.

pub mod delegate;
pub mod problem;
pub mod tree;
pub mod resolve;
pub mod permission;
pub mod effective;
pub mod nodes;
pub mod register;
pub mod idle;

#[cfg(test)]
mod tests;
