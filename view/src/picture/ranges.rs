//! What the axes show: the same for all flows of a picture, so that they can be compared.

use super::View;
use crate::points::{Series, State};
use crate::scale::{self, Unit};

pub(super) fn seconds(t_ns: i64) -> f64 {
    t_ns as f64 / 1e9
}

/// An axis in its unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) unit: Unit,
    /// In this unit.
    pub(super) range: (f64, f64),
}

impl Axis {
    fn new(range: (f64, f64), unit: fn(f64) -> Unit) -> Axis {
        let (low, high) = if range.1 > range.0 { range } else { (range.0, range.0 + 1.0) };
        let unit = unit(high.abs().max(low.abs()));
        Axis { unit, range: (low / unit.per, high / unit.per) }
    }
}

/// The axes of all panels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axes {
    pub(super) x_s: (f64, f64),
    pub(super) seq: Axis,
    pub(super) bytes: Axis,
    pub(super) rtt: Axis,
    pub(super) rate: Axis,
}

/// A window far above everything that is sent would press the graph flat: so much of the graph's height is left to it.
const ROOM_FOR_WINDOW: f64 = 0.25;
/// Air at the upper edge.
const AIR: f64 = 1.06;

pub(super) fn axes(flows: &[Series], view: &View) -> Axes {
    let times = || {
        flows.iter().flat_map(|s| {
            let states = [s.states.first(), s.states.last()].into_iter().flatten().map(|p| p.t_ns);
            let segments = [s.segments.first(), s.segments.last()].into_iter().flatten().map(|p| p.t_ns);
            states.chain(segments)
        })
    };
    let from = view.x_s.0.unwrap_or_else(|| seconds(times().min().unwrap_or(0)));
    let to = view.x_s.1.unwrap_or_else(|| seconds(times().max().unwrap_or(0)));
    let x_s = if to > from { (from, to) } else { (from, from + 1e-6) };
    let most = |line: fn(&State) -> Option<i64>| {
        flows.iter().flat_map(|s| s.states.iter().filter_map(line)).max().unwrap_or(0) as f64
    };
    let bytes = most(|s| s.cwnd_bytes).max(most(|s| s.in_flight)).max(most(|s| s.sacked_bytes));
    // a threshold that was set once, far above, does not press the rest flat
    let ssthresh = most(|s| s.ssthresh_bytes).min(1.5 * bytes);
    let rtt = most(|s| s.srtt_us).max(most(|s| s.min_rtt_us));
    Axes {
        x_s,
        seq: Axis::new(sequence(flows, view), scale::bytes),
        bytes: Axis::new((0.0, AIR * bytes.max(ssthresh)), scale::bytes),
        rtt: Axis::new((0.0, AIR * rtt), scale::microseconds),
        rate: Axis::new((0.0, AIR * rates(flows)), scale::rate),
    }
}

fn sequence(flows: &[Series], view: &View) -> (f64, f64) {
    let segments = || flows.iter().flat_map(|s| s.segments.iter());
    let acks = || flows.iter().flat_map(|s| s.acks.iter());
    let least = segments().map(|s| s.start).chain(acks().map(|a| a.ack)).min().unwrap_or(0) as f64;
    let most = segments().map(|s| s.end).chain(acks().map(|a| a.ack)).max().unwrap_or(1) as f64;
    let window = acks().filter_map(|a| a.window_end()).max().map_or(most, |w| w as f64);
    let height = (most - least).max(1.0);
    let high = window.clamp(most, most + ROOM_FOR_WINDOW * height).max(most + 0.04 * height);
    (view.y_bytes.0.unwrap_or(least), view.y_bytes.1.unwrap_or(high))
}

/// Rates of the first round trips can be a hundred times those of the rest: where they are, the axis ends at twice what
/// is seldom exceeded, and the panel's head says how far the lines go.
fn rates(flows: &[Series]) -> f64 {
    let mut all: Vec<i64> =
        flows.iter().flat_map(|s| &s.states).flat_map(|s| [s.pacing_rate, s.delivery_rate]).flatten().collect();
    all.sort_unstable();
    let at = |share: f64| all.get((all.len() as f64 * share) as usize).or(all.last()).map_or(0.0, |&v| v as f64);
    let (usual, most) = (at(0.9), at(1.0));
    if most > 3.0 * usual { 1.5 * usual } else { most }
}
