//! What the live tests stand on: a small network of namespaces, and ways to run the programs under test in it.
//!
//! Nothing here knows what a sample or a join is; the tests and `check_join` do.

pub mod internals;
pub mod lab;
pub mod preconditions;
pub mod scene;
pub mod tools;
