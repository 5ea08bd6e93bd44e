//! Tries inputs on readers: those of a corpus, and what becomes of them when they are damaged in ways that parsers fear.
//!
//! [`mutate`] damages bytes, [`run`] hands them to a reader for a while and keeps the one that it fails at. An input
//! follows from a seed, so that a run can be repeated. Must not know what is read.

pub mod mutate;
pub mod run;
