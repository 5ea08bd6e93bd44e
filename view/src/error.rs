//! Why there is no picture.

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] tcpprobe_trace::Error),
    /// The trace has no such flow.
    #[error("no flow {0}; `tcpprobe show` lists them")]
    NoFlow(i64),
    /// Nothing of the flow lies in the range that was asked for.
    #[error("flow {flow}: no sample of it has a sender's state{}; `tcpprobe show` says what the trace holds", if *ranged { " in this range of --x" } else { "" })]
    Empty {
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
