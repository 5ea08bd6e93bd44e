//! Exports: samples in the formats of other programs, whole views as columns, graphs, captures that can be shared.

pub mod anonymous;
pub mod columns;
pub mod csv;
pub mod json;
pub mod parquet;
pub mod pcapng;
pub mod tcpprobe;
pub mod xplot;
