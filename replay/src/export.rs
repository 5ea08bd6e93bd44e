//! Samples, and packets with their states, in the formats of other programs.

pub mod pcapng;
pub mod tcpprobe;
