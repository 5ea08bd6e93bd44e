//! Pictures of a trace.
//!
//! [`read`] makes the points of a flow, [`thin`] fewer of them without hiding what matters, [`picture`] draws them as
//! SVG or PNG, [`report`] makes pages of them for a browser. Reads the trace through its public views only. Must not know
//! BPF or the terminal.

mod error;
pub mod flows;
mod html;
pub mod picture;
pub mod points;
pub mod read;
pub mod report;
pub mod scale;
pub mod thin;

pub use error::Error;
