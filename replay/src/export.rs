//! Exports: samples in the formats of other programs, whole views as columns, graphs.

pub mod columns;
pub mod csv;
pub mod json;
pub mod parquet;
pub mod pcapng;
pub mod tcpprobe;
pub mod xplot;
