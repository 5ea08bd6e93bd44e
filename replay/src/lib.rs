//! Captures, and their join to recorded samples.
//!
//! [`capture`] reads capture files frame by frame, [`packet`] makes one [`packet::Packet`] of each TCP segment,
//! [`join`] gives each packet its sender's state, [`live`] takes captures. [`import`] makes samples of other programs'
//! logs, [`export`] the reverse. [`anonymize`] rewrites addresses. But for [`live`] everything runs without root, on any
//! system. Must not know BPF or the terminal.

pub mod anonymize;
mod batches;
pub mod capture;
mod clocks;
mod copies;
mod delays;
mod echoes;
mod ends;
pub mod export;
mod flows;
mod hash;
mod ids;
pub mod import;
mod incarnations;
pub mod join;
pub mod live;
mod matching;
mod order;
mod outcomes;
mod overtaken;
pub mod packet;
mod pieces;
mod readers;
mod rebuild;
mod reconstruct;
mod scoreboard;
mod segments;
pub mod seq;
mod sightings;
mod spans;
mod stamps;
mod steps;
mod times;
mod tracks;
mod translation;
mod turns;
mod views;
