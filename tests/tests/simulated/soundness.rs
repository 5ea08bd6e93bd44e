//! Is the simulation sound? Nothing here joins.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use tcpprobe_fixtures::sim::worlds::WORLDS;
use tcpprobe_fixtures::sim::{Tally, simulate};
use tcpprobe_fixtures::trace::MONO_NS;
use tcpprobe_trace::sample::{Kind, Phase};

/// Worlds in which nothing happens would prove nothing.
pub(crate) fn every_feature_occurs() -> Result<()> {
    let mut all = Tally::default();
    for world in WORLDS {
        all.add(&simulate(world, 0).tally);
    }
    let never: Vec<&str> = all.named().into_iter().filter(|(_, n)| *n == 0).map(|(name, _)| name).collect();
    eprintln!("{:?}", all.named());
    ensure!(never.is_empty(), "never happened: {never:?}");
    Ok(())
}

/// Whatever the path does, what was written arrives, once and in order.
pub(crate) fn what_is_over_was_delivered() -> Result<()> {
    for world in WORLDS {
        let recording = simulate(world, 0);
        let mut over = 0;
        for (i, facts) in recording.connections.iter().enumerate() {
            for (written, received) in facts.carried {
                ensure!(received <= written, "{} connection {i}: more bytes arrived than were written", world.name);
                ensure!(
                    !facts.is_over || received == written,
                    "{} connection {i}: {received} of {written} bytes arrived",
                    world.name
                );
            }
            over += usize::from(facts.is_over);
        }
        let all = recording.connections.len();
        ensure!(over * 2 > all, "{}: {over} of {all} connections came to their end", world.name);
    }
    Ok(())
}

/// A packet's true sample is of its direction, has its first byte, and was taken on the right side of the tap.
pub(crate) fn the_truth_is_consistent() -> Result<()> {
    for world in WORLDS {
        let recording = simulate(world, 1);
        let taken = recording.samples.iter().chain(&recording.missing);
        let samples: BTreeMap<(u64, u64), _> = taken.map(|t| ((t.sample.flow, t.sample.serial), &t.sample)).collect();
        let near = recording.world.tap.ahead_ns == 0 && world.recorder.ends == [world.tap.at] && !world.tap.steps;
        for (number, frame) in (1..).zip(&recording.frames) {
            let wire = recording.wire(frame);
            for truth in &frame.truths {
                for serial in &truth.serials {
                    let at = format!("{} packet {number} sample {}#{serial}", world.name, truth.flow);
                    let Some(sample) = samples.get(&(truth.flow, *serial)) else {
                        anyhow::bail!("{at}: there is no such sample");
                    };
                    ensure!(sample.kind.is_out() == truth.is_out, "{at}: of the other direction");
                    let Some(segment) = sample.segment else { anyhow::bail!("{at}: names no segment") };
                    let space = segment.len + u32::from(segment.flags & 1) + u32::from(segment.flags >> 1 & 1);
                    let from = wire.seq.wrapping_sub(segment.seq);
                    let empty = frame.wire.end() == frame.wire.start;
                    ensure!(from < space || empty && from <= space, "{at}: has not its first byte");
                    let delay = frame.ts_ns - (sample.mono_ns - MONO_NS);
                    ensure!(!near || (delay > 0) == truth.is_out, "{at}: {delay} ns apart");
                    let tsval = wire.timestamps.map(|t| t.0).filter(|_| segment.tsval.is_some());
                    ensure!(tsval.is_none_or(|t| segment.tsval == Some(t)), "{at}: another timestamp");
                }
            }
        }
        // without losses everything that was sampled is in the capture
        let whole = near && world.tap.drops == 0 && world.tap.from_ns == 0 && recording.tally.local_drops == 0;
        let mut unseen: BTreeMap<(u64, u64), _> = samples
            .into_iter()
            .filter(|(_, s)| s.kind.is_out() && s.phase == Phase::Transmit || s.kind == Kind::Ack)
            .collect();
        for truth in recording.frames.iter().flat_map(|f| &f.truths) {
            for serial in &truth.serials {
                unseen.remove(&(truth.flow, *serial));
            }
        }
        let first = unseen.keys().next();
        ensure!(!whole || first.is_none(), "{}: sample {first:?} has no packet", world.name);
    }
    Ok(())
}

/// The list of regressions relies on it.
pub(crate) fn a_seed_says_everything() -> Result<()> {
    for world in WORLDS.iter().take(3) {
        let [a, b, other] = [5, 5, 6].map(|seed| format!("{:?}", simulate(world, seed)));
        ensure!(a == b, "{}: the same seed made two recordings", world.name);
        ensure!(a != other, "{}: two seeds made the same recording", world.name);
    }
    Ok(())
}
