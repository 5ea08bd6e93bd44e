//! Samples in the formats of other programs.

pub mod tcpprobe;
