//! Exports: samples in the formats of other programs, whole views as columns.

pub mod columns;
pub mod csv;
pub mod json;
pub mod parquet;
pub mod tcpprobe;
