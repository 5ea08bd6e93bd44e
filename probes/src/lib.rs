//! Samples TCP senders inside the Linux kernel.
//!
//! Owns the BPF programs (`bpf/`, in C), loading and attaching them, the check of what the kernel offers, and the
//! way from lanes and ring buffer to [`tcpprobe_trace::sample::Sample`]. Must not know SQL, captures or the terminal.

mod btf;
mod bytes;
pub mod check;
pub mod clock;
mod context;
mod decode;
mod filter;
mod internals;
mod missed;
use tcpprobe_trace::fields;
mod lanes;
mod layout;
mod merge;
mod plan;
mod records;
mod refusal;
mod sampler;
mod survey;
pub mod synthetic;

pub use context::records_id;
pub use decode::{BadRecord, Event};
pub use filter::{Filter, FilterError};
pub use plan::{Backend, Point};
pub use records::{Decoder, Records};
pub use sampler::{Attached, Cost, Error, Losses, Options, Sampler};
pub use survey::{Obstacle, Survey, SurveyedPoint, Trial, Trials, Verdict, survey};
