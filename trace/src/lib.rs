//! What a sample, a flow and a session are, and the SQLite file that holds them.
//!
//! Owns the one list of a sample's fields ([`fields`]), that of congestion controls' internal values ([`internals`]), the types that pass between recording and joining
//! ([`sample`]), the clock anchors ([`clock`]) and everything that is SQL: schema, writer, reader, the tables that a
//! join fills, and read-only queries. Must not know BPF or captures.

pub mod anonymous;
pub mod backlog;
pub mod clock;
pub mod columns;
mod error;
pub mod fields;
mod guard;
pub mod import;
pub mod internals;
pub mod join;
mod layout;
pub mod packet_states;
mod pages;
pub mod query;
pub mod reader;
pub mod received;
pub mod rows;
pub mod sample;
mod schema;
mod session;
mod store;
pub mod verify;
pub mod writer;

pub use error::Error;
pub use schema::{APPLICATION_ID, READY, Ready, SCHEMA_VERSION, WAITS, column_docs};
pub use store::upgrade;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
