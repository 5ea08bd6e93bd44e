//! What the join rebuilds from a trace of `--sample cwnd`, beside what the full trace had.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use tcpprobe_fixtures::sim::listing::list;
use tcpprobe_fixtures::sim::simulate;
use tcpprobe_fixtures::sim::thinning::Nearness;
use tcpprobe_fixtures::sim::world::World;

use crate::{joined, number, seeds};

/// Recordings of each world.
const SEEDS: u64 = 4;
/// Of 1000 packets, how many have the true edges, and the true bytes in flight.
const FLOOR: u64 = 990;
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

/// Are the edges that the join rebuilds from the thinned trace those of the full one?
pub(crate) fn is_near(world: &'static World) -> Result<()> {
    let mut near = Nearness::default();
    let mut words = String::new();
    let mut shown = 0;
    for seed in seeds(SEEDS)? {
        let recording = simulate(world, seed);
        let less = recording.thinned();
        let (_, rows) = joined(&less)?;
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
        ensure!(n * 1000 >= near.packets * FLOOR, "{name} is true at {n} of {} packets\n{words}", near.packets);
    }
    Ok(())
}
