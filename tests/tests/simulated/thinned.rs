//! What the join rebuilds from a trace of `--sample cwnd`, beside what the full trace had.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use tcpprobe_fixtures::sim::listing::list;
use tcpprobe_fixtures::sim::simulate;
use tcpprobe_fixtures::sim::thinning::Nearness;
use tcpprobe_fixtures::sim::world::World;

use crate::{joined, number, seeds};
use tcpprobe_replay::join::Batching;

/// Recordings of each world.
const SEEDS: u64 = 8;
/// Of 1000 packets, how many have the true edges, and the true bytes in flight.
const FLOOR: u64 = 990;
/// The same where a poll of the card brings up to eight packets past the tap before TCP takes the first, and nothing
/// names the one that made TCP send: in recovery cwnd does not bound what is sent, segments of one size leave room for
/// either, a slow path's host is full and waits for itself, times are cut to microseconds. Off by one ACK, then.
const IN_BATCHES: u64 = 980;
/// The same where the application holds its socket for milliseconds while a near peer answers within microseconds: the
/// ACKs that wait are merged into one (`tcp_add_to_backlog`), and the capture shows them as if each had been taken up.
const MERGED: u64 = 940;
/// Faults that are shown.
const MOST_SHOWN: usize = 20;

/// Can the window be rebuilt? Only where each packet is captured as the sender's host saw it: elsewhere the order in
/// which the sender sent and received is not known to anybody.
pub(crate) fn can_be_told(world: &World) -> bool {
    let (tap, recorder) = (world.tap, world.recorder);
    recorder.ends == [tap.at]
        && (recorder.holes, recorder.unseen, recorder.from_ns) == (0, 0, 0)
        && (tap.drops, tap.from_ns) == (0, 0)
        && world.hosts.dropped_after_tap == 0
        && !tap.steps
}

/// How many of a world's packets have to be right, of 1000.
fn floor(world: &World) -> u64 {
    match world.name {
        "busy_near" | "busy_unstamped" => MERGED,
        "harsh" | "harsh_functions" | "harsh_unstamped" => IN_BATCHES,
        "crowded_unstamped" | "long" | "microseconds" | "no_gro" => IN_BATCHES,
        _ => FLOOR,
    }
}

/// Are the edges that the join rebuilds from the thinned trace those of the full one?
pub(crate) fn is_near(world: &'static World) -> Result<()> {
    let mut near = Nearness::default();
    let mut words = String::new();
    let mut shown = 0;
    for seed in seeds(SEEDS)? {
        let recording = simulate(world, seed);
        let less = recording.thinned();
        let (_, rows, violations) = joined(&less, Batching::default())?;
        ensure!(violations.is_empty(), "world {} seed {seed}: `verify` finds\n{}", world.name, violations.join("\n"));
        let mut faults = Vec::new();
        near.add(&recording.nearness(&less, &rows, &mut faults));
        for (connection, packet, what) in &faults {
            if shown < MOST_SHOWN {
                let _ =
                    writeln!(words, "world {} seed {seed} connection {connection} packet {packet} {what}", world.name);
            }
            shown += 1;
        }
        if let Some(connection) = number("TCPPROBE_SIM_FLOW")? {
            let connection = connection as usize;
            let marked = faults.iter().filter(|f| f.0 == connection).map(|f| f.1).collect();
            eprintln!("{}", list(&recording, connection, &[], &marked));
            for (_, packet, what) in faults.iter().filter(|f| f.0 == connection) {
                eprintln!("packet {packet} {what}");
            }
        }
    }
    eprintln!("thinned {}: {near:?}", world.name);
    for (name, n) in [("snd_una", near.una), ("snd_nxt", near.nxt), ("bytes_in_flight", near.in_flight)] {
        ensure!(n * 1000 >= near.packets * floor(world), "{name} is true at {n} of {} packets\n{words}", near.packets);
    }
    Ok(())
}
