//! Points as columns of numbers: what a browser takes in fastest, and half the size of objects.

use serde::Serialize;

use crate::points::{Ack, Brief, Matched, Segment, State};

/// States at packets.
#[derive(Default, Serialize)]
struct Briefs {
    number: Vec<i64>,
    /// Position in [`Matched::ALL`].
    matched: Vec<usize>,
    snd_cwnd: Vec<Option<i64>>,
    snd_ssthresh: Vec<Option<i64>>,
    bytes_in_flight: Vec<Option<i64>>,
    srtt_us: Vec<Option<i64>>,
    ca_state: Vec<Option<i64>>,
}

impl Briefs {
    fn push(&mut self, number: i64, matched: Matched, state: &Brief) {
        self.number.push(number);
        self.matched.push(Matched::ALL.iter().position(|&m| m == matched).unwrap_or(0));
        self.snd_cwnd.push(state.cwnd);
        self.snd_ssthresh.push(state.ssthresh);
        self.bytes_in_flight.push(state.in_flight);
        self.srtt_us.push(state.srtt_us);
        self.ca_state.push(state.ca_state);
    }
}

/// [`Segment`]s.
#[derive(Default, Serialize)]
pub(super) struct Segments {
    t_ns: Vec<i64>,
    start: Vec<i64>,
    end: Vec<i64>,
    packets: Vec<u32>,
    again: Vec<u8>,
    #[serde(flatten)]
    state: Briefs,
}

impl Segments {
    pub(super) fn of(segments: &[Segment]) -> Segments {
        let mut columns = Segments::default();
        for s in segments {
            columns.t_ns.push(s.t_ns);
            columns.start.push(s.start);
            columns.end.push(s.end);
            columns.packets.push(s.packets);
            columns.again.push(u8::from(s.again));
            columns.state.push(s.number, s.matched, &s.state);
        }
        columns
    }
}

/// [`Ack`]s.
#[derive(Default, Serialize)]
pub(super) struct Acks {
    t_ns: Vec<i64>,
    ack: Vec<i64>,
    window_end: Vec<Option<i64>>,
    sacked_bytes: Vec<Option<i64>>,
    #[serde(flatten)]
    state: Briefs,
}

impl Acks {
    pub(super) fn of(acks: &[Ack]) -> Acks {
        let mut columns = Acks::default();
        for a in acks {
            columns.t_ns.push(a.t_ns);
            columns.ack.push(a.ack);
            columns.window_end.push(a.window_end());
            columns.sacked_bytes.push(a.sacked_bytes);
            columns.state.push(a.number, a.matched, &a.state);
        }
        columns
    }
}

/// [`State`]s.
#[derive(Default, Serialize)]
pub(super) struct States {
    t_ns: Vec<i64>,
    una: Vec<Option<i64>>,
    cwnd_bytes: Vec<Option<i64>>,
    ssthresh_bytes: Vec<Option<i64>>,
    in_flight: Vec<Option<i64>>,
    srtt_us: Vec<Option<i64>>,
    min_rtt_us: Vec<Option<i64>>,
    pacing_rate: Vec<Option<i64>>,
    delivery_rate: Vec<Option<i64>>,
    ca_state: Vec<Option<i64>>,
}

impl States {
    pub(super) fn of(states: &[State]) -> States {
        let mut columns = States::default();
        for s in states {
            columns.t_ns.push(s.t_ns);
            columns.una.push(s.una);
            columns.cwnd_bytes.push(s.cwnd_bytes);
            columns.ssthresh_bytes.push(s.ssthresh_bytes);
            columns.in_flight.push(s.in_flight);
            columns.srtt_us.push(s.srtt_us);
            columns.min_rtt_us.push(s.min_rtt_us);
            columns.pacing_rate.push(s.pacing_rate);
            columns.delivery_rate.push(s.delivery_rate);
            columns.ca_state.push(s.ca_state);
        }
        columns
    }
}
