//! Why there is no picture.

use std::path::PathBuf;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] tcpprobe_trace::Error),
    /// The trace has no such flow.
    #[error("{trace}: no flow {flow}; `tcpprobe show {trace}` lists them", trace = trace.display())]
    NoFlow {
        /// The trace.
        trace: PathBuf,
        /// The flow asked for.
        flow: i64,
    },
    /// Nothing of the flow lies in the range that was asked for.
    #[error(
        "{trace}: flow {flow}: no sample of it has a sender's state{}; `tcpprobe show {trace}` says what the trace holds",
        if *ranged { " in this range of --x" } else { "" },
        trace = trace.display()
    )]
    Empty {
        /// The trace.
        trace: PathBuf,
        /// The flow.
        flow: i64,
        /// Was only a part of its time asked for?
        ranged: bool,
    },
    /// More flows than a picture has room for.
    #[error("{asked} flows: a picture has room for {most}; leave some out, or use `tcpprobe report`")]
    TooMany {
        /// How many were asked for.
        asked: usize,
        /// How many there can be.
        most: usize,
    },
    /// The picture could not be drawn.
    #[error("cannot draw: {0}")]
    Draw(String),
    /// The output cannot be written.
    #[error("cannot write the picture: {0}")]
    Write(#[from] std::io::Error),
}
