//! What the live view knows of each flow: its last state, and how that has moved.
//!
//! Owns sums, rates and the order of flows. Must not know the terminal or where events come from.

use std::collections::{HashMap, VecDeque};

use tcpprobe_probes::Event;
use tcpprobe_trace::fields::index;
use tcpprobe_trace::sample::{Flow, Kind, Phase, Sample, State};

/// Rates are those of so long a time, ns; so long are a flow's points apart.
pub(super) const STEP_NS: i64 = 500_000_000;
/// Points that are kept: two minutes.
pub(super) const POINTS: usize = 240;
/// A flow that has ended is shown so long, ns.
const LINGER_NS: i64 = 5_000_000_000;
/// `TCP_CLOSE` of `include/net/tcp_states.h`.
const TCP_CLOSE: i64 = 7;

/// How flows are sorted, the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Rate,
    Loss,
    Rtt,
}

impl Order {
    pub(super) fn name(self) -> &'static str {
        match self {
            Order::Rate => "rate",
            Order::Loss => "loss",
            Order::Rtt => "RTT",
        }
    }

    pub(super) fn next(self) -> Order {
        match self {
            Order::Rate => Order::Loss,
            Order::Loss => Order::Rtt,
            Order::Rtt => Order::Rate,
        }
    }
}

/// A flow at the end of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    /// CLOCK_MONOTONIC.
    pub(super) mono_ns: i64,
    pub(super) sent_bits_per_s: f64,
    pub(super) received_bits_per_s: f64,
    pub(super) cwnd_bytes: Option<f64>,
    pub(super) in_flight_bytes: Option<f64>,
    pub(super) srtt_us: Option<f64>,
}

/// A flow that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) flow: Flow,
    pub(super) state: State,
    pub(super) samples: u64,
    pub(super) sent_bytes: u64,
    pub(super) retransmitted_bytes: u64,
    pub(super) retransmissions: u64,
    pub(super) points: VecDeque<Point>,
    step_sent_bytes: u64,
    step_received_bytes: u64,
    ended_ns: Option<i64>,
}

impl Watched {
    fn new(flow: Flow) -> Watched {
        Watched {
            flow,
            state: State::default(),
            samples: 0,
            sent_bytes: 0,
            retransmitted_bytes: 0,
            retransmissions: 0,
            points: VecDeque::new(),
            step_sent_bytes: 0,
            step_received_bytes: 0,
            ended_ns: None,
        }
    }

    pub(super) fn field(&self, field: usize) -> Option<i64> {
        self.state.get(field)
    }

    pub(super) fn last(&self) -> Point {
        self.points.back().copied().unwrap_or_default()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended_ns.is_some()
    }

    /// Of the bytes that it sent, those that it sent again; since it is watched.
    pub(super) fn retransmitted_share(&self) -> f64 {
        if self.sent_bytes == 0 { 0.0 } else { self.retransmitted_bytes as f64 / self.sent_bytes as f64 }
    }

    pub(super) fn cwnd_bytes(&self) -> Option<f64> {
        let (cwnd, mss) = (self.field(const { index("snd_cwnd") })?, self.field(const { index("mss") })?);
        Some(cwnd as f64 * mss as f64)
    }

    pub(super) fn in_flight_bytes(&self) -> Option<f64> {
        let number = |field| self.field(field).map(|n| n as u32);
        let (nxt, una) = (number(const { index("snd_nxt") })?, number(const { index("snd_una") })?);
        Some(f64::from(nxt.wrapping_sub(una)))
    }

    /// 0 is the kernel's word for "not measured".
    pub(super) fn srtt_us(&self) -> Option<i64> {
        self.field(const { index("srtt_us") }).filter(|&us| us > 0)
    }

    fn take(&mut self, sample: &Sample) {
        self.samples += 1;
        self.state = sample.state;
        let bytes = sample.segment.map_or(0, |s| u64::from(s.len));
        match (sample.kind, sample.phase) {
            (Kind::Send | Kind::Retransmit, Phase::Transmit) if sample.error == 0 => {
                self.sent_bytes += bytes;
                self.step_sent_bytes += bytes;
                if sample.kind == Kind::Retransmit {
                    self.retransmitted_bytes += bytes;
                    self.retransmissions += 1;
                }
            }
            (Kind::Ack, Phase::Before) => self.step_received_bytes += bytes,
            _ => {}
        }
        if sample.state.get(const { index("sk_state") }) == Some(TCP_CLOSE) {
            self.ended_ns = Some(sample.mono_ns);
        }
    }

    fn step(&mut self, now_ns: i64, step_ns: i64) {
        let rate = |bytes: u64| bytes as f64 * 8.0e9 / step_ns as f64;
        let point = Point {
            mono_ns: now_ns,
            sent_bits_per_s: rate(std::mem::take(&mut self.step_sent_bytes)),
            received_bits_per_s: rate(std::mem::take(&mut self.step_received_bytes)),
            cwnd_bytes: self.cwnd_bytes(),
            in_flight_bytes: self.in_flight_bytes(),
            srtt_us: self.srtt_us().map(|us| us as f64),
        };
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    fn key(&self, order: Order) -> f64 {
        match order {
            Order::Rate => self.last().sent_bits_per_s + self.last().received_bits_per_s,
            Order::Loss => self.retransmitted_share(),
            Order::Rtt => self.srtt_us().unwrap_or(0) as f64,
        }
    }
}

/// All flows that are watched; as many as the sampler follows, and those that have just ended.
#[derive(Debug, Default)]
pub(super) struct Model {
    flows: HashMap<u64, Watched>,
    pub(super) samples_per_s: f64,
    /// Samples of flows that were never announced.
    pub(super) orphans: u64,
    step_samples: u64,
    step_began_ns: Option<i64>,
}

impl Model {
    /// Takes one event.
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Flow(flow) => match self.flows.get_mut(&flow.key) {
                Some(known) => known.flow = flow,
                None => {
                    self.flows.insert(flow.key, Watched::new(flow));
                }
            },
            Event::Sample(sample) => {
                self.step_samples += 1;
                match self.flows.get_mut(&sample.flow) {
                    Some(flow) => flow.take(&sample),
                    None => self.orphans += 1,
                }
            }
            Event::Internals(_) => {}
        }
    }

    /// Ends the step if it is over; did it?
    pub(super) fn tick(&mut self, now_ns: i64) -> bool {
        let began_ns = *self.step_began_ns.get_or_insert(now_ns);
        let step_ns = now_ns - began_ns;
        if step_ns < STEP_NS {
            return false;
        }
        self.step_began_ns = Some(now_ns);
        self.samples_per_s = std::mem::take(&mut self.step_samples) as f64 * 1e9 / step_ns as f64;
        self.flows.retain(|_, flow| {
            flow.step(now_ns, step_ns);
            flow.ended_ns.is_none_or(|ended| now_ns - ended < LINGER_NS)
        });
        true
    }

    /// The flows in an order; those that are alike by their keys, so that they stay where they are.
    pub(super) fn sorted(&self, order: Order) -> Vec<&Watched> {
        let mut flows: Vec<&Watched> = self.flows.values().filter(|flow| flow.samples > 0).collect();
        flows.sort_by(|a, b| b.key(order).total_cmp(&a.key(order)).then(a.flow.key.cmp(&b.flow.key)));
        flows
    }

    pub(super) fn flow(&self, key: u64) -> Option<&Watched> {
        self.flows.get(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpprobe_trace::sample::{Family, Segment};

    fn announced(key: u64) -> Event {
        Event::Flow(Flow {
            key,
            mono_ns: 0,
            local: format!("192.0.2.1:{key}").parse().unwrap(),
            remote: "192.0.2.2:443".parse().unwrap(),
            family: Family::Inet,
            netns: 1,
            cookie: None,
            congestion: None,
            snd_wscale: None,
            rcv_wscale: None,
        })
    }

    fn sample(flow: u64, kind: Kind, len: u32, srtt_us: i64, sk_state: i64) -> Event {
        let phase = if kind == Kind::Ack { Phase::Before } else { Phase::Transmit };
        let mut state = State::default();
        state.set(const { index("srtt_us") }, Some(srtt_us));
        state.set(const { index("sk_state") }, Some(sk_state));
        Event::Sample(Sample {
            flow,
            serial: 1,
            mono_ns: 1_000,
            kind,
            phase,
            segment: Some(Segment { seq: 0, len, ack: 0, flags: 16, tsval: None, ip_id: None }),
            unseen_before: false,
            refused_before: 0,
            error: 0,
            state,
        })
    }

    fn keys(model: &Model, order: Order) -> Vec<u64> {
        model.sorted(order).iter().map(|w| w.flow.key).collect()
    }

    #[test]
    fn flows_are_sorted_by_what_is_asked_for() {
        let mut model = Model::default();
        (1..=4).for_each(|key| model.take(announced(key)));
        assert!(!model.tick(0));
        model.take(sample(1, Kind::Send, 1000, 50, 1));
        model.take(sample(2, Kind::Ack, 5000, 0, 1));
        model.take(sample(3, Kind::Send, 10, 900, 1));
        model.take(sample(3, Kind::Retransmit, 10, 900, 1));
        model.take(sample(9, Kind::Send, 10, 900, 1));
        assert!(model.tick(STEP_NS));
        // of the fourth there is nothing to show yet, the ninth was never announced
        assert_eq!(keys(&model, Order::Rate), [2, 1, 3]);
        assert_eq!(keys(&model, Order::Loss), [3, 1, 2]);
        assert_eq!(keys(&model, Order::Rtt), [3, 1, 2]);
        assert_eq!(model.orphans, 1);
        assert_eq!(model.samples_per_s, 10.0);
        let first = model.flow(1).unwrap();
        assert_eq!(first.last().sent_bits_per_s, 16_000.0);
        assert_eq!(model.flow(3).unwrap().retransmitted_share(), 0.5);
    }

    #[test]
    fn what_has_ended_goes_and_points_do_not_grow_without_end() {
        let mut model = Model::default();
        model.take(announced(1));
        model.take(announced(2));
        model.take(sample(1, Kind::Send, 1000, 50, 1));
        model.take(sample(2, Kind::Send, 1000, 50, TCP_CLOSE));
        model.tick(0);
        model.tick(STEP_NS);
        assert!(model.flow(2).unwrap().has_ended());
        for step in 2..2 + POINTS as i64 {
            model.tick(step * STEP_NS);
        }
        assert_eq!(keys(&model, Order::Rate), [1]);
        assert_eq!(model.flow(1).unwrap().points.len(), POINTS);
        assert_eq!(model.flow(1).unwrap().last().sent_bits_per_s, 0.0);
    }
}
