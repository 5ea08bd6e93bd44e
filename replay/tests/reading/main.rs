//! Captures in, packets out: link types, lengths, cuts and file formats, each with frames and files made here byte by
//! byte, so that what is expected does not come from the code under test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod anonymous;
mod build;
mod files;
mod files_broken;
mod hostile;
mod lengths;
mod links;
mod links_rare;
mod pcapng;
mod real;
mod tunnels;
